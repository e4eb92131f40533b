"""Shared parts of the spiking transformers: their arguments, and the blocks that they
have in common."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
from keras import layers

from keras_ratesnn._core import checks
from keras_ratesnn.layers.pooling import PaddedMaxPooling2D
from keras_ratesnn.models._arguments import checked_classes, image_input
from keras_ratesnn.models._blocks import (
    channel_axis,
    conv_bn_neuron,
    dense,
    neurons,
    pointwise,
    sides,
)
from keras_ratesnn.models._initializers import PYTORCH_DEFAULT
from keras_ratesnn.models._neuron_argument import checked_neuron
from keras_ratesnn.models.attention import (
    spikformer_attention_neuron,
    spikformer_neuron,
)

SMALLEST_FOR_LARGE_EDITIONS = 128
"""Images of this height and width or more have the edition "imagenet", or "dvs" if they
have two channels."""

IMAGES = {"imagenet": (224, 3), "cifar": (32, 3), "dvs": (128, 2)}
"""The default image of each edition: height and width, and number of channels."""


class Edition(NamedTuple):
    """The authors' choices for a data set.

    Args:
        patch: Integer, the height and width in pixels that become one token.
        first_blocks: Tuple of integers, the number of blocks of each stage before the
            last, which has all others.
        narrowest: Integer, the divisor of `dims` that gives the channels of the
            narrowest layer.
        heads: Function of `dims` that returns the default number of heads.
        mlp_ratio: Integer, how many times as many channels the hidden layer of an MLP
            has. Defaults to `4`.
    """

    patch: int
    first_blocks: tuple[int, ...]
    narrowest: int
    heads: Callable[[int], int]
    mlp_ratio: int = 4


@dataclasses.dataclass(frozen=True)
class Design:
    """The checked arguments of a network.

    Args:
        inputs: A `keras.Input`.
        edition: String, the name of the edition.
        classes: Integer.
        dims: Integer, the number of channels of the last stage.
        depths: Tuple of integers, the number of blocks of each stage.
        heads: Integer.
        mlp_ratio: Integer.
        neuron: Function that returns a new neuron layer.
        attention_neuron: Likewise, for the products of attention.
    """

    inputs: Any
    edition: str
    classes: int
    dims: int
    depths: tuple[int, ...]
    heads: int
    mlp_ratio: int
    neuron: Callable
    attention_neuron: Callable

    def attention(self, kind, x, name, **options):
        """Attention by a function of `models.attention`, with the heads and the neurons
        of the design."""
        neurons = {"neuron": self.neuron, "attention_neuron": self.attention_neuron}
        return kind(x, self.heads, **neurons, name=f"{name}_attention", **options)


IN_STAGES = {
    "imagenet": Edition(
        patch=16, first_blocks=(1, 2), narrowest=8, heads=lambda dims: dims // 64
    ),
    "cifar": Edition(patch=4, first_blocks=(1, 1), narrowest=8, heads=lambda dims: 8),
    "dvs": Edition(
        patch=16, first_blocks=(1,), narrowest=16, heads=lambda dims: 16, mlp_ratio=1
    ),
}
"""The editions of the transformers whose stages each halve the image."""


def design(
    editions,
    input_shape,
    classes,
    dims,
    blocks,
    heads,
    mlp_ratio,
    edition,
    neuron,
    attention_neuron,
    all_attend=True,
    **_,
):
    """Checks the arguments of a network.

    Args: what the user passed, see `keras_ratesnn.models.Spikformer`, and
        editions: Dict of the names of editions to `Edition`.
        all_attend: Boolean, whether all stages have attention, and not just the last.
            Defaults to `True`.
        **_: Nothing: only the types of options have what `builder` takes itself.

    Returns:
        `Design`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If a value is out of bounds, or sizes do not divide each other.
    """
    inputs, edition = image_of_edition(
        input_shape, edition, {name: chosen.patch for name, chosen in editions.items()}
    )
    chosen = editions[edition]
    dims = checks.positive_integer(
        "dims", dims, advice="It is the number of channels of the last stage."
    )
    if dims % chosen.narrowest:
        raise ValueError(
            f"`dims` must be a multiple of {chosen.narrowest}, because the first "
            f"layers of this network have dims/{chosen.narrowest} channels. Received: "
            f"dims={dims}."
        )
    blocks = checks.positive_integer(
        "blocks", blocks, advice="It is the number of transformer blocks."
    )
    last = blocks - sum(chosen.first_blocks)
    if last < 1:
        raise ValueError(
            f"`blocks` must be {sum(chosen.first_blocks) + 1} or more: in the edition "
            f"{edition!r} the first stages of this network have "
            f"{' and '.join(map(str, chosen.first_blocks))} blocks, and the last stage "
            f"has all others. Received: blocks={blocks}."
        )
    return Design(
        inputs=inputs,
        edition=edition,
        classes=checked_classes(classes),
        dims=dims,
        depths=(*chosen.first_blocks, last),
        heads=checked_heads(
            heads,
            chosen.heads(dims),
            [dims // (2 ** len(chosen.first_blocks) if all_attend else 1)],
            dims,
        ),
        mlp_ratio=chosen.mlp_ratio
        if mlp_ratio is None
        else checks.positive_integer("mlp_ratio", mlp_ratio),
        neuron=checked_neuron(neuron, spikformer_neuron),
        attention_neuron=checked_neuron(
            attention_neuron, spikformer_attention_neuron, name="attention_neuron"
        ),
    )


def image_of_edition(input_shape, edition, patches):
    """The input of a transformer and the name of its edition.

    Args:
        input_shape: Argument of the user, see `image_input`.
        edition: Argument of the user, or `None`: it depends on the images.
        patches: Dict of the names of editions to the height and width in pixels that
            become one token.

    Raises:
        ValueError: If the edition is unknown, or the height or width is open or not a
            multiple of the patches.
    """
    if edition is not None:
        checks.one_of("edition", edition, patches)
    image = image_input(input_shape, IMAGES[edition or "cifar"], smallest=1)
    size = sides(image)
    if None in size:
        raise ValueError(
            "`input_shape` must have a known height and width, which determine the "
            f"tokens. Received: input_shape={input_shape!r}."
        )
    if edition is None:
        edition = "imagenet"
        if min(size) < SMALLEST_FOR_LARGE_EDITIONS and "cifar" in patches:
            edition = "cifar"
        elif image.shape[channel_axis()] == 2 and "dvs" in patches:
            edition = "dvs"
    patch = patches[edition]
    if any(side % patch for side in size):
        raise ValueError(
            "`input_shape` must have a height and width that are multiples of "
            f"{patch}: in the edition {edition!r} of this network {patch} x {patch} "
            f"pixels become one token. Received: input_shape={input_shape!r}."
        )
    return image, edition


def checked_heads(heads, default, channels, dims):
    """The number of heads, which must divide the channels of all stages with attention.

    Args:
        heads: Argument of the user, or `None` for the default.
        default: Integer, the default, which may be 0 in a narrow network.
        channels: The numbers of channels of these stages, without their multiples.
        dims: Argument of the user, for the message.
    """
    received = f"heads={heads}"
    if heads is None:
        heads, received = default, f"heads=None, which stands for {default}"
    else:
        advice = "It is the number of attention heads."
        heads = checks.positive_integer("heads", heads, advice=advice)
    if heads < 1 or any(number % heads for number in channels):
        raise ValueError(
            "`heads` must divide the channels of every stage with attention: "
            f"{' and '.join(map(str, channels))}. Received: {received}, dims={dims!r}. "
            "Choose another number of heads or of channels."
        )
    return heads


def convolution_bn(x, filters, name, size=3, strides=1, neuron=None):
    """A convolution without bias, batch normalisation, and neurons unless `neuron` is
    `None`."""
    return conv_bn_neuron(
        x,
        filters,
        size,
        strides,
        neuron,
        use_bias=False,
        initialization=PYTORCH_DEFAULT,
        name=name,
    )


def depthwise_convolution(x, size, use_bias, name, padding="same"):
    """A depthwise convolution."""
    return layers.DepthwiseConv2D(
        size,
        padding=padding,
        use_bias=use_bias,
        depthwise_initializer=PYTORCH_DEFAULT.kernel(),
        bias_initializer=PYTORCH_DEFAULT.bias(size * size),
        name=name,
    )(x)


def pooled(x, name):
    """Max pooling by 2."""
    return PaddedMaxPooling2D(3, strides=2, name=f"{name}_pool")(x)


class Embedding(NamedTuple):
    """Patches by convolutions with batch normalisation, with a shortcut around the last
    ones.

    Args:
        divisors: Tuple, by what each convolution divides the channels of the stage.
        halving: Tuple of the numbers of the convolutions that halve the image.
        before_shortcut: Integer, the number of those before the shortcut.
        strided: Boolean, whether they halve it by strides, not by max pooling after
            them. Defaults to `False`.
        adds_spikes: Boolean, whether neurons follow the last convolution and the
            shortcut, too. Defaults to `True`.
    """

    divisors: tuple[int, ...]
    halving: tuple[int, ...]
    before_shortcut: int
    strided: bool = False
    adds_spikes: bool = True

    def __call__(self, x, channels, design, name):
        shortcut = x
        for number, divisor in enumerate(self.divisors, 1):
            unit, halves = f"{name}_{number}", number in self.halving
            strides = 2 if halves and self.strided else 1
            x = convolution_bn(x, channels // divisor, unit, strides=strides)
            x = pooled(x, unit) if halves and not self.strided else x
            if self.adds_spikes or number < len(self.divisors):
                x = neurons(x, design.neuron, f"{unit}_neuron")
            shortcut = x if number == self.before_shortcut else shortcut
        shortcut = convolution_bn(
            shortcut,
            channels,
            f"{name}_shortcut",
            size=1,
            strides=2 ** sum(number > self.before_shortcut for number in self.halving),
            neuron=design.neuron if self.adds_spikes else None,
        )
        return layers.Add(name=f"{name}_add")([x, shortcut])


def tokens(x, name):
    """An image as tokens `(batch, tokens, channels)`."""
    channels = x.shape[channel_axis()]
    if channel_axis() == -1:
        return layers.Reshape((-1, channels), name=name)(x)
    return layers.Permute((2, 1), name=name)(
        layers.Reshape((channels, -1), name=f"{name}_flat")(x)
    )


def spike_block(x, attended, design, name, output_neuron=None):
    """A block of Spikformer and QKFormer, which adds spikes to spikes: attention and an
    MLP.

    Args:
        x: Tensor, tokens or images.
        attended: Tensor, the currents of attention on `x`.
        design: `Design`.
        name: String, the beginning of the names of the layers.
        output_neuron: Function that returns the neurons of these currents. Defaults to
            `None`, that of the design.
    """
    y = neurons(
        attended, output_neuron or design.neuron, f"{name}_attention_output_neuron"
    )
    x = layers.Add(name=f"{name}_attention_add")([x, y])
    channels = x.shape[channel_axis(x)]
    y = pointwise(x, channels * design.mlp_ratio, True, f"{name}_mlp1")
    y = pointwise(
        neurons(y, design.neuron, f"{name}_mlp1_neuron"), channels, True, f"{name}_mlp2"
    )
    return layers.Add(name=f"{name}_mlp_add")(
        [x, neurons(y, design.neuron, f"{name}_mlp2_neuron")]
    )


def in_stages(design, first_patches, patches, blocks):
    """The tokens of the last stage. Each stage but the first halves the image and
    doubles the channels.

    Args:
        design: `Design`.
        first_patches: Function `(x, channels, design, name)`, the patch embedding of
            the first stage.
        patches: That of the other stages.
        blocks: Functions `(x, design, name)`, the block of each stage.
    """
    x, last = design.inputs, len(design.depths)
    for stage, (depth, block) in enumerate(zip(design.depths, blocks, strict=True), 1):
        embed = first_patches if stage == 1 else patches
        x = embed(x, design.dims // 2 ** (last - stage), design, f"patches{stage}")
        x = tokens(x, "tokens") if stage == last else x
        for number in range(1, depth + 1):
            x = block(x, design, f"stage{stage}_block{number}")
    return x


def classified(x, design, with_neurons=False):
    """The network that ends in a dense layer on the means over the tokens, or on
    neurons of these."""
    x = layers.GlobalAveragePooling1D(data_format="channels_last", name="pool")(x)
    x = neurons(x, design.neuron, "neuron") if with_neurons else x
    return keras.Model(
        design.inputs,
        dense(x, design.classes, PYTORCH_DEFAULT, "classifier"),
        name="network",
    )
