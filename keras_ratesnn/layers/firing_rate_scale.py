"""The scale of dual spike self-attention: a moving average of how often neurons
spike."""

import keras
from keras import ops

from keras_ratesnn._core import checks, registry, time_axis
from keras_ratesnn._core.backend import engine
from keras_ratesnn._core.configs import ConfigOfAttributes
from keras_ratesnn.layer_kinds import BatchStatistics, LayerKind


def _normalize(layer, spikes, times=1, mask=None):
    """`(scales, rates, variances)`: the layer's outputs, and for each head the mean of
    the spikes, and n f, which is under the root.

    Arguments are those of `normalize` in `BatchStatistics`.
    """
    spikes = time_axis.widen(ops.stop_gradient(spikes))
    axes = [axis for axis in range(len(spikes.shape)) if axis != layer.axis]
    if mask is None:
        total = ops.sum(spikes, axis=axes)
        count = ops.cast(ops.size(spikes) // ops.size(total), total.dtype)
        count = ops.ones_like(total) * count
    else:
        weights = time_axis.cast(mask, spikes.dtype)[..., None] * ops.ones_like(spikes)
        total = ops.sum(weights * spikes, axis=axes)
        count = ops.sum(weights, axis=axes)
    total, count = engine.replicas.sums(total, count)
    rates = total / ops.where(count > 0.0, count, 1.0)
    layer.move(rates, times, count > 0.0)
    variances = layer.variances(spikes)
    return _scales(layer, spikes, variances), rates, variances


def _normalize_rate(layer, rate, mean, variance, weights=None):
    """The outputs for a rate, given the variances of the steps; see `normalize_rate` in
    `BatchStatistics`."""
    return _scales(layer, rate, ops.stop_gradient(variance))


def _scales(layer, x, variances):
    """1 / √variance of each head, and of each row if there is one for each, in the
    shape of the outputs."""
    inner = [1] * (len(x.shape) - 2)
    scales = ops.reshape(ops.rsqrt(variances), (-1, variances.shape[-1], *inner))
    scales = ops.broadcast_to(scales, (ops.shape(x)[0], variances.shape[-1], *inner))
    return time_axis.cast(scales, layer.compute_dtype)


@registry.register
class FiringRateScale(ConfigOfAttributes, keras.layers.Layer):
    """The scale of sums over spikes: 1 / √(n f) for the mean f of all spikes of a head,
    of which n are summed.

    The sum of n products with spikes that occur with probability f has a variance in
    proportion to n f. f is a moving average, which is not trained: in training it moves
    first, and is then used, in inference it is used as it is. It begins with the rate
    of the first batch in which the head spikes; until then f counts as 1. In multi-step
    mode it moves once a batch, with all steps, in single-step mode at each step.

    Args:
        momentum: Float in [0, 1), the part of f that each batch leaves. Defaults to
            `0.999`.
        **kwargs: `name`, `dtype`, `trainable` of a Keras layer; with `trainable=False`
            f stays as it is.

    Input shape: `(batch, heads, ..., n)`. Output shape: `(batch, heads, ..., 1)`, with
    1 for all axes after the heads.

    Source: Shi et al., "SpikingResformer: Bridging ResNet and Vision Transformer in
    Spiking Neural Networks", CVPR 2024.
    """

    layer_kind = LayerKind(
        affine=True, normalization=BatchStatistics(_normalize, _normalize_rate)
    )

    axis = 1
    epsilon = 0.0
    in_config = ("momentum",)

    def __init__(self, momentum=0.999, **kwargs):
        super().__init__(**kwargs)
        self.momentum = checks.real("momentum", momentum, at_least=0, below=1)

    def build(self, input_shape):
        self.firing_rate = self.add_weight(
            shape=(input_shape[self.axis],),
            initializer="zeros",
            trainable=False,
            autocast=False,
            name="firing_rate",
        )

    def call(self, inputs, training=None):
        if training and self.trainable:
            return _normalize(self, inputs)[0]
        return _scales(self, inputs, self.variances(inputs))

    def move(self, rates, times, counts):
        """Moves the average `times` times, where there is anything that counts."""
        before, momentum = self.firing_rate.value, self.momentum**times
        rates = time_axis.cast(rates, before.dtype)
        moved = momentum * before + (1.0 - momentum) * rates
        after = ops.where(before > 0.0, moved, rates)
        self.firing_rate.assign(ops.where(counts, after, before))

    def variances(self, spikes):
        """n f of each head, `(heads,)`."""
        rate = time_axis.widen(ops.convert_to_tensor(self.firing_rate))
        return spikes.shape[-1] * ops.where(rate > 0.0, rate, 1.0)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:2], *(1 for _ in input_shape[2:]))
