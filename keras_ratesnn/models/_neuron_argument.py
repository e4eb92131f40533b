"""The check of the argument `neuron` of functions that build networks."""

import keras

from keras_ratesnn._core import checks
from keras_ratesnn.layers.neurons import LIF, Neuron


def checked_neuron(neuron, default=LIF, name="neuron"):
    """Checks an argument `neuron` and returns a function that returns a new neuron
    layer at each call.

    Args:
        neuron: The argument of the user: a function without arguments, or `None` for
            the default.
        default: The default function. Defaults to `LIF`.
        name: String, the name of the argument. Defaults to `"neuron"`.

    Raises:
        TypeError: If `neuron` is not callable, or, when called, does not return a
            neuron layer.
        ValueError: If, when called, it returns the same layer again.
    """
    if neuron is None:
        return default
    if isinstance(neuron, keras.layers.Layer) or not callable(neuron):
        advice = f"Pass for example {name}=lambda: keras_ratesnn.layers.LIF(decay=0.5)."
        raise checks.wrong_type(
            name, "a function that returns a new neuron layer each time", neuron, advice
        )
    made: list[Neuron] = []

    def new_neuron():
        layer = neuron()
        if not isinstance(layer, Neuron):
            raise TypeError(
                f"`{name}` must return a neuron layer, for example "
                f"keras_ratesnn.layers.LIF(). Received: {name}={neuron!r}, which "
                f"returns {layer!r} of type {type(layer).__name__}."
            )
        if any(layer is earlier for earlier in made):
            raise ValueError(
                f"`{name}` must return a new layer each time: the layers of a network "
                f"do not share their neurons. Received: {name}={neuron!r}, which "
                f"returns {layer.name!r} again."
            )
        made.append(layer)
        return layer

    return new_neuron
