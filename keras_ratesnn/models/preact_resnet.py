"""Pre-activation ResNets: residual networks with neurons before the convolutions."""

from typing import Unpack

import keras
from keras import layers

from keras_ratesnn.models import _residual
from keras_ratesnn.models._blocks import neurons
from keras_ratesnn.models._options import ImageShape, ResidualOptions, builder
from keras_ratesnn.models.sew_resnet import unit


@builder
def PreActResNet18(
    input_shape: ImageShape = None,
    *,
    classes: int = 1000,
    timesteps: int = 4,
    **options: Unpack[ResidualOptions],
) -> keras.Model:
    """PreAct ResNet-18: the stages of `ResNet18`, with neurons before the convolutions
    of a block and none after the sum.

    Example:

    >>> model = PreActResNet18(
    ...     input_shape=(8, 8, 3), classes=10, timesteps=2, width=0.125
    ... )
    >>> model.network.output_shape
    (None, 10)

    Args: as in `ResNet18`, but
        input_shape: Defaults to 224 x 224 pixels of 3 channels.
        classes: Defaults to `1000`.

    Source: Yu et al., NeurIPS 2024; He et al., "Identity Mappings in Deep Residual
    Networks", ECCV 2016.
    """
    return _residual.network(FAMILY, (2, 2, 2, 2), input_shape, classes, **options)


@builder
def PreActResNet34(
    input_shape: ImageShape = None,
    *,
    classes: int = 1000,
    timesteps: int = 4,
    **options: Unpack[ResidualOptions],
) -> keras.Model:
    """PreAct ResNet-34: the stages of `PreActResNet18`, with 3, 4, 6 and 3 blocks.

    Example:

    >>> model = PreActResNet34(
    ...     input_shape=(8, 8, 3), classes=10, timesteps=2, width=0.125
    ... )
    >>> model.network.output_shape
    (None, 10)

    Args: as in `PreActResNet18`.

    Source: Yu et al., NeurIPS 2024; He et al., "Identity Mappings in Deep Residual
    Networks", ECCV 2016.
    """
    return _residual.network(FAMILY, (3, 4, 6, 3), input_shape, classes, **options)


def basic_block(
    x, filters, strides, neuron, name, unit=unit, last_unit=unit, shortcut_unit=unit
):
    """Neurons before each of two 3x3 convolutions, added to the shortcut; the output of
    a block is not spikes."""
    y = unit(
        neurons(x, neuron, f"{name}_neuron1"),
        filters,
        3,
        strides,
        None,
        name=name,
        number=1,
    )
    y = last_unit(
        neurons(y, neuron, f"{name}_neuron2"), filters, 3, 1, None, name=name, number=2
    )
    return layers.Add(name=f"{name}_add")(
        [y, _residual.shortcut(x, filters, strides, None, shortcut_unit, name)]
    )


# As in the authors' program, there are no neurons after the stem or before the
# classifier.
FAMILY = _residual.Family(basic_block, unit, default=(224, 3), neurons_after_stem=False)
