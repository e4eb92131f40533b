"""Networks of torchvision with neurons, which SpikingJelly has."""

import functools
from typing import Unpack

import keras
from keras import layers

from keras_ratesnn.models import _residual, resnet
from keras_ratesnn.models._arguments import image_input, scaled
from keras_ratesnn.models._blocks import (
    batch_normalization,
    convolution,
    dense,
    neurons,
    sides,
)
from keras_ratesnn.models._initializers import PYTORCH_DEFAULT
from keras_ratesnn.models._neuron_argument import checked_neuron
from keras_ratesnn.models._options import (
    ConvolutionalOptions,
    ImageShape,
    ResidualOptions,
    builder,
)

_CHANNELS = (64, 128, 256, 512, 512)

_SIDE = 7
"""The height and width of what the hidden layers of VGGs read."""


@builder
def BottleneckResNet(
    input_shape: ImageShape = None,
    *,
    classes: int = 1000,
    timesteps: int = 4,
    depths: tuple[int, ...] = (3, 4, 6, 3),
    **options: Unpack[ResidualOptions],
) -> keras.Model:
    """ResNet-50, -101 and -152: `ResNet18` with blocks of three convolutions, `depths`
    of them in each stage."""
    return _residual.network(_BOTTLENECK, depths, input_shape, classes, **options)


_BOTTLENECK = _residual.Family(
    functools.partial(resnet.basic_block, kernels=_residual.BOTTLENECK),
    resnet.unit,
    default=(224, 3),
)


@builder
def DenseVGG(
    input_shape: ImageShape = None,
    *,
    classes: int = 1000,
    timesteps: int = 4,
    depths: tuple[int, ...] = (1, 1, 2, 2, 2),
    normalized: bool = True,
    **options: Unpack[ConvolutionalOptions],
) -> keras.Model:
    """VGG-11, -13, -16 and -19: `VGG11` with max pooling, two hidden dense layers, and
    `depths` convolutions in each block."""
    neuron, width = checked_neuron(options["neuron"]), options["width"]
    x = inputs = image_input(input_shape, (224, 3), smallest=2 ** len(depths))
    for block, (depth, filters) in enumerate(
        zip(depths, scaled(_CHANNELS, width), strict=True), 1
    ):
        for number in range(1, depth + 1):
            x = convolution(
                x, filters, 3, 1, True, PYTORCH_DEFAULT, f"block{block}_conv{number}"
            )
            x = batch_normalization(x, f"block{block}_bn{number}") if normalized else x
            x = neurons(x, neuron, f"block{block}_neuron{number}")
        x = layers.MaxPooling2D(2, name=f"block{block}_pool")(x)
    if options["include_top"]:
        x = (
            x
            if sides(x) == (_SIDE, _SIDE)
            else layers.AdaptiveAveragePooling2D(_SIDE, name="pool")(x)
        )
        x = layers.Flatten(name="flatten")(x)
        for name in ("hidden1", "hidden2"):
            x = neurons(
                dense(x, scaled((4096,), width)[0], PYTORCH_DEFAULT, name),
                neuron,
                f"{name}_neuron",
            )
            x = layers.Dropout(0.5, name=f"{name}_dropout")(x)
        x = dense(x, classes, PYTORCH_DEFAULT, "classifier")
    return keras.Model(inputs, x, name="network")
