"""MS ResNets: residual networks whose shortcuts join membranes, with neurons before the
convolutions."""

import functools
from typing import Unpack

import keras
import numpy as np
from keras import layers

from keras_ratesnn.layers import LIF
from keras_ratesnn.models import _residual
from keras_ratesnn.models._blocks import (
    batch_normalization,
    conv_bn_neuron,
    convolution,
    neurons,
)
from keras_ratesnn.models._initializers import PYTORCH_DEFAULT
from keras_ratesnn.models._options import ImageShape, ResidualOptions, builder
from keras_ratesnn.models.preact_resnet import basic_block

THRESHOLD = float(np.nextafter(np.float32(0.5), np.float32(1)))
"""The smallest float32 above 0.5: neurons spike above 0.5, and not at 0.5."""


@builder
def MSResNet18(
    input_shape: ImageShape = None,
    *,
    classes: int = 1000,
    timesteps: int = 6,
    **options: Unpack[ResidualOptions],
) -> keras.Model:
    """MS ResNet-18: the blocks of `PreActResNet18`, without biases, four stages that
    each halve the image, no pooling before.

    Blocks add currents to currents, which join in the membranes of the next neurons: a
    membrane shortcut. Batch normalisation scales them by γ, which starts at the
    threshold of 0.5, and at 0 at the end of a block, which adds nothing at first.

    Example:

    >>> model = MSResNet18(
    ...     input_shape=(16, 16, 3), classes=10, timesteps=2, width=0.125
    ... )
    >>> model.network.output_shape
    (None, 10)

    Args: as in `ResNet18`, but
        input_shape: Defaults to 224 x 224 pixels of 3 channels.
        classes: Defaults to `1000`.
        timesteps: Defaults to `6`.
        neuron: Defaults to `None`, which stands for `LIF(decay=0.25, threshold=θ,
            reset="hard", surrogate="rectangular")`, the paper's neurons. They spike
            above 0.5, and not at 0.5: θ is the next float32, and membranes are in
            float32 in half precision, too.
        stem: The first layers. `"cifar"`: a 3x3 convolution. `"imagenet"`: a 7x7
            convolution with stride 2. `"auto"`: `"imagenet"` for images of 96 x 96
            pixels or more, else `"cifar"`. Defaults to `"auto"`.

    Source: Hu et al., "Advancing Spiking Neural Networks Toward Deep Residual
    Learning", TNNLS 2024.
    """
    return _residual.network(FAMILY, (2, 2, 2, 2), input_shape, classes, **options)


@builder
def MSResNet34(
    input_shape: ImageShape = None,
    *,
    classes: int = 1000,
    timesteps: int = 6,
    **options: Unpack[ResidualOptions],
) -> keras.Model:
    """MS ResNet-34: the stages of `MSResNet18`, with 3, 4, 6 and 3 blocks.

    Example:

    >>> model = MSResNet34(
    ...     input_shape=(16, 16, 3), classes=10, timesteps=2, width=0.125
    ... )
    >>> model.network.output_shape
    (None, 10)

    Args: as in `MSResNet18`.

    Source: Hu et al., TNNLS 2024.
    """
    return _residual.network(FAMILY, (3, 4, 6, 3), input_shape, classes, **options)


@builder
def MSResNet104(
    input_shape: ImageShape = None,
    *,
    classes: int = 1000,
    timesteps: int = 6,
    **options: Unpack[ResidualOptions],
) -> keras.Model:
    """MS ResNet-104: stages of 3, 8, 32 and 8 blocks, three 3x3 convolutions as a stem,
    and shortcuts that begin with pooling.

    In training a fifth of the inputs of the last layer is dropped.

    Example:

    >>> model = MSResNet104(
    ...     input_shape=(16, 16, 3), classes=10, timesteps=2, width=0.125
    ... )
    >>> model.network.output_shape
    (None, 10)

    Args: as in `MSResNet18`, but
        stem: The first layers: three 3x3 convolutions with biases. `"cifar"`: without
            stride. `"imagenet"`: the first has stride 2. `"auto"`: `"imagenet"` for
            images of 96 x 96 pixels or more, else `"cifar"`. Defaults to `"auto"`.

    Source: Hu et al., TNNLS 2024.
    """
    return _residual.network(DEEP, (3, 8, 32, 8), input_shape, classes, **options)


def ms_neuron() -> LIF:
    """New neurons of the paper."""
    return LIF(decay=0.25, threshold=THRESHOLD, reset="hard", surrogate="rectangular")


unit = functools.partial(
    conv_bn_neuron,
    use_bias=False,
    initialization=PYTORCH_DEFAULT,
    normalization=functools.partial(
        batch_normalization, gamma=keras.initializers.Constant(0.5)
    ),
)
"""A convolution and batch normalisation whose scale starts at the threshold."""

last_unit = functools.partial(
    unit, normalization=functools.partial(batch_normalization, gamma="zeros")
)
"""The last convolution of a block, which adds nothing at first."""

block = functools.partial(
    basic_block, unit=unit, last_unit=last_unit, shortcut_unit=unit
)
"""Neurons before each of two 3x3 convolutions, the last of which is a `last_unit`."""


def pooled_unit(x, filters, size, strides, neuron, name):
    """Average pooling and a convolution instead of one with strides."""
    x = layers.AveragePooling2D(strides, padding="same", name=f"{name}_pool")(x)
    return unit(x, filters, size, 1, neuron, name=name)


def deep_stem_block(x, filters, stem, neuron, unit):
    """Three convolutions with biases, and normalisation."""
    for number, strides in enumerate((2 if stem == "imagenet" else 1, 1, 1), 1):
        x = convolution(
            x, filters, 3, strides, True, PYTORCH_DEFAULT, f"stem_conv{number}"
        )
    return batch_normalization(x, "stem_bn", gamma=keras.initializers.Constant(0.5))


FAMILY = _residual.Family(
    block,
    unit,
    default=(224, 3),
    default_neuron=ms_neuron,
    neurons_after_stem=False,
    after_blocks=functools.partial(neurons, name="last_neuron"),
    stem=functools.partial(_residual.stem_block, pools=False),
    stem_reduction=2,
    first_strides=2,
)
DEEP = FAMILY._replace(
    block=functools.partial(block, shortcut_unit=pooled_unit),
    stem=deep_stem_block,
    dropout=0.2,
)
