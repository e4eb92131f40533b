"""Guards of cells: arguments cannot change after building, and a cell cannot be used directly in a network."""

from typing import Any

import keras


class GuardedCell(keras.layers.Layer):
    """Base class of cells: arguments are fixed once the cell is built, and a network can only contain it inside a `Neuron`."""

    fixed_arguments: tuple[str, ...] = ()
    """Names of the constructor's arguments, which are attributes and, as they are, part of the config.

    Their values may be part of compiled or traced code.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.fixed_arguments and getattr(self, "built", False):
            raise AttributeError(_fixed(name, value, self))
        super().__setattr__(name, value)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if any(isinstance(value, keras.KerasTensor) for value in (*args, *kwargs.values())):
            kind = type(self).__name__
            # Not a TypeError: Sequential would replace its message.
            raise ValueError(
                f"A cell computes one time step and cannot be a layer of a network. Received: {kind} {self.name!r} in a model. "
                f"Use a neuron layer: keras_ratesnn.layers.LIF() or another one, or keras_ratesnn.layers.Neuron({kind}())."
            )
        return super().__call__(*args, **kwargs)


def from_cell(name: str) -> property:
    """A property of a neuron layer: the argument `name` of its cell, which cannot be set."""

    def get(layer):
        return getattr(layer.cell, name)

    def refuse(layer, value):
        raise AttributeError(_fixed(name, value, layer))

    return property(get, refuse)


def _fixed(name: str, value: Any, owner: Any) -> str:
    return (
        f"`{name}` of {type(owner).__name__} {owner.name!r} is fixed when it is created: compiled code would not see a change. "
        f"Received: {name}={value!r}. Create a new layer with this value, or a new model from an edited get_config(), and copy "
        "the weights with set_weights. A threshold with learn_threshold=True can change in training."
    )
