"""The large networks of E-SpikeFormer, which their authors pretrain as masked
autoencoders."""

import functools
from collections.abc import Sequence
from typing import Unpack

import keras
from keras import layers

from keras_ratesnn._core import checks
from keras_ratesnn.layers import ILIF
from keras_ratesnn.models._blocks import (
    batch_normalization,
    channel_axis,
    neurons,
    pointwise,
)
from keras_ratesnn.models._options import ImageShape, NeuronFunction, Options, builder
from keras_ratesnn.models.espikeformer import (
    attention_and_mlp,
    checked,
    classified,
    counts,
    staged,
    two_convolutions,
)

LAYER_SCALE = 1e-6
"""The initial factor of what a block adds."""


@builder
def ESpikeFormerLarge(
    input_shape: ImageShape = None,
    *,
    classes: int = 1000,
    timesteps: int = 1,
    neuron: NeuronFunction = None,
    dims: Sequence[int] = (196, 384, 768),
    blocks: int = 12,
    heads: int | None = None,
    mlp_ratio: int = 4,
    shortcut_projection: bool = False,
    distilled: bool = False,
    **options: Unpack[Options],
) -> keras.Model:
    """The large networks of E-SpikeFormer: all attention at one resolution, with
    factors that scale what a block adds.

    The authors have two: the default, with 171.0 million parameters, and `dims=(128,
    256, 512), shortcut_projection=True`, with 82.5 million. As in their program, the
    classifier reads the means of currents, not of spikes, and halves, which sums of
    integer spikes in attention often are, are rounded up.

    Example:

    >>> model = ESpikeFormerLarge(
    ...     input_shape=(32, 32, 3), classes=10, dims=(4, 8, 16), blocks=1
    ... )
    >>> model.predict(np.ones((1, 32, 32, 3)), verbose=0).shape
    (1, 10)

    Args: as in `ESpikeFormer`, but
        neuron: Defaults to `None`, which stands for `ILIF(levels=4, decay=0.0,
            normalize=True, round_half_up=True)`.
        dims: Three integers, the channels of the stages; before the first there are
            layers with half of its channels. Defaults to `(196, 384, 768)`.
        blocks: Integer, the number of blocks with attention. Defaults to `12`.
        shortcut_projection: Boolean, whether each block begins with two dense layers,
            which are added to its input. Defaults to `False`.
        distilled: Boolean, whether there is a second classifier, which reads neurons on
            the means of currents, with spikes that are not divided by `levels`, and the
            output is the mean of both, as the authors' networks are after distillation.
            Defaults to `False`.

    Source: Yao et al., "Scaling Spike-driven Transformer with Efficient Spike Firing
    Approximation Training", 2025.
    """
    projected = checks.boolean("shortcut_projection", shortcut_projection)
    distilled = checks.boolean("distilled", distilled)
    inputs, dims, depths, settings = checked(
        input_shape,
        timesteps,
        dims,
        (196, 384, 768),
        blocks,
        heads,
        mlp_ratio,
        neuron,
        default=half_up_neuron,
    )
    convolutions = functools.partial(two_convolutions, use_bias=True)
    attention = functools.partial(attention_block, shortcut_projection=projected)
    x = staged(inputs, dims, depths, convolutions, attention, settings)
    last = half_up_count_neuron if neuron is None else settings.neuron
    return classified(
        inputs, classes, x, counts(x, last, "distilled_neuron") if distilled else None
    )


def half_up_neuron() -> ILIF:
    """`integer_neuron` with halves rounded up."""
    return ILIF(levels=4, decay=0.0, normalize=True, round_half_up=True)


def half_up_count_neuron() -> ILIF:
    """`half_up_neuron`, not divided by 4."""
    return ILIF(levels=4, decay=0.0, round_half_up=True)


def factorized(x, channels, use_bias, name):
    """A dense layer of attention that is the product of two, with half as many channels
    more between them."""
    y = pointwise(x, int(1.5 * x.shape[channel_axis(x)]), use_bias, f"{name}_hidden")
    return batch_normalization(pointwise(y, channels, use_bias, name), f"{name}_bn2")


def attention_block(x, settings, name, shortcut_projection):
    """Self-attention and an MLP, each scaled and added to the input."""
    channels = x.shape[channel_axis(x)]
    if shortcut_projection:
        y = pointwise(
            neurons(x, settings.neuron, f"{name}_shortcut_neuron"),
            channels,
            False,
            f"{name}_shortcut1",
        )
        x = layers.Add(name=f"{name}_shortcut_add")(
            [x, pointwise(y, channels, False, f"{name}_shortcut2")]
        )
    return attention_and_mlp(x, settings, name, scaled, projection=factorized)


def scaled(x, name):
    """A learned factor for each channel."""
    factors = keras.initializers.Constant(LAYER_SCALE)
    return layers.DepthwiseConv2D(
        1, use_bias=False, depthwise_initializer=factors, name=name
    )(x)
