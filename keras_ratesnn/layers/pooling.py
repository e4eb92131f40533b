"""Max pooling with PyTorch's padding."""

import keras
from keras import ops

from keras_ratesnn._core import registry
from keras_ratesnn.layer_kinds import kind_of_class


@registry.register
class PaddedMaxPooling2D(keras.layers.MaxPooling2D):
    """Max pooling with padding of half the pool size on all sides, like PyTorch's
    `padding=pool_size // 2`.

    Keras' `padding="same"` pads images of even size only at the end, so its windows are
    shifted. The padding value is minus infinity, which is never the maximum, even for
    negative inputs.

    Example:

    >>> image = np.arange(16.0).reshape((1, 4, 4, 1))
    >>> print(ops.convert_to_numpy(PaddedMaxPooling2D(3, strides=2)(image))[0, :, :, 0])
    [[ 5.  7.]
     [13. 15.]]

    Args: as in `keras.layers.MaxPooling2D`, without `padding`.
    """

    layer_kind = kind_of_class(keras.layers.MaxPooling2D)

    def call(self, inputs):
        if self.data_format == "channels_last":
            paddings = [(0, 0), *self._padding, (0, 0)]
        else:
            paddings = [(0, 0), (0, 0), *self._padding]
        return super().call(ops.pad(inputs, paddings, constant_values=-float("inf")))

    def compute_output_shape(self, input_shape):
        padded = list(input_shape)
        first = 1 if self.data_format == "channels_last" else 2
        for axis, (before, after) in enumerate(self._padding, first):
            if padded[axis] is not None:
                padded[axis] += before + after
        return super().compute_output_shape(tuple(padded))

    @property
    def _padding(self):
        return [(size // 2, size // 2) for size in self.pool_size]
