"""The arguments of neurons: declared and checked by a cell, taken and shown by its
layer, and fixed once the cell is built."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec

from keras_ratesnn.layers._other_names import refuse_other_names
from keras_ratesnn.layers.parameters import fixed

_Arguments = ParamSpec("_Arguments")


def arguments_of(
    cell_class: Callable[_Arguments, Any],
) -> Callable[[Callable[..., None]], Callable[Concatenate[Any, _Arguments], None]]:
    """Gives a neuron layer the arguments of its cell, so that they are declared and
    checked in one place.

    It decorates a constructor `(self, cell, *, ..., **kwargs)`: the cell is made of the
    arguments of `cell_class`; what stands after it are arguments of the layer alone,
    and those of any Keras layer. Type checkers, `inspect.signature` and Keras see one
    with the arguments of the cell. `NeuronWithArguments` shows them as attributes of
    the layer.

    Args:
        cell_class: A class of cells.
    """
    make: Any = cell_class
    cell_parameters = dict(inspect.signature(make).parameters)
    cell_parameters.pop("kwargs", None)

    def decorate(init):
        itself, _, *own = inspect.signature(init).parameters.values()
        known = {parameter.name for parameter in own}

        def with_arguments(self, *args, **kwargs):
            cell_arguments = {"dtype": kwargs.get("dtype"), "name": "cell"}
            layer_arguments, unknown = {}, {}
            for name, value in kwargs.items():
                if name in cell_parameters:
                    cell_arguments[name] = value
                    continue
                layer_arguments[name] = value
                if name not in known:
                    unknown[name] = value
            refuse_other_names(type(self).__name__, unknown)
            init(self, make(*args, **cell_arguments), **layer_arguments)

        constructor: Any = functools.wraps(init)(with_arguments)
        constructor.__signature__ = inspect.Signature(
            [itself, *cell_parameters.values(), *own], return_annotation=None
        )
        constructor.cell_class = cell_class
        return constructor

    return decorate


def passed_on(arguments: dict[str, Any], *own: str) -> dict[str, Any]:
    """The arguments that the constructor of a cell passes on to that of its base class.

    Args:
        arguments: What `locals()` gives at the beginning of the constructor.
        *own: Names of arguments that the base class does not have.
    """
    left_out = {"self", "__class__", "kwargs", *own}
    inherited = {
        name: value for name, value in arguments.items() if name not in left_out
    }
    return {**inherited, **arguments["kwargs"]}


def from_cell(name: str) -> property:
    """A property of a neuron layer: the argument `name` of its cell, which cannot be
    set."""

    def get(layer):
        return getattr(layer.cell, name)

    def refuse(layer, value):
        raise fixed(name, value, layer)

    return property(get, refuse)


def set_in_cell(name: str) -> Callable[[Any, Any], None]:
    """The method of a neuron layer that calls the method `name` of its cell."""

    def set_value(layer, value):
        getattr(layer.cell, name)(value)

    set_value.__name__ = name
    set_value.__doc__ = (
        "Sets the parameter that is learned, or was given as an array or an "
        "initializer: a number or an array."
    )
    return set_value
