r"""Folds batch normalisation into the weights of the layer before it.

In inference batch normalisation is a scale and a shift of each channel, y = a x + c
with

    a = γ / sqrt(σ² + ε)          c = β − μ a

Before it is a layer x = W z + b. Together they are the layer

    y = (a W) z + (a b + c)

The products are computed in float64 and stored in the dtype of the weights.

Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", CVPR 2018; Rueckauer et al., "Conversion of
Continuous-Valued Deep Networks to Efficient Event-Driven Networks for Image
Classification", Frontiers in Neuroscience 2017.
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_ratesnn import _graph
from keras_ratesnn._core import checks, keras_internals, progress
from keras_ratesnn.conversion._rebuild import Rebuild, Replacement
from keras_ratesnn.conversion._report import Fold, FoldReport
from keras_ratesnn.conversion._tasks.spiking_task import with_network
from keras_ratesnn.layer_kinds import kind_of
from keras_ratesnn.layers.quantized import QuantizedKernels
from keras_ratesnn.spiking_model import SpikingModel


def fold_batch_normalization(model: keras.Model, verbose: bool = True) -> keras.Model:
    """Removes batch normalisation after convolutions and dense layers, whose weights
    take over what it does in inference.

    The new model gives the same outputs in inference, up to rounding, with fewer
    operations; currents and thresholds keep their units. It is for deployment. Trained
    further, it is a network without batch normalisation.

    A batch normalisation is folded if it directly follows a `Dense`, a convolution
    (also depthwise, separable, transposed), a `WSConv2D` or a `WSDense` without an
    activation, and nothing else uses the output of that layer. A layer that is called
    several times is folded if the same normalisation follows all of its calls.
    `OnlineRenormalization` and `ThresholdDependentBatchNormalization` are folded, too;
    `TemporalEffectiveBatchNormalization`, which has a factor for each time step, is
    not. What cannot be folded stays, and the report says why. Layers keep their names,
    and those without bias get one. The original model is not changed.

    A spike is a step: in a spiking network a membrane that rounding brings across its
    threshold changes the output by more than rounding. This is as rare as membranes so
    close to a threshold.

    Example:

    >>> network = keras.Sequential(
    ...     [
    ...         keras.Input((8, 8, 2)),
    ...         keras.layers.Conv2D(4, 3, use_bias=False, name="convolution"),
    ...         keras.layers.BatchNormalization(name="normalization"),
    ...         keras_ratesnn.layers.LIF(name="neurons"),
    ...         keras.layers.AveragePooling2D(2, name="pool"),
    ...         keras.layers.BatchNormalization(name="another"),
    ...     ]
    ... )
    >>> model = keras_ratesnn.SpikingModel(network, timesteps=4)
    >>> folded = keras_ratesnn.deploy.fold_batch_normalization(model)
    fold_batch_normalization: 1 of 2 batch normalisations were folded.
      stays (after AveragePooling2D): another
    >>> [layer.name for layer in folded.network.layers]
    ['convolution', 'neurons', 'pool', 'another']
    >>> [change.name for change in folded.fold_report.kept]
    ['another']

    Args:
        model: A `SpikingModel`, or a Functional or Sequential model.
        verbose: Boolean, whether the report is printed. Defaults to `True`.

    Returns:
        A new model of the same kind and with the same settings, not compiled, with an
        attribute `fold_report`, which can be printed. Its tuples `folded` and `kept`
        say of each normalisation its `name`, and the layer that it was folded `into` or
        the `reason` why it is kept.

    Raises:
        TypeError: If `model` is neither a `SpikingModel` nor Functional or Sequential.
        ValueError: If it is a Sequential model that does not know its input shape.

    Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", CVPR 2018.
    """
    network = model.network if isinstance(model, SpikingModel) else model
    if not keras_internals.is_graph(network):
        wanted = (
            "a SpikingModel, or a Functional or Sequential Keras model, whose "
            "graph can be rebuilt"
        )
        advice = (
            "Build it as keras.Model(inputs, outputs) from keras.Input, or as "
            "keras.Sequential([keras.Input(shape), ...])."
        )
        raise checks.wrong_type("model", wanted, model, advice)
    verbose = progress.checked(verbose)
    changes: list[Fold] = []
    replacements: dict[Any, Replacement] = {}
    for fold, normalization, before in _found(
        _graph.as_graph(network, argument="model")
    ):
        changes.append(fold)
        if before is not None:
            replacements |= {
                before: _folded(before, normalization),
                normalization: Replacement(None),
            }
    folded = Rebuild(replacements).run(network)
    if isinstance(model, SpikingModel):
        folded = with_network(model, folded)
    folded.fold_report = FoldReport(tuple(changes))
    if verbose:
        print(folded.fold_report)
    return folded


def _folded(layer, normalization):
    """The replacement of a layer, with the weights of the two together."""
    rule: Any = kind_of(normalization).normalization
    kind: Any = kind_of(layer)
    scale, shift = rule.scale_and_shift(normalization)
    name, shape = kind.output_factors(layer)
    weights = dict(
        zip([weight.name for weight in layer.weights], layer.get_weights(), strict=True)
    )
    if isinstance(layer, QuantizedKernels) and name in layer.channel_axes:
        # Rounded again it has the same integers.
        weights[name] = ops.convert_to_numpy(layer.used_kernel(name))
    factors = np.reshape(scale, shape)
    changed = {
        name: np.asarray(weights[name], "float64") * factors,
        "bias": np.asarray(weights.get("bias", 0.0), "float64") * scale + shift,
    }
    return Replacement(
        {"use_bias": True},
        {key: value.astype(weights[name].dtype) for key, value in changed.items()},
    )


def _found(network):
    """Yields all batch normalisations of a network and its nested models, in execution
    order.

    Each item is a `Fold`, the normalisation, and the layer before it into which it can
    be folded, or `None`.
    """
    all_calls: dict[keras.Operation, list] = {}
    for call in _graph.whole_of(network).calls:
        all_calls.setdefault(call.operation, []).append(call)
    for operation, its_calls in all_calls.items():
        if _normalizes(operation):
            reason = _why_not(operation, its_calls, all_calls)
            before = None if reason else its_calls[0].sources[0].operation
            yield (
                Fold(operation.name, "" if before is None else before.name, reason),
                operation,
                before,
            )
        elif isinstance(operation, keras.layers.Layer):
            for layer in filter(_normalizes, keras_internals.with_sublayers(operation)):
                yield (
                    Fold(f"{operation.name}/{layer.name}", reason="inside a layer"),
                    layer,
                    None,
                )


def _normalizes(operation):
    return kind_of(operation).normalization is not None or isinstance(
        operation, keras.layers.BatchNormalization
    )


def _why_not(layer, its_calls, all_calls):
    """Why a normalisation cannot be folded; an empty string if it can.

    Args:
        layer: The normalisation.
        its_calls: List of its calls.
        all_calls: Dict of all operations of the network to their calls.
    """
    normalization = kind_of(layer).normalization
    if normalization is not None and normalization.step_factors is not None:
        return "a factor for each time step"
    if normalization is None or normalization.scale_and_shift is None:
        return "another computation"
    if any(len(call.sources) > 1 for call in its_calls):
        return "takes a mask"
    sources = {call.sources[0].operation for call in its_calls}
    if len(sources) > 1:
        return "after several layers"
    (before,) = sources
    if before is None:
        return "after an input"
    if kind_of(before).output_factors is None or "use_bias" not in before.get_config():
        return f"after {type(before).__name__}"
    if getattr(before, "activation", None) not in (None, keras.activations.linear):
        return "after an activation"
    if any(
        len(call.consumers) > 1 or call.consumers[0] not in its_calls
        for call in all_calls[before]
    ):
        return "the layer before also feeds others"
    if before.compute_dtype != layer.compute_dtype:
        return "another precision than the layer before"
    if isinstance(before, QuantizedKernels) and not before.per_channel:
        return "after a layer with one scale for its whole kernel"
    if getattr(before, "lora_enabled", False) or getattr(
        before, "quantization_mode", None
    ):
        return "after a layer with LoRA or quantized weights"
    rank = len(before.output.shape)
    channels = (
        1 if getattr(before, "data_format", None) == "channels_first" else rank - 1
    )
    return (
        ""
        if layer.axis % rank == channels
        else "another axis than the channels of the layer before"
    )
