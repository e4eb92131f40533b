"""What a cell refuses: new values for its arguments once it is built, and a place of its own in a network."""

from typing import Any

import keras


class GuardedCell(keras.layers.Layer):
    """A layer that is a cell: its arguments are fixed once it is built, and a network takes it in a `Neuron` only."""

    fixed_arguments: tuple[str, ...] = ()
    """The names of the constructor's arguments that what was compiled or traced may hold the values of."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.fixed_arguments and getattr(self, "built", False):
            raise AttributeError(_fixed(name, value, self))
        super().__setattr__(name, value)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if any(isinstance(value, keras.KerasTensor) for value in (*args, *kwargs.values())):
            kind = type(self).__name__
            # Not a TypeError: Sequential would put a message of its own in its place.
            raise ValueError(
                f"A cell is one time step and its state, and no layer of a network. Received: {kind} {self.name!r}, put into a "
                f"model. Use the layer around it: keras_ratesnn.layers.LIF() or its like, or keras_ratesnn.layers.Neuron({kind}"
                "())."
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
        f"`{name}` of {type(owner).__name__} {owner.name!r} is fixed when it is made: what is compiled would not see a change. "
        f"Received: {name}={value!r}. Make a new layer with it, or a new model from a changed get_config(), and copy the "
        "weights by set_weights. learn_threshold=True makes a threshold that training can change."
    )
