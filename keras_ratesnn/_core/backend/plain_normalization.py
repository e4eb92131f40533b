"""Batch normalisation by operations of `keras.ops`, for backends whose compiler makes few passes of them."""

from keras import ops

from keras_ratesnn._core import time_axis


def normalize(inputs, axis, gamma, beta, epsilon, synchronized):
    """A batch normalised by its own statistics; see `backend`."""
    # Statistics overflow in half precision.
    inputs = ops.cast(inputs, time_axis.accumulation_dtype(inputs.dtype))
    mean, variance = _statistics(inputs, axis, synchronized)
    outputs = _transform(inputs, axis, gamma, beta, mean, variance, epsilon)
    return outputs, *(ops.stop_gradient(ops.reshape(statistic, (-1,))) for statistic in (mean, variance))


def normalize_as(graft, inputs, axis, gamma, beta, mean, variance, epsilon, synchronized, weights=None):
    """A normalisation by given statistics, differentiated as those of the batch, by a backend's `graft`; see `backend`."""
    mean_of_batch, variance_of_batch = _statistics(inputs, axis, synchronized, weights)
    mean = graft(_beside(mean, inputs, axis), mean_of_batch, 1.0)
    variance = graft(_beside(variance, inputs, axis), variance_of_batch, 1.0)
    return _transform(inputs, axis, gamma, beta, mean, variance, epsilon)


def _statistics(inputs, axis, synchronized, weights=None):
    rank = len(inputs.shape)
    axes = [other for other in range(rank) if other != axis % rank]
    options = {"synchronized": True} if synchronized else {}
    if weights is None:
        return ops.moments(inputs, axes, keepdims=True, **options)
    weights = ops.reshape(ops.cast(weights, inputs.dtype), (-1, *([1] * (rank - 1))))
    mean, _ = ops.moments(weights * inputs, axes, keepdims=True, **options)
    variance, _ = ops.moments(weights * ops.square(inputs - mean), axes, keepdims=True, **options)
    return mean, variance


def _transform(inputs, axis, gamma, beta, mean, variance, epsilon):
    scale = ops.rsqrt(variance + epsilon)
    if gamma is not None:
        scale = scale * _beside(gamma, inputs, axis)
    shift = -mean * scale
    if beta is not None:
        shift = shift + _beside(beta, inputs, axis)
    return inputs * scale + shift


def _beside(parameter, inputs, axis):
    """`(channels,)` in a shape that broadcasts to the inputs."""
    shape = [1] * len(inputs.shape)
    shape[axis] = -1
    return ops.reshape(parameter, shape)
