"""Batch normalisation in training, taken apart: statistics, moving averages and the transformation itself."""

from keras import ops

from keras_ratesnn import backend, time_axis


def statistics(layer, inputs):
    """Mean and variance of a batch, in the shape `(1, ..., channels, ..., 1)`.

    Args:
        layer: A `keras.layers.BatchNormalization`.
        inputs: Tensor of at least float32, see `widen`.
    """
    rank = len(inputs.shape)
    axes = [axis for axis in range(rank) if axis != layer.axis % rank]
    synchronized = {"synchronized": True} if layer.synchronized else {}
    return ops.moments(inputs, axes, keepdims=True, **synchronized)


def update_moving_statistics(layer, mean, variance, times):
    """Moves the layer's moving mean and variance towards those of a batch, `times` times."""
    kept = layer.momentum**times
    for moving, value in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
        value = ops.reshape(ops.stop_gradient(value), moving.shape)
        moving.assign(moving * kept + ops.cast(value, moving.dtype) * (1.0 - kept))


def normalize(layer, inputs, times=1):
    """A batch normalised by its own statistics, which move the layer's averages `times` times.

    Returns:
        `(outputs, mean, variance)`: outputs in the layer's compute dtype, statistics as `statistics` gives them.
    """
    inputs = widen(inputs)
    mean, variance = statistics(layer, inputs)
    update_moving_statistics(layer, mean, variance, times)
    return transform(layer, inputs, mean, ops.rsqrt(variance + layer.epsilon)), mean, variance


def transform(layer, inputs, mean, inverse_deviation):
    """(x − μ) · (1/σ) · γ + β, where `inverse_deviation` is 1/σ, in the layer's compute dtype."""
    scale, shape = inverse_deviation, ops.shape(mean)
    if layer.gamma is not None:
        scale = scale * ops.reshape(ops.cast(layer.gamma, inputs.dtype), shape)
    shift = -mean * scale
    if layer.beta is not None:
        shift = shift + ops.reshape(ops.cast(layer.beta, inputs.dtype), shape)
    return ops.cast(backend.multiply_add(inputs, scale, shift), layer.compute_dtype)


def transform_rate(layer, rate, mean, variance):
    """The normalisation of a rate, with the values of the spiking path's statistics and the derivatives of the rate's.

        ĉ = γ (c − μ_c) / sqrt(σ̂_c² + ε) + β
        μ_c: the value of `mean`, the derivative of the batch mean of c
        σ̂_c²: the value of `variance`, the derivative of the batch variance of c

    Source: Yu et al., NeurIPS 2024, appendix on batch normalisation.
    """
    mean_of_rate, variance_of_rate = statistics(layer, rate)
    mean = backend.graft(mean, mean_of_rate, 1.0)
    variance = backend.graft(variance, variance_of_rate, 1.0)
    return transform(layer, rate, mean, ops.rsqrt(variance + layer.epsilon))


def widen(inputs):
    """Statistics overflow in half precision: the inputs in float32 or wider."""
    return ops.cast(inputs, time_axis.accumulation_dtype(inputs.dtype))


def is_normalizing(layer, kwargs):
    """Whether a call of the layer takes statistics of the batch: in training, unless the layer is frozen.

    Raises:
        ValueError: If the layer uses batch renormalisation.
    """
    if not (kwargs.get("training") and layer.trainable):
        return False
    if layer.renorm:
        raise ValueError(
            "A SpikingModel supports batch normalisation without renorm. Received: layer "
            f"{layer.name!r} with renorm=True. Make it with renorm=False."
        )
    return True
