"""A dense layer on channels with batch normalisation, for tokens and for images."""

import keras


def pointwise(x, units, use_bias, name):
    """A dense layer on the channels of tokens, or a 1x1 convolution of images, and batch normalisation: `NAME` and `NAME_bn`.

    Batch normalisation has PyTorch's defaults; PyTorch's momentum of 0.1 is 0.9 in Keras.

    Args:
        x: Tensor, tokens `(batch, tokens, channels)`, or images in Keras' image data format.
        units: Integer, the number of channels of the output.
        use_bias: Boolean, whether the dense layer has a bias.
        name: String, the name of the dense layer.
    """
    if len(x.shape) == 4:
        x = keras.layers.Conv2D(units, 1, use_bias=use_bias, name=name)(x)
    else:
        x = keras.layers.Dense(units, use_bias=use_bias, name=name)(x)
    return keras.layers.BatchNormalization(axis=channel_axis(x), momentum=0.9, epsilon=1e-5, name=f"{name}_bn")(x)


def channel_axis(x):
    """The channel axis of tokens, or of images in Keras' image data format."""
    return 1 if len(x.shape) == 4 and keras.config.image_data_format() == "channels_first" else -1
