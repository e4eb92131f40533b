"""E-SpikeFormer: a transformer of integer spikes, for a single time step."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, Unpack

import keras
from keras import layers

from keras_ratesnn._core import checks
from keras_ratesnn.layers import ILIF
from keras_ratesnn.models import _transformers
from keras_ratesnn.models._arguments import checked_classes, positive_integers
from keras_ratesnn.models._blocks import (
    batch_normalization,
    channel_axis,
    conv_bn_neuron,
    dense,
    neurons,
    pointwise,
)
from keras_ratesnn.models._initializers import PYTORCH_DEFAULT
from keras_ratesnn.models._neuron_argument import checked_neuron
from keras_ratesnn.models._options import ImageShape, NeuronFunction, Options, builder
from keras_ratesnn.models.attention import spiking_self_attention

HALVINGS = 4
"""How many stages halve the image."""


LAST_BLOCKS = 2
"""The number of blocks with the most channels in the base networks."""


@builder
def ESpikeFormer(
    input_shape: ImageShape = None,
    *,
    classes: int = 1000,
    timesteps: int = 1,
    neuron: NeuronFunction = None,
    dims: Sequence[int] = (64, 128, 256, 360),
    blocks: int = 8,
    heads: int | None = None,
    mlp_ratio: int = 4,
    **options: Unpack[Options],
) -> keras.Model:
    """E-SpikeFormer, the base networks of Spike-driven Transformer V3: convolutions,
    then attention, with integer spikes.

    There is one time step, in which a neuron emits up to four spikes. Blocks add
    currents to currents. The authors' networks have `dims` of (24, 48, 96, 128), (32,
    64, 128, 192), (48, 96, 192, 240) and (64, 128, 256, 360): 2.7, 5.1, 10.0 and 19.0
    million parameters. `ESpikeFormerLarge` is the larger one.

    Example:

    >>> model = ESpikeFormer(
    ...     input_shape=(32, 32, 3), classes=10, dims=(4, 8, 16, 24), blocks=3
    ... )
    >>> model.predict(np.ones((1, 32, 32, 3)), verbose=0).shape
    (1, 10)

    Args: as in `Spikformer`, but
        input_shape: Tuple of three integers, the shape of one image in Keras' image
            data format, whose height and width are multiples of 16. Defaults to 224 x
            224 pixels of 3 channels.
        classes: Defaults to `1000`.
        timesteps: Integer >= 1, see `keras_ratesnn.SpikingModel`. Must be 1 unless
            `neuron` is given: the paper's neurons keep nothing from step to step.
            Defaults to `1`.
        neuron: Defaults to `None`, which stands for `ILIF(levels=4, decay=0.0,
            normalize=True)`, and `normalize=False` before the classifier. Before it,
            spikes of other neurons that are divided by `levels` are multiplied by it.
        dims: Four integers, the channels of the stages; before the first there are
            layers with half of its channels. Defaults to `(64, 128, 256, 360)`.
        blocks: Integer, the number of blocks with attention, of which the last two have
            `dims[3]` channels. Defaults to `8`.
        heads: Defaults to `None`, which stands for 8.
        mlp_ratio: Defaults to `4`.

    Source: Yao et al., "Scaling Spike-driven Transformer with Efficient Spike Firing
    Approximation Training", 2025.
    """
    inputs, dims, depths, settings = checked(
        input_shape,
        timesteps,
        dims,
        (64, 128, 256, 360),
        blocks,
        heads,
        mlp_ratio,
        neuron,
        last_blocks=LAST_BLOCKS,
    )
    x = staged(inputs, dims, depths, convolution_block, attention_block, settings)
    return classified(
        inputs,
        classes,
        counts(x, count_neuron if neuron is None else settings.neuron, "neuron"),
    )


class BlockSettings(NamedTuple):
    """The checked arguments of the blocks.

    Args:
        neuron: Function that returns a new neuron layer.
        heads: Integer.
        mlp_ratio: Integer. Defaults to `4`.
    """

    neuron: Callable
    heads: int
    mlp_ratio: int = 4


def integer_neuron() -> ILIF:
    """New neurons of one step: the current, rounded to 0, 1, 2, 3 or 4, over 4."""
    return ILIF(levels=4, decay=0.0, normalize=True)


def count_neuron() -> ILIF:
    """`integer_neuron`, not divided by 4."""
    return ILIF(levels=4, decay=0.0)


def checked(
    input_shape,
    timesteps,
    dims,
    example,
    blocks,
    heads,
    mlp_ratio,
    neuron,
    default=integer_neuron,
    last_blocks=0,
):
    """The input of a network, its `dims`, as many as in the example, the numbers of
    blocks with attention, and its `BlockSettings`."""
    inputs, _ = _transformers.image_of_edition(
        input_shape, "imagenet", {"imagenet": 2**HALVINGS}
    )
    dims = _checked_dims(dims, example)
    blocks = checks.positive_integer(
        "blocks", blocks, advice="It is the number of transformer blocks."
    )
    _check_timesteps(timesteps, neuron)
    neuron = checked_neuron(neuron, default)
    heads = _transformers.checked_heads(heads, 8, dims[2:], dims)
    settings = BlockSettings(
        neuron, heads, checks.positive_integer("mlp_ratio", mlp_ratio)
    )
    if blocks <= last_blocks:
        raise ValueError(
            f"`blocks` must be {last_blocks + 1} or more, because the last "
            f"{last_blocks} have other channels. Received: blocks={blocks}."
        )
    depths = (blocks - last_blocks, last_blocks) if last_blocks else (blocks,)
    return inputs, dims, depths, settings


def staged(inputs, dims, depths, convolutions, attention, settings):
    """The means of the currents of the last stage. `convolutions` and `attention` are
    blocks, functions `(x, settings, name)`."""
    widths, depths = (dims[0] // 2, *dims), (1, 1, 2, *depths)
    x = inputs
    for stage, (channels, depth) in enumerate(zip(widths, depths, strict=True), 1):
        size, of_spikes = (7, None) if stage == 1 else (3, settings)
        strides = 2 if stage <= HALVINGS else 1
        x = downsampling(x, channels, size, strides, of_spikes, f"down{stage}")
        block = convolutions if stage <= 3 else attention
        for number in range(1, depth + 1):
            x = block(x, settings, f"stage{stage}_block{number}")
    return layers.GlobalAveragePooling2D(name="pool")(x)


def classified(inputs, classes, x, distilled=None):
    """The network of one time step: a dense layer on `x`, or the mean of it and of a
    second one on `distilled`."""
    classes = checked_classes(classes)
    logits = dense(x, classes, PYTORCH_DEFAULT, "classifier")
    if distilled is not None:
        second = dense(distilled, classes, PYTORCH_DEFAULT, "distilled_classifier")
        logits = layers.Average(name="logits")([logits, second])
    return keras.Model(inputs, logits, name="network")


def counts(x, neuron, name):
    """The numbers of spikes of the last neurons, also of those that divide theirs by
    `levels`."""
    last = neuron()
    x, size = neurons(x, lambda: last, name), last.cell.spike_size
    return x if size == 1.0 else layers.Rescaling(1 / size, name="counts")(x)


def downsampling(x, filters, size, strides, settings, name):
    """A convolution with bias and batch normalisation, of spikes unless `settings` is
    `None`."""
    x = x if settings is None else neurons(x, settings.neuron, f"{name}_neuron")
    return conv_bn_neuron(
        x,
        filters,
        size,
        strides,
        None,
        use_bias=True,
        initialization=PYTORCH_DEFAULT,
        name=name,
    )


def separable_convolution(x, size, settings, name, normalized=True):
    """Two dense layers with twice the channels between them, and a depthwise
    convolution there, added to the input; normalisation and neurons follow it if it is
    `normalized`."""
    channels = x.shape[channel_axis(x)]
    y = pointwise(
        neurons(x, settings.neuron, f"{name}_neuron1"),
        2 * channels,
        False,
        f"{name}_expand",
    )
    y = neurons(y, settings.neuron, f"{name}_neuron2")
    y = _transformers.depthwise_convolution(y, size, False, f"{name}_depthwise")
    if normalized:
        y = batch_normalization(y, f"{name}_depthwise_bn")
        y = neurons(y, settings.neuron, f"{name}_neuron3")
    return layers.Add(name=f"{name}_add")(
        [x, pointwise(y, channels, False, f"{name}_project")]
    )


def convolution_block(x, settings, name, normalized=True):
    """A separable convolution of 7 x 7, and two convolutions with a wider layer between
    them."""
    x = separable_convolution(x, 7, settings, f"{name}_separable", normalized)
    return two_convolutions(x, settings, name, use_bias=False)


def two_convolutions(x, settings, name, use_bias):
    """Two convolutions with a wider layer between them, added to the input."""
    channels, y = x.shape[channel_axis(x)], x
    for number, filters in enumerate((settings.mlp_ratio * channels, channels), 1):
        y = neurons(y, settings.neuron, f"{name}_neuron{number}")
        y = conv_bn_neuron(
            y, filters, 3, 1, None, use_bias, PYTORCH_DEFAULT, f"{name}_{number}"
        )
    return layers.Add(name=f"{name}_add")([x, y])


def attention_block(x, settings, name):
    """A separable convolution of 3 x 3, self-attention with four times as many channels
    of values, and an MLP."""
    scale = 2 / math.sqrt(x.shape[channel_axis(x)] / settings.heads)
    return attention_and_mlp(
        separable_convolution(x, 3, settings, f"{name}_separable"),
        settings,
        name,
        scale=scale,
        value_ratio=4,
    )


def attention_and_mlp(
    x, settings, name, scaled=lambda currents, name: currents, **options
):
    """Self-attention, with `options` of `spiking_self_attention`, and an MLP, each
    added to its input after `scaled`."""
    options = {
        "neuron": settings.neuron,
        "attention_neuron": settings.neuron,
        "name": f"{name}_attention",
        **options,
    }
    spikes = neurons(x, settings.neuron, f"{name}_attention_input_neuron")
    y = spiking_self_attention(spikes, settings.heads, use_output_bias=False, **options)
    x = layers.Add(name=f"{name}_attention_add")(
        [x, scaled(y, f"{name}_attention_factor")]
    )
    return layers.Add(name=f"{name}_mlp_add")(
        [x, scaled(mlp(x, settings, name), f"{name}_mlp_factor")]
    )


def mlp(x, settings, name):
    """The currents of two dense layers with a wider layer between them."""
    channels = x.shape[channel_axis(x)]
    y = pointwise(
        neurons(x, settings.neuron, f"{name}_mlp1_neuron"),
        settings.mlp_ratio * channels,
        True,
        f"{name}_mlp1",
    )
    return pointwise(
        neurons(y, settings.neuron, f"{name}_mlp2_neuron"),
        channels,
        True,
        f"{name}_mlp2",
    )


def _checked_dims(dims, example):
    """As many integers as in the example, of which the first is even."""
    advice = f"They are the channels of the stages, for example dims={example}."
    dims = positive_integers("dims", dims, len(example), advice)
    if dims[0] % 2:
        raise ValueError(
            "`dims[0]` must be even: the first layers have half as many channels. "
            f"Received: dims={dims!r}."
        )
    return dims


def _check_timesteps(timesteps, neuron):
    if checks.positive_integer("timesteps", timesteps) > 1 and neuron is None:
        raise ValueError(
            "`timesteps` must be 1: the default neurons of this network keep nothing "
            f"from step to step. Received: timesteps={timesteps}. For more steps pass "
            "neurons with a membrane, for example neuron=lambda: "
            "keras_ratesnn.layers.ILIF(levels=4, normalize=True)."
        )
