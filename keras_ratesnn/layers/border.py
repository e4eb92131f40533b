"""Batch normalisation that pads images with what it makes of 0."""

import keras
from keras import ops

from keras_ratesnn._core import normalization, registry
from keras_ratesnn.layer_kinds import BatchStatistics, LayerKind


def _normalize(layer, inputs, times=1, mask=None):
    outputs, mean, variance = normalization.normalize_only(layer, inputs, times, mask)
    return _with_border(layer, outputs), mean, variance


def _normalize_rate(layer, rate, mean, variance, weights=None):
    return _with_border(
        layer, normalization.normalize_rate(layer, rate, mean, variance, weights)
    )


def _with_border(layer, images):
    """Normalised images with the border of a layer."""
    return _bordered(layer, images, _padding_value(layer, images))


def _padding_value(layer, images):
    """The output of a layer for 0 in inference, as a constant that broadcasts to
    images."""
    shape = [
        size if axis == layer.axis % len(images.shape) else 1
        for axis, size in enumerate(images.shape)
    ]
    zeros = ops.zeros(shape, layer.compute_dtype)
    value = keras.layers.BatchNormalization.call(layer, zeros, training=False)
    return ops.stop_gradient(value)


def _bordered(layer, images, padding_value):
    channels = layer.axis % len(images.shape)
    paddings, shape = [], []
    for axis, size in enumerate(ops.shape(images)):
        is_space = axis not in (0, channels)
        paddings.append((1, 1) if is_space else (0, 0))
        shape.append(size if is_space else 1)
    inside = ops.zeros(shape, images.dtype)
    border = ops.pad(inside, paddings, constant_values=1.0)
    return ops.pad(images, paddings) + border * padding_value


@registry.register
class BorderedBatchNormalization(keras.layers.BatchNormalization):
    """A `keras.layers.BatchNormalization` of images, around which it puts a border of
    one pixel: what it makes of 0.

    A convolution after it, and a 1 x 1 convolution without bias before it, are then one
    convolution that pads with 0. The border counts in no statistics. In training, too,
    it is what the running statistics, as they were before the batch, make of 0, and has
    no derivative. In a `SpikingModel` the running statistics change once in a batch, by
    the statistics of all steps.

    Example:

    >>> layer = BorderedBatchNormalization(beta_initializer="ones")
    >>> print(ops.convert_to_numpy(layer(np.zeros((1, 1, 1, 1))))[0, :, :, 0])
    [[1. 1. 1.]
     [1. 1. 1.]
     [1. 1. 1.]]

    Args: as in `keras.layers.BatchNormalization`.

    Source: Ding et al., "Diverse Branch Block", CVPR 2021.
    """

    layer_kind = LayerKind(
        affine=True,
        normalization=BatchStatistics(
            _normalize, _normalize_rate, after_steps=normalization.move_averages
        ),
    )

    def call(self, inputs, training=None, mask=None):
        # Of the running statistics before the call moves them.
        padding_value = _padding_value(self, inputs)
        outputs = super().call(inputs, training=training, mask=mask)
        return _bordered(self, outputs, padding_value)

    def compute_output_shape(self, input_shape):
        channels = self.axis % len(input_shape)
        return tuple(
            size if axis in (0, channels) or size is None else size + 2
            for axis, size in enumerate(super().compute_output_shape(input_shape))
        )
