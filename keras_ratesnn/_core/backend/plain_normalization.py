"""Batch normalisation with `keras.ops`, for backends whose compiler fuses the operations."""

import math

from keras import ops

from keras_ratesnn._core import time_axis
from keras_ratesnn._core.backend.replica_moments import merged


def normalize(replicas, inputs, axis, gamma, beta, epsilon, weights=None):
    """Normalises a batch with its own statistics, given the backend's replicas; see `base`."""
    # Statistics overflow in half precision.
    inputs = ops.cast(inputs, time_axis.accumulation_dtype(inputs.dtype))
    mean, variance = _statistics(replicas, inputs, axis, weights)
    outputs = _transform(inputs, axis, gamma, beta, mean, variance, epsilon)
    return outputs, *(ops.stop_gradient(ops.reshape(statistic, (-1,))) for statistic in (mean, variance))


def normalize_as(graft, replicas, inputs, axis, gamma, beta, mean, variance, epsilon, weights=None):
    """Normalises with given statistics, differentiated as those of the batch; see `base`."""

    def with_derivative(value, of_batch):
        value = _broadcast(value, inputs, axis)
        return graft(value, ops.broadcast_to(of_batch, ops.shape(value)), 1.0)

    mean, variance = map(with_derivative, (mean, variance), _statistics(replicas, inputs, axis, weights))
    return _transform(inputs, axis, gamma, beta, mean, variance, epsilon)


def _statistics(replicas, inputs, axis, weights=None):
    rank = len(inputs.shape)
    axes = [other for other in range(rank) if other != axis % rank]
    if weights is None:
        size = math.prod(ops.shape(inputs)[other] for other in axes)
        return merged(replicas, size, *ops.moments(inputs, axes, keepdims=True))
    weights = ops.expand_dims(ops.cast(weights, inputs.dtype), tuple(range(len(weights.shape), rank)))
    total, _ = ops.moments(weights, axes, keepdims=True)
    size = ops.sum(weights)
    # The statistics of an empty batch are 0.
    weights = weights / ops.where(total > 0.0, total, 1.0)
    mean, _ = ops.moments(weights * inputs, axes, keepdims=True)
    variance, _ = ops.moments(weights * ops.square(inputs - mean), axes, keepdims=True)
    return merged(replicas, size, mean, variance)


def _transform(inputs, axis, gamma, beta, mean, variance, epsilon):
    scale = ops.rsqrt(variance + epsilon)
    if gamma is not None:
        scale = scale * _broadcast(gamma, inputs, axis)
    shift = -mean * scale
    if beta is not None:
        shift = shift + _broadcast(beta, inputs, axis)
    return inputs * scale + shift


def _broadcast(parameter, inputs, axis):
    """Reshapes `(channels,)`, or `(rows, channels)`, to broadcast to the inputs."""
    shape = [1] * len(inputs.shape)
    shape[axis] = parameter.shape[-1]
    if len(parameter.shape) == 2:
        shape[0] = -1
    return ops.reshape(parameter, shape)
