"""VGGs with spiking neurons as activations, and average pooling."""

import functools
from typing import Any, Unpack

import keras
from keras import layers

from keras_ratesnn._core import checks
from keras_ratesnn.layers import LIF
from keras_ratesnn.models._arguments import checked_classes, image_input, scaled
from keras_ratesnn.models._blocks import (
    conv_bn_neuron,
    conv_ws_neuron,
    dense,
    online_renormalization,
    stabilized_neurons,
)
from keras_ratesnn.models._initializers import NORMAL_HALF
from keras_ratesnn.models._neuron_argument import checked_neuron
from keras_ratesnn.models._options import ImageShape, VGGOptions, builder

_unit = functools.partial(conv_bn_neuron, use_bias=True, initialization=NORMAL_HALF)
UNITS: dict[str, Any] = {
    "batch": _unit,
    "weight": conv_ws_neuron,
    "online": functools.partial(_unit, normalization=online_renormalization),
}
"""The function that builds a convolution with its neurons, for each normalisation."""


@builder
def VGG11(
    input_shape: ImageShape = None,
    *,
    classes: int = 10,
    timesteps: int = 4,
    **options: Unpack[VGGOptions],
) -> keras.Model:
    """VGG-11 as in the paper: eight convolutions with 64 to 512 channels in five
    blocks, and one dense layer.

    Between blocks there is average pooling by 2, and after the last one global average
    pooling. There are no hidden dense layers.

    Example:

    >>> model = VGG11(input_shape=(16, 16, 3), classes=10, timesteps=2, width=0.125)
    >>> model.predict(np.ones((1, 16, 16, 3)), verbose=0).shape
    (1, 10)

    Args: as in `ResNet18`, but
        normalization: How currents are kept near the threshold. `"batch"`: batch
            normalisation after each convolution, as in the paper. `"weight"`:
            standardised kernels, and spikes multiplied by 2.74 after each neuron layer.
            Its authors (Xiao et al., NeurIPS 2022) use neurons that leak less,
            `LIF(decay=0.5)`; with others the last layers may start silent. `"online"`:
            `keras_ratesnn.layers.OnlineRenormalization`, and by default
            `LIF(threshold_stabilizer=True)`, for `gradient="sltt"` with
            `step_mode="single"` (Zhu et al., ICLR 2024). Defaults to `"batch"`.

    Source: Yu et al., "Advancing Training Efficiency of Deep Spiking Neural Networks
    through Rate-based Backpropagation", NeurIPS 2024; Simonyan and Zisserman, "Very
    Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015.
    """
    blocks = ((64,), (128, 256), (512, 512), (512,), (512, 512))
    return _network(blocks, input_shape, classes, **options)


@builder
def VGG13(
    input_shape: ImageShape = None,
    *,
    classes: int = 10,
    timesteps: int = 4,
    **options: Unpack[VGGOptions],
) -> keras.Model:
    """VGG-13 as in the authors' program: `VGG11` with ten convolutions.

    Example:

    >>> model = VGG13(input_shape=(16, 16, 3), classes=10, timesteps=2, width=0.125)
    >>> model.network.output_shape
    (None, 10)

    Args: as in `VGG11`.

    Source: Yu et al., NeurIPS 2024, and the authors' program, which pools before the
    last convolution instead of before the last two.
    """
    blocks = ((64, 64), (128, 128), (256, 256), (512, 512, 512), (512,))
    return _network(blocks, input_shape, classes, **options)


@builder
def VGG16(
    input_shape: ImageShape = None,
    *,
    classes: int = 10,
    timesteps: int = 4,
    **options: Unpack[VGGOptions],
) -> keras.Model:
    """VGG-16: the thirteen convolutions of VGG-16, global average pooling and one dense
    layer, as in `VGG11`.

    The paper does not use this network.

    Example:

    >>> model = VGG16(input_shape=(16, 16, 3), classes=10, timesteps=2, width=0.125)
    >>> model.network.output_shape
    (None, 10)

    Args: as in `VGG11`.

    Source: Simonyan and Zisserman, ICLR 2015, with neurons, pooling and classifier as
    in Yu et al., NeurIPS 2024.
    """
    blocks = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
    return _network(blocks, input_shape, classes, **options)


@builder
def VGGSNN(
    input_shape: ImageShape = None,
    *,
    classes: int = 10,
    timesteps: int = 10,
    **options: Unpack[VGGOptions],
) -> keras.Model:
    """VGGSNN, for event frames: eight convolutions with 64 to 512 channels, pooling
    after every second, and one dense layer.

    Example:

    >>> model = VGGSNN(input_shape=(16, 16, 2), classes=10, timesteps=2, width=0.125)
    >>> model.predict(np.ones((1, 2, 16, 16, 2)), verbose=0).shape
    (1, 10)

    Args: as in `VGG11`, but
        input_shape: Tuple of three integers, the shape of one image in Keras' image
            data format. With `include_top=True` height and width must be given, since
            the classifier has weights for each pixel. Defaults to 48 x 48 pixels of 2
            channels.
        timesteps: Defaults to `10`, as in the paper for CIFAR10-DVS.

    Source: Yu et al., NeurIPS 2024; Deng et al., "Temporal Efficient Training of
    Spiking Neural Network via Gradient Re-weighting", ICLR 2022.
    """
    blocks = ((64, 128), (256, 256), (512, 512), (512, 512))
    return _network(
        blocks, input_shape, classes, default=(48, 2), flattened=True, **options
    )


def block(x, channels, neuron, name, normalization="batch"):
    """3x3 convolutions, each with normalisation and neurons."""
    for number, filters in enumerate(channels, 1):
        x = UNITS[normalization](x, filters, 3, 1, neuron, name=name, number=number)
    return x


def _network(
    blocks,
    input_shape,
    classes,
    neuron,
    width,
    include_top,
    normalization,
    default=(32, 3),
    flattened=False,
    **_,
):
    """A VGG of one time step.

    Args: what the user passed, see `VGG11`, and
        blocks: The number of filters of each convolution of each block, before they are
            multiplied by `width`.
        default: The default image: height and width, and number of channels.
        flattened: Boolean, whether the last block is pooled by 2 and flattened instead
            of averaged over the image.
        **_: Nothing: only the types of options have what `builder` takes itself.
    """
    checks.one_of("normalization", normalization, UNITS)
    neuron = checked_neuron(
        neuron, stabilized_neurons if normalization == "online" else LIF
    )
    blocks = [scaled(channels, width) for channels in blocks]
    classes = checked_classes(classes)
    include_top = checks.boolean("include_top", include_top)
    poolings = len(blocks) if flattened else len(blocks) - 1
    x = inputs = image_input(input_shape, default, smallest=2**poolings)
    if flattened and include_top and None in inputs.shape[1:]:
        raise ValueError(
            "`input_shape` must have a known height and width, which determine the "
            "number of weights of the classifier. Received: "
            f"input_shape={input_shape!r}. With include_top=False they can be None."
        )
    for number, channels in enumerate(blocks, 1):
        x = block(x, channels, neuron, f"block{number}", normalization)
        if number <= poolings:
            x = layers.AveragePooling2D(2, name=f"block{number}_pool")(x)
    if include_top:
        x = (
            layers.Flatten(name="flatten")(x)
            if flattened
            else layers.GlobalAveragePooling2D(name="pool")(x)
        )
        x = dense(x, classes, NORMAL_HALF, "classifier")
    return keras.Model(inputs, x, name="network")
