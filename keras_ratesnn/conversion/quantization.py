"""Networks that are trained with quantised kernels and decays, for integer networks."""

import re
import warnings
from collections.abc import Callable, Sequence
from typing import Literal

import keras
import numpy as np
from keras import ops

from keras_ratesnn import _graph
from keras_ratesnn._core import checks, keras_internals
from keras_ratesnn._model.quantization import check_not_quantized
from keras_ratesnn.conversion._rebuild import Rebuild, Replacement
from keras_ratesnn.conversion._tasks.spiking_task import with_network
from keras_ratesnn.conversion.positions import has_matrix, positions, quantized_class
from keras_ratesnn.layer_kinds import NEURON, READOUT, kind_of
from keras_ratesnn.layers.quantized import WEIGHT_TYPES
from keras_ratesnn.spiking_model import SpikingModel, checked_model

WeightType = Literal["int8", "int4", "ternary"]
MOST_DECAY_BITS = 16
_BITS_ADVICE = "Products with a membrane have to fit in 32 bits."


def quantize_aware(
    model: SpikingModel,
    weights: WeightType = "int8",
    first: WeightType = "int8",
    last: WeightType = "int8",
    decay_bits: int = 8,
    filters: str | Sequence[str] | Callable[[keras.layers.Layer], bool] | None = None,
) -> SpikingModel:
    """Makes a model to train with weights of few bits, so that a network of integers
    loses little.

    In every call a kernel is s · W: integers W with a scale s for each output channel,
    which are recomputed from the weights that are trained. The gradient, of any method,
    goes straight through the rounding. A layer without neurons between it and the
    output has one scale for its whole kernel, since classes are compared. Decays are
    rounded to m / 2^k; those that are learned stay so. Batch normalisation stays: it is
    absorbed exactly afterwards, by `fold_batch_normalization` too.

    `Dense`, all convolutions, `WSConv2D` and `WSDense` are quantised, a `WSConv2D`
    after its standardisation; a warning names other layers with matrices. The weights
    are copied. Start from a trained model: int8 needs few steps or none, ternary some
    hundred.

    Example:

    >>> inputs = keras.Input((8, 8, 2))
    >>> x = keras_ratesnn.layers.LIF()(
    ...     keras.layers.Conv2D(4, 3, name="filters")(inputs)
    ... )
    >>> network = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(x)))
    >>> low = quantize_aware(
    ...     keras_ratesnn.SpikingModel(network, timesteps=4), first="ternary"
    ... )
    >>> [
    ...     len(np.unique(kernel))
    ...     for kernel in ops.convert_to_numpy(
    ...         low.network.get_layer("filters").kernel
    ...     ).T
    ... ]
    [3, 3, 3, 3]
    >>> low.network.get_layer("lif").decay * 256
    51.0

    Args:
        model: A `SpikingModel`.
        weights: `"int8"` (integers up to 127), `"int4"` (up to 7) or `"ternary"` (−1, 0
            and 1). Defaults to `"int8"`.
        first: The same for layers with no other weights before them. Defaults to
            `"int8"`.
        last: The same for layers with no other weights after them, also if they are the
            first. Defaults to `"int8"`.
        decay_bits: Integer k from 1 to 16. Defaults to `8`.
        filters: A regular expression, a list of them or a function of a layer: which
            layers are quantised. Defaults to `None`, all.

    Returns:
        A new `SpikingModel` with the same settings, not compiled.

    Raises:
        TypeError: If `model` is not a `SpikingModel`, or an argument has the wrong
            type.
        ValueError: If there is nothing to quantise, the model is quantized for
            inference already, a decay is rounded to 1, or other neurons than
            `ParametricLIF` learn their decays.

    Source: Li and Liu, "Ternary weight networks", 2016; Bengio et al., "Estimating or
    propagating gradients through stochastic neurons for conditional computation", 2013.
    """
    network = checked_model(model).network
    for name, value in (("weights", weights), ("first", first), ("last", last)):
        checks.one_of(name, value, WEIGHT_TYPES)
    checks.integer(
        "decay_bits",
        decay_bits,
        at_least=1,
        at_most=MOST_DECAY_BITS,
        advice=_BITS_ADVICE,
    )
    chosen = _chooser(filters)
    problem = (
        "`model` must not be quantized for inference: its weights are not trained."
    )
    check_not_quantized(network, problem, "Pass the model before `quantize`.")
    replacements = {}
    for layer, position in positions(_graph.as_graph(network)).items():
        if quantized_class(layer) is not None and chosen(layer):
            weight_type = (
                last if position.is_last else first if position.is_first else weights
            )
            config = {
                "weight_type": weight_type,
                "per_channel": not position.reaches_output,
            }
            replacements[layer] = Replacement(config, cls=quantized_class(layer))
    _report_others(network, replacements, chosen)
    for operation in keras_internals.with_sublayers(network):
        if kind_of(operation).role in (NEURON, READOUT):
            config = _with_rounded_decays(operation, operation.get_config(), decay_bits)
            replacements[operation] = Replacement(
                config, weights=_rounded_weights(operation, decay_bits)
            )
    return with_network(model, Rebuild(replacements).run(network))


def _chooser(filters):
    """`filters` as a function of a layer."""
    patterns = [filters] if isinstance(filters, str) else filters
    if filters is None:
        return lambda layer: True
    if callable(filters):
        return filters
    if not isinstance(patterns, (list, tuple)) or not all(
        isinstance(pattern, str) for pattern in patterns
    ):
        raise checks.wrong_type(
            "filters",
            "a regular expression, a list of them, or a function of a layer",
            filters,
        )
    return lambda layer: any(re.search(pattern, layer.name) for pattern in patterns)


def _report_others(network, replacements, chosen):
    """Warns of layers that stay as they were, though chosen; raises an error if all
    do."""
    if not replacements:
        raise ValueError(
            "`quantize_aware` found no layer to quantise. Received: network "
            f"{network.name!r} without a Dense layer or convolution that `filters` "
            "choose."
        )
    layers = keras_internals.layers_inside(network)
    kept = [
        layer
        for layer in layers
        if has_matrix(layer) and layer not in replacements and chosen(layer)
    ]
    if kept:
        warnings.warn(
            "The weights of these layers stay as they were: "
            f"{', '.join(layer.name for layer in kept)}. Dense layers and convolutions "
            "are quantised, of the classes of Keras and of keras_ratesnn, and not "
            "inside other layers.",
            stacklevel=3,
        )


def _with_rounded_decays(layer, config, bits):
    """The changes in the config of neurons, or of cells in it: decays are multiples of
    2^−bits."""
    learned, changed = "decay_bits" in config, {}
    for name, value in config.items():
        if isinstance(value, dict):
            changed[name] = {**value, **_with_rounded_decays(layer, value, bits)}
        elif name == "decay_bits":
            changed[name] = bits
        elif name.endswith("decay") and isinstance(value, float) and not learned:
            changed[name] = _rounded(layer, name, value, bits).item()
    return changed


def _rounded_weights(layer, bits):
    """The weights of neurons that change: decays of channels or neurons."""
    rounded = {}
    for weight in layer.weights:
        if weight.name.endswith("decay"):
            rounded[weight.name] = _rounded(
                layer, weight.name, ops.convert_to_numpy(weight), bits
            )
        elif weight.name.endswith("decay_logit") and not _rounds_decays(layer):
            raise ValueError(
                "`model` must have decays that are fixed, or rounded in training. "
                f"Received: layer {layer.name!r} of type {type(layer).__name__}, which "
                "learns them. Use ParametricLIF."
            )
    return rounded


def _rounds_decays(layer):
    """Whether neurons that learn their decays can round them in each call."""
    return (
        kind_of(layer).role == NEURON
        and "decay_bits" in layer.cell.independent_cell().fixed_arguments
    )


def _rounded(layer, name, decay, bits):
    rounded = np.round(np.asarray(decay) * 2**bits) / 2**bits
    if np.any((rounded == 1.0) & (np.asarray(decay) < 1.0)):
        raise ValueError(
            "`decay_bits` must be enough for the decays of all neurons. Received: "
            f"decay_bits={bits}, which rounds {name}={decay} of layer {layer.name!r} "
            "to 1, no leak. Pass more bits."
        )
    return rounded
