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
    of_cell = {
        name: found
        for name, found in inspect.signature(make).parameters.items()
        if name != "kwargs"
    }

    def decorate(init):
        itself, _, *of_layer = inspect.signature(init).parameters.values()
        own = {parameter.name for parameter in of_layer}

        def with_arguments(self, *args, **kwargs):
            others = {
                name: value for name, value in kwargs.items() if name not in of_cell
            }
            refuse_other_names(
                type(self).__name__,
                {name: value for name, value in others.items() if name not in own},
            )
            arguments = {
                name: value for name, value in kwargs.items() if name in of_cell
            }
            init(
                self,
                make(*args, **arguments, dtype=kwargs.get("dtype"), name="cell"),
                **others,
            )

        constructor: Any = functools.wraps(init)(with_arguments)
        constructor.__signature__ = inspect.Signature(
            [itself, *of_cell.values(), *of_layer], return_annotation=None
        )
        constructor.cell_class = cell_class
        return constructor

    return decorate


def passed_on(arguments: dict[str, Any], *own: str) -> dict[str, Any]:
    """What the constructor of a cell passes on to that of its base class.

    Args:
        arguments: What `locals()` gives at the beginning of the constructor.
        *own: Names of arguments that the base class does not have.
    """
    kept = {
        name: value
        for name, value in arguments.items()
        if name not in ("self", "__class__", "kwargs", *own)
    }
    return {**kept, **arguments["kwargs"]}


def from_cell(name: str) -> property:
    """A property of a neuron layer: the argument `name` of its cell, which cannot be
    set."""

    def get(layer):
        return getattr(layer.cell, name)

    def refuse(layer, value):
        raise fixed(name, value, layer)

    return property(get, refuse)


def set_in_cell(name: str) -> Callable[[Any, Any], None]:
    """A method of a neuron layer: that of this name of its cell."""

    def set_value(layer, value):
        getattr(layer.cell, name)(value)

    set_value.__name__ = name
    set_value.__doc__ = (
        "Sets the parameter that is learned, or was given as an array "
        "or an initializer: a number or an array."
    )
    return set_value
