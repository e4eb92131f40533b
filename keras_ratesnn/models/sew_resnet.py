"""SEW ResNets: residual networks whose blocks add spikes to spikes."""

import functools
from typing import Unpack

import keras

from keras_ratesnn.models import _residual
from keras_ratesnn.models._blocks import conv_bn_neuron
from keras_ratesnn.models._initializers import KAIMING_FAN_OUT
from keras_ratesnn.models._options import ImageShape, ResidualOptions, builder

# As in the authors' program, every convolution has a bias and its own initialisation;
# the last layer uses PyTorch's default.
unit = functools.partial(conv_bn_neuron, use_bias=True, initialization=KAIMING_FAN_OUT)
"""A convolution, batch normalisation and neurons."""


@builder
def SEWResNet18(
    input_shape: ImageShape = None,
    *,
    classes: int = 1000,
    timesteps: int = 4,
    **options: Unpack[ResidualOptions],
) -> keras.Model:
    """SEW ResNet-18: the stages of `ResNet18`, with blocks that add their spikes to
    those of their input.

    Example:

    >>> model = SEWResNet18(input_shape=(8, 8, 3), classes=10, timesteps=2, width=0.125)
    >>> model.network.output_shape
    (None, 10)

    Args: as in `ResNet18`, but
        input_shape: Defaults to 224 x 224 pixels of 3 channels.
        classes: Defaults to `1000`.

    Source: Yu et al., NeurIPS 2024; Fang et al., "Deep Residual Learning in Spiking
    Neural Networks", NeurIPS 2021.
    """
    return _residual.network(BASIC, (2, 2, 2, 2), input_shape, classes, **options)


@builder
def SEWResNet34(
    input_shape: ImageShape = None,
    *,
    classes: int = 1000,
    timesteps: int = 4,
    **options: Unpack[ResidualOptions],
) -> keras.Model:
    """SEW ResNet-34: the stages of `SEWResNet18`, with 3, 4, 6 and 3 blocks.

    Example:

    >>> model = SEWResNet34(input_shape=(8, 8, 3), classes=10, timesteps=2, width=0.125)
    >>> model.network.output_shape
    (None, 10)

    Args: as in `SEWResNet18`.

    Source: Yu et al., NeurIPS 2024; Fang et al., "Deep Residual Learning in Spiking
    Neural Networks", NeurIPS 2021.
    """
    return _residual.network(BASIC, (3, 4, 6, 3), input_shape, classes, **options)


@builder
def SEWResNet50(
    input_shape: ImageShape = None,
    *,
    classes: int = 1000,
    timesteps: int = 4,
    **options: Unpack[ResidualOptions],
) -> keras.Model:
    """SEW ResNet-50: stages of 3, 4, 6 and 3 blocks with 256, 512, 1024 and 2048 output
    channels.

    Example:

    >>> model = SEWResNet50(input_shape=(8, 8, 3), classes=10, timesteps=2, width=0.125)
    >>> model.network.output_shape
    (None, 10)

    Args: as in `SEWResNet18`.

    Source: Fang et al., NeurIPS 2021, with neurons and initialisation as in
    `SEWResNet34`.
    """
    return _residual.network(BOTTLENECK, (3, 4, 6, 3), input_shape, classes, **options)


@builder
def SEWResNet101(
    input_shape: ImageShape = None,
    *,
    classes: int = 1000,
    timesteps: int = 4,
    **options: Unpack[ResidualOptions],
) -> keras.Model:
    """SEW ResNet-101: the stages of `SEWResNet50`, with 3, 4, 23 and 3 blocks.

    Example:

    >>> model = SEWResNet101(
    ...     input_shape=(8, 8, 3), classes=10, timesteps=2, width=0.125
    ... )
    >>> model.network.output_shape
    (None, 10)

    Args: as in `SEWResNet18`.

    Source: Fang et al., NeurIPS 2021, with neurons and initialisation as in
    `SEWResNet34`.
    """
    return _residual.network(BOTTLENECK, (3, 4, 23, 3), input_shape, classes, **options)


@builder
def SEWResNet152(
    input_shape: ImageShape = None,
    *,
    classes: int = 1000,
    timesteps: int = 4,
    **options: Unpack[ResidualOptions],
) -> keras.Model:
    """SEW ResNet-152: the stages of `SEWResNet50`, with 3, 8, 36 and 3 blocks.

    Example:

    >>> model = SEWResNet152(
    ...     input_shape=(8, 8, 3), classes=10, timesteps=2, width=0.125
    ... )
    >>> model.network.output_shape
    (None, 10)

    Args: as in `SEWResNet18`.

    Source: Fang et al., NeurIPS 2021, with neurons and initialisation as in
    `SEWResNet34`.
    """
    return _residual.network(BOTTLENECK, (3, 8, 36, 3), input_shape, classes, **options)


basic_block = functools.partial(_residual.block, unit=unit, adds_spikes=True)
"""Two 3x3 convolutions with neurons; their spikes are added to those of the
shortcut."""

BASIC = _residual.Family(basic_block, unit, default=(224, 3))
BOTTLENECK = BASIC._replace(
    block=functools.partial(basic_block, kernels=_residual.BOTTLENECK)
)
