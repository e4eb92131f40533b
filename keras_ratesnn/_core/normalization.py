"""Batch normalisation in training: by a batch's own statistics, with moving averages, and that of a rate."""

from keras_ratesnn._core import backend, keras_internals, time_axis


def normalize(layer, inputs, times=1):
    """A batch normalised by its own statistics, which move the layer's averages `times` times.

    Args:
        layer: A `keras.layers.BatchNormalization`.
        inputs: Tensor.
        times: Integer. Defaults to `1`.

    Returns:
        `(outputs, mean, variance)`: outputs in the layer's compute dtype, statistics `(channels,)` in float32 or wider.
    """
    parameters = _parameters(layer, inputs)
    outputs, mean, variance = backend.normalize(inputs, layer.axis, *parameters, layer.epsilon, layer.synchronized)
    kept = layer.momentum**times
    for moving, value in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
        moving.assign(backend.multiply_add(time_axis.cast(value, moving.dtype), 1.0 - kept, moving.value * kept))
    return time_axis.cast(outputs, layer.compute_dtype), mean, variance


def normalize_rate(layer, rate, mean, variance, weights=None):
    """The normalisation of a rate, with the values of the spiking path's statistics and the derivatives of the rate's.

        ĉ = γ (c − μ_c) / sqrt(σ̂_c² + ε) + β
        μ_c: the value of `mean`, the derivative of the batch mean of c
        σ̂_c²: the value of `variance`, the derivative of the batch variance of c

    In these means the rows of c may have weights, `weights`, which are 1 on average.

    Source: Yu et al., NeurIPS 2024, appendix on batch normalisation.
    """
    rate = time_axis.widen(rate)
    parameters = _parameters(layer, rate)
    statistics = mean, variance, layer.epsilon, layer.synchronized
    outputs = backend.normalize_as(rate, layer.axis, *parameters, *statistics, weights=weights)
    return time_axis.cast(outputs, layer.compute_dtype)


def _parameters(layer, inputs):
    """γ and β in the dtype of the statistics, or `None`."""
    dtype = time_axis.accumulation_dtype(inputs.dtype)
    return [None if parameter is None else time_axis.cast(parameter.value, dtype) for parameter in (layer.gamma, layer.beta)]


def renormalize(layer, inputs, times=1):
    """A batch normalised with renorm=True, by Keras' own call: it has no one set of statistics."""
    for _ in range(times):
        outputs, _ = keras_internals.call_aside(layer, (inputs,), {"training": True})
    return outputs, None, None
