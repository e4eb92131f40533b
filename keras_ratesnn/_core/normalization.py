"""Batch normalisation in training, with moving averages, for steps and for rates."""

import math

import numpy as np
from keras import ops

from keras_ratesnn._core import keras_internals, time_axis
from keras_ratesnn._core.backend import engine


def normalize(layer, inputs, times=1, mask=None):
    """Normalises a batch with its own statistics and updates the layer's moving
    averages `times` times.

    Args:
        layer: A `keras.layers.BatchNormalization`.
        inputs: Tensor.
        times: Integer. Defaults to `1`.
        mask: Tensor with one axis less, whose axes but the first may have length 1:
            false, or 0, for what the statistics leave out. Defaults to `None`.

    Returns:
        `(outputs, mean, variance)`: outputs in the layer's compute dtype, statistics
        `(channels,)` in float32 or wider.
    """
    weights = _weights(layer, inputs, mask)
    outputs, mean, variance = _by_batch(layer, inputs, weights)
    move_averages(layer, mean, variance, times, weights)
    return outputs, mean, variance


def normalize_only(layer, inputs, times=1, mask=None):
    """`normalize`, without updating the moving averages."""
    return _by_batch(layer, inputs, _weights(layer, inputs, mask))


def _by_batch(layer, inputs, weights):
    gamma, beta = _parameters(layer, inputs)
    outputs, mean, variance = engine.normalize(
        inputs, layer.axis, gamma, beta, layer.epsilon, weights
    )
    return time_axis.cast(outputs, layer.compute_dtype), mean, variance


def normalize_rate(layer, rate, mean, variance, weights=None):
    """Normalises a rate: statistics have the values of the spiking path and the
    derivatives of those of the rate.

        ĉ = γ (c − μ_c) / sqrt(σ̂_c² + ε) + β
        μ_c: the value of `mean`, the derivative of the batch mean of c
        σ̂_c²: the value of `variance`, the derivative of the batch variance of c

    `weights` are optional weights of c in these means, of the shape of its first axes.
    With weights, `mean` and `variance` may be those of each row, `(rows, channels)`.

    Source: Yu et al., NeurIPS 2024, appendix on batch normalisation.
    """
    gamma, beta = _parameters(layer, rate)
    outputs = engine.normalize_as(
        rate, layer.axis, gamma, beta, mean, variance, layer.epsilon, weights
    )
    return time_axis.cast(outputs, layer.compute_dtype)


def move_averages(layer, mean, variance, times=1, weights=None):
    """Updates a layer's moving averages `times` times with the statistics of a batch,
    unless all of its weights are 0."""
    decay = layer.momentum**times
    if weights is not None:
        decay = ops.where(_sum_over_replicas(weights) > 0.0, decay, 1.0)
    for moving, value in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
        moving.assign(
            engine.multiply_add(
                time_axis.cast(value, moving.dtype), 1.0 - decay, moving.value * decay
            )
        )


def degrees_of_freedom(layer, inputs, mask):
    """How many values of a channel are free once their mean and variance are given:
    their number less 2, and positive.

    Normalising so few values gives the same whatever they are, and has no derivative.

    Args:
        layer: A `keras.layers.BatchNormalization`.
        inputs: Tensor.
        mask: As in `normalize`.
    """
    sizes_in_row = [
        size
        for axis, size in enumerate(ops.shape(inputs))
        if axis not in (0, layer.axis % len(inputs.shape))
    ]
    per_weight = math.prod(sizes_in_row) / math.prod(ops.shape(mask)[1:])
    return ops.maximum(
        _sum_over_replicas(_weights(layer, inputs, mask)) * per_weight - 2.0,
        _LEAST_FREEDOM,
    )


_LEAST_FREEDOM = 1e-6
"""Less than that of any other values, even where the variance is 0 and its inverse
1 / ε."""


def _sum_over_replicas(weights):
    (total,) = engine.replicas.sums(ops.sum(weights))
    return total


def normalize_online(layer, inputs, times=1, mask=None):
    """Normalises a batch with the moving averages, without updating them, and with the
    derivative of its own statistics.

    This is batch renormalisation, with constants r and d:

        (x − μ_B) / σ_B · r + d   r = σ_B / σ_run   d = (μ_B − μ_run) / σ_run

    If r is outside [1/20, 20], the statistics of the batch are used: r = 1, d = 0.

    Source: Zhu et al., "Online Stabilization of Spiking Neural Networks", ICLR 2024.
    """
    weights = _weights(layer, inputs, mask)
    normalized, mean, variance = engine.normalize(
        inputs, layer.axis, None, None, layer.epsilon, weights=weights
    )
    scale, shift = _renormalization(layer, mean, variance, normalized)
    shape = [1] * len(inputs.shape)
    shape[layer.axis] = -1
    outputs = time_axis.widen(normalized) * ops.reshape(scale, shape) + ops.reshape(
        shift, shape
    )
    return time_axis.cast(outputs, layer.compute_dtype), mean, variance


def normalize_rate_online(layer, rate, mean, variance, weights=None):
    """`normalize_online` of a rate; see `normalize_rate`."""
    scale, shift = _renormalization(layer, mean, variance, rate)
    statistics = mean, variance, layer.epsilon
    outputs = engine.normalize_as(
        rate, layer.axis, scale, shift, *statistics, weights=weights
    )
    return time_axis.cast(outputs, layer.compute_dtype)


def scale_and_shift(layer):
    """The scale and shift of a layer in inference: it multiplies each channel by
    γ / sqrt(σ² + ε) and adds β − μ γ / sqrt(σ² + ε).

    Args:
        layer: A `keras.layers.BatchNormalization`.

    Returns:
        Two float64 arrays `(channels,)`.
    """
    gamma = 1.0 if layer.gamma is None else _array(layer.gamma)
    beta = 0.0 if layer.beta is None else _array(layer.beta)
    scale = gamma / np.sqrt(_array(layer.moving_variance) + layer.epsilon)
    return scale, beta - _array(layer.moving_mean) * scale


def _array(variable):
    return np.asarray(ops.convert_to_numpy(variable.value), "float64")


def _renormalization(layer, mean, variance, inputs):
    """γ r and γ d + β, `(channels,)`."""
    running_mean, running_variance = (
        time_axis.cast(ops.convert_to_tensor(moving), mean.dtype)
        for moving in (layer.moving_mean, layer.moving_variance)
    )
    running_deviation = ops.sqrt(running_variance + layer.epsilon)
    r = ops.sqrt(variance + layer.epsilon) / running_deviation
    inside = ops.logical_and(r >= 1.0 / _FARTHEST, r <= _FARTHEST)
    scale = ops.stop_gradient(ops.where(inside, r, 1.0))
    shift = ops.stop_gradient(
        ops.where(inside, (mean - running_mean) / running_deviation, 0.0)
    )
    gamma, beta = _parameters(layer, inputs)
    if gamma is not None:
        scale, shift = gamma * scale, gamma * shift
    return scale, shift if beta is None else shift + beta


_FARTHEST = 20.0
"""The largest allowed ratio between batch and running standard deviation, in either
direction."""


def _weights(layer, inputs, mask):
    """The weights of inputs in statistics that leave out what is masked; `None` if
    nothing is."""
    if mask is None:
        return None
    if len(mask.shape) != len(inputs.shape) - 1:
        raise ValueError(
            f"`mask` must have one axis less than the input of layer {layer.name!r} of "
            f"type {type(layer).__name__}. Received: mask.shape={tuple(mask.shape)} "
            f"for inputs of shape {tuple(inputs.shape)}. Pass a mask of whole rows."
        )
    return time_axis.cast(mask, time_axis.accumulation_dtype(inputs.dtype))


def _parameters(layer, inputs):
    """γ and β in the dtype of the statistics, or `None`."""
    dtype = time_axis.accumulation_dtype(inputs.dtype)
    return [
        None if parameter is None else time_axis.cast(parameter.value, dtype)
        for parameter in (layer.gamma, layer.beta)
    ]


def renormalize(layer, inputs, times=1, mask=None):
    """Normalises a batch with renorm=True by Keras' own call, which has no single set
    of statistics."""
    if engine.replicas.count() > 1:
        raise ValueError(
            f"Batch renormalization cannot be trained on {engine.replicas.count()} "
            "replicas, because each would have its own statistics. Received: layer "
            f"{layer.name!r} with renorm=True. Set renorm=False."
        )
    if mask is not None:
        mask = ops.broadcast_to(mask, ops.shape(inputs)[:-1])
    for _ in range(times):
        outputs, _ = keras_internals.call_aside(
            layer, (inputs,), {"training": True, "mask": mask}
        )
    return outputs, None, None
