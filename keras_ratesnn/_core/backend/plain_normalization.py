"""Batch normalisation with `keras.ops`, for backends whose compiler fuses the
operations: methods of `Backend`, whose first argument is the engine."""

import math

from keras import ops

from keras_ratesnn._core import time_axis


def normalize(engine, inputs, axis, gamma, beta, epsilon, weights=None):
    """Normalises a batch with its own statistics over all axes except `axis`, and over
    all replicas.

    Args:
        engine: The engine.
        inputs: Tensor.
        axis: Integer, the axis of channels.
        gamma: γ, of shape `(channels,)`, float32 or wider; or `None`.
        beta: β, likewise.
        epsilon: Float, added to the variance.
        weights: Tensor >= 0 of any scale, of the shape of the first axes of the inputs:
            their weights in the statistics. Defaults to `None`, equal weights.

    Returns:
        Outputs in the dtype of the inputs or wider; mean and variance without gradient,
        `(channels,)`, float32 or wider.
    """
    # Statistics overflow in half precision.
    inputs = time_axis.widen(inputs)
    mean, variance = _statistics(engine, inputs, axis, weights)
    outputs = _transform(inputs, axis, gamma, beta, mean, variance, epsilon)
    mean, variance = (
        ops.stop_gradient(ops.reshape(statistic, (-1,)))
        for statistic in (mean, variance)
    )
    return outputs, mean, variance


def normalize_as(
    engine, inputs, axis, gamma, beta, mean, variance, epsilon, weights=None
):
    """γ (x − μ) / sqrt(σ² + ε) + β with given statistics; other arguments are as in
    `normalize`.

    It is differentiated as if μ and σ² were those of the batch with these weights.
    """
    inputs = time_axis.widen(inputs)

    def with_derivative(value, batch_value):
        value = _broadcast(value, inputs, axis)
        return engine.graft(value, ops.broadcast_to(batch_value, ops.shape(value)), 1.0)

    batch_mean, batch_variance = _statistics(engine, inputs, axis, weights)
    mean = with_derivative(mean, batch_mean)
    variance = with_derivative(variance, batch_variance)
    return _transform(inputs, axis, gamma, beta, mean, variance, epsilon)


def _statistics(engine, inputs, axis, weights):
    rank = len(inputs.shape)
    axes = [index for index in range(rank) if index != axis % rank]
    count = math.prod(ops.shape(inputs)[index] for index in axes)

    def average(values):
        # Not ops.mean, which reduces float64 to float32 on JAX and PyTorch.
        return ops.sum(values, axes, keepdims=True) / ops.cast(count, values.dtype)

    if weights is None:
        size, weights = count, 1.0
    else:
        weights = ops.expand_dims(
            ops.cast(weights, inputs.dtype), tuple(range(len(weights.shape), rank))
        )
        size = ops.sum(weights)
        total, _ = ops.moments(weights, axes, keepdims=True)
        # The statistics of an empty batch are 0.
        weights = weights / ops.where(total > 0.0, total, 1.0)
    mean = average(weights * inputs)
    centred = inputs - mean
    # The derivative with respect to the mean is 0: without it the backward pass takes
    # one pass over the batch, and on several devices one exchange, instead of two.
    squares = engine.graft(ops.square(centred), inputs, 2.0 * centred)
    variance = average(weights * squares)
    return merged_moments(engine, size, mean, variance)


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


def merged_moments(engine, size, mean, variance):
    """Mean and variance of the elements of all replicas.

    Args:
        engine: The engine.
        size: Number or scalar tensor: the number of elements of this replica, or the
            sum of their weights.
        mean: Tensor, the mean of these elements.
        variance: Tensor of the same shape.

    Source: Chan, Golub and LeVeque, "Updating Formulae and a Pairwise Algorithm for
    Computing Sample Variances", 1982.
    """
    if engine.replicas.count() == 1:
        return mean, variance
    size = ops.broadcast_to(ops.cast(size, mean.dtype), ops.shape(mean))
    # A replica may have no part in a small batch; the mean of nothing is not a number.
    own = [ops.where(size > 0.0, moment, 0.0) for moment in (mean, variance)]
    parts = engine.replicas.gather(ops.stack([size, *own]))
    sizes, means, variances = parts[:, 0], parts[:, 1], parts[:, 2]
    total = ops.sum(sizes, axis=0)
    shares = sizes / ops.where(total > 0.0, total, 1.0)
    mean = ops.sum(shares * means, axis=0)
    return mean, ops.sum(shares * (variances + ops.square(means - mean)), axis=0)
