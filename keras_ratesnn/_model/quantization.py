"""Quantized weights: what Keras quantizes in a network, and what must not be
trained."""

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import keras

from keras_ratesnn._core import checks, keras_internals

MODES = ("int8", "int4")
"""The modes that need neither training nor calibration."""

_OTHER_MODES = {
    "float8": "it quantizes the values of training steps",
    "gptq": "its calibration runs blocks of a network without time",
    "awq": "its calibration runs blocks of a network without time",
}


def checked_mode(mode: Any) -> str:
    """Returns `mode` if the weights of a spiking network can be quantized in it; else
    raises ValueError."""
    if checks.is_one_of(mode, _OTHER_MODES):
        raise ValueError(
            "`mode` must be 'int8' or 'int4' for a SpikingModel. Received: "
            f"mode={mode!r}, which it does not support: {_OTHER_MODES[mode]}."
        )
    return checks.one_of("mode", mode, MODES)


def quantized_layers(network: keras.Model) -> list[keras.Layer]:
    """The layers of a network whose weights are quantized."""
    return [
        layer
        for layer in keras_internals.with_sublayers(network)
        if layer.dtype_policy.quantization_mode is not None
    ]


def unquantized(policy: keras.DTypePolicy) -> keras.DTypePolicy:
    """The dtype policy that a layer had before its weights were quantized."""
    # Like "int8_from_float32".
    return (
        policy
        if policy.quantization_mode is None
        else keras.DTypePolicy(policy.name.partition("_from_")[2])
    )


def check_trainable(network: keras.Model) -> None:
    """Raises ValueError if a network has quantized layers, whose weights no gradient
    can change."""
    problem = (
        "A quantized model cannot be trained: its integer weights have no gradient."
    )
    check_not_quantized(
        network, problem, "Train the model first, save it, and quantize it after that."
    )


def check_not_quantized(network: keras.Model, problem: str, advice: str) -> None:
    """Raises ValueError, which tells the problem and what to do, if a network has
    quantized layers."""
    if layers := quantized_layers(network):
        raise ValueError(
            f"{problem} Received: layer {layers[0].name!r} of type "
            f"{type(layers[0]).__name__} with the policy "
            f"{layers[0].dtype_policy.name!r}. {advice}"
        )


@contextlib.contextmanager
def summarized(network: keras.Model, mode: str) -> Iterator[None]:
    """A context for Keras' quantization of a network, with one warning of what stays as
    it was instead of one a layer.

    Raises:
        ValueError: If nothing was quantized.
    """
    before = len(quantized_layers(network))
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "Layer .* does not have a `quantize` method implemented"
        )
        # It comes from how Keras converts its variables.
        warnings.filterwarnings(
            "ignore", "__array__ implementation doesn't accept a copy keyword"
        )
        yield
    advice = (
        "Keras quantizes Dense, EinsumDense and Embedding. To quantize "
        "convolutions as well, export the model: export('model.tflite', "
        "format='litert', optimizations=[tf.lite.Optimize.DEFAULT])."
    )
    if len(quantized_layers(network)) == before:
        raise ValueError(
            f"`quantize` found no layer to quantize to {mode} in the network "
            f"{network.name!r}. {advice}"
        )
    unquantized = [
        layer.name
        for layer in keras_internals.layers_inside(network)
        if layer.dtype_policy.quantization_mode is None
        and any(len(weight.shape) > 1 for weight in layer.weights)
    ]
    if unquantized:
        warnings.warn(
            f"The weights of these layers stay as they were: {', '.join(unquantized)}. "
            f"{advice}",
            stacklevel=4,
        )
