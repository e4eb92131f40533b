"""SpikingResformer: the stages of a ResNet, with attention of spikes to currents of
patches."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple, Unpack

import keras
from keras import layers, ops

from keras_ratesnn._core import checks
from keras_ratesnn._core.annotations import Stem
from keras_ratesnn.layers import LIF
from keras_ratesnn.layers.firing_rate_scale import FiringRateScale
from keras_ratesnn.models import _residual
from keras_ratesnn.models._arguments import checked_classes, positive_integers
from keras_ratesnn.models._blocks import (
    batch_normalization,
    channel_axis,
    conv_bn_neuron,
    dense,
    neurons,
    sides,
)
from keras_ratesnn.models._initializers import NORMAL_SMALL
from keras_ratesnn.models._neuron_argument import checked_neuron
from keras_ratesnn.models._options import ImageShape, NeuronFunction, Options, builder
from keras_ratesnn.models.attention import joined_heads, tokens_of_heads

PATCHES = (4, 2, 1)
"""The height and width of the patches in each stage, whose images get smaller: all
stages have as many patches."""

CHANNELS_OF_HEAD = 64
"""The default number of channels of a head."""


@builder
def SpikingResformer(
    input_shape: ImageShape = None,
    *,
    classes: int = 1000,
    timesteps: int = 4,
    neuron: NeuronFunction = None,
    dims: Sequence[int] = (64, 192, 384),
    blocks: Sequence[int] = (1, 2, 3),
    heads: Sequence[int] | None = None,
    mlp_ratio: int = 4,
    group_size: int = 64,
    stem: Stem = "auto",
    **options: Unpack[Options],
) -> keras.Model:
    """SpikingResformer: the stem and stages of a ResNet, with dual spike
    self-attention, and MLPs with grouped convolutions.

    There are three stages, of which the second and the third halve the image. In dual
    spike self-attention (DSSA) the spikes of each pixel attend to patches, whose keys
    and values are currents:

        A = neurons(x Kᵀ / √(d f_x)),  y = neurons(A V / √(n f_A)),
        and a block adds BN(W y)

    for d channels of a head, n patches, and the moving averages f of the mean spikes of
    a head: weights that are not trained, but measured in training. Blocks add currents
    to currents. No layer has a bias.

    The authors' networks have `dims` of (64, 192, 384), (64, 256, 512), (64, 384, 768)
    and (128, 512, 1024): Ti, S, M and L with 11.1, 17.8, 35.5 and 60.4 million
    parameters.

    Example:

    >>> model = SpikingResformer(
    ...     (16, 16, 3),
    ...     classes=10,
    ...     timesteps=2,
    ...     dims=(8, 8, 16),
    ...     heads=(1, 1, 2),
    ...     group_size=8,
    ... )
    >>> model.predict(np.ones((1, 16, 16, 3)), verbose=0).shape
    (1, 10)

    Args: as in `Spikformer`, but
        input_shape: Tuple of three integers, the shape of one image in Keras' image
            data format, whose height and width are multiples of 4, or with the stem
            `"imagenet"` of 16. Defaults to 224 x 224 pixels of 3 channels.
        classes: Defaults to `1000`.
        neuron: Defaults to `None`, which stands for `LIF(decay=0.5, decay_input=True,
            reset="hard", surrogate="atan")`.
        dims: Three integers, the channels of the stages. Defaults to `(64, 192, 384)`.
        blocks: Three integers, the number of blocks of each stage. Defaults to `(1, 2,
            3)`.
        heads: Three integers, the number of heads of each stage. Defaults to `None`,
            one for each 64 channels.
        mlp_ratio: Defaults to `4`.
        group_size: Integer, the number of channels in each group of the MLP's
            convolution, which divides those of its hidden layers. Defaults to `64`.
        stem: The first layers, as in `ResNet18`. The authors have `"cifar"` for images
            of 32 x 32 pixels, and for event frames. Defaults to `"auto"`.

    Source: Shi et al., "SpikingResformer: Bridging ResNet and Vision Transformer in
    Spiking Neural Networks", CVPR 2024.
    """
    inputs, stem = _checked_images(input_shape, stem)
    dims = _checked_stages("dims", dims, "channels", (64, 192, 384))
    blocks = _checked_stages("blocks", blocks, "numbers of blocks", (1, 2, 3))
    heads = _checked_heads(heads, dims)
    mlp_ratio = checks.positive_integer("mlp_ratio", mlp_ratio)
    group_size = _checked_group_size(
        group_size, [mlp_ratio * channels for channels in dims]
    )
    settings = ResformerSettings(
        checked_neuron(neuron, resformer_neuron), mlp_ratio, group_size
    )
    x = _residual.stem_block(inputs, dims[0], stem, None, convolution_bn)
    for stage, (channels, depth, number, patch) in enumerate(
        zip(dims, blocks, heads, PATCHES, strict=True), 1
    ):
        if stage > 1:
            x = spiking_convolution(x, channels, 3, settings, f"down{stage}", strides=2)
        for name in (f"stage{stage}_block{block}" for block in range(1, depth + 1)):
            x = mlp(
                dual_spike_self_attention(x, number, patch, settings, name),
                settings,
                name,
            )
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    logits = dense(
        x, checked_classes(classes), NORMAL_SMALL, "classifier", use_bias=False
    )
    return keras.Model(inputs, logits, name="network")


class ResformerSettings(NamedTuple):
    """The checked arguments of the blocks.

    Args:
        neuron: Function that returns a new neuron layer.
        mlp_ratio: Integer.
        group_size: Integer.
    """

    neuron: Callable
    mlp_ratio: int
    group_size: int


def resformer_neuron() -> LIF:
    """New neurons of the paper."""
    return LIF(decay=0.5, decay_input=True, reset="hard", surrogate="atan")


convolution_bn = functools.partial(
    conv_bn_neuron, use_bias=False, initialization=NORMAL_SMALL
)


def spiking_convolution(x, filters, size, settings, name, strides=1, groups=1):
    """Neurons, a convolution and batch normalisation."""
    layer = functools.partial(layers.Conv2D, groups=groups)
    return convolution_bn(
        neurons(x, settings.neuron, f"{name}_neuron"),
        filters,
        size,
        strides,
        None,
        name=name,
        layer=layer,
    )


def dual_spike_self_attention(x, heads, patch, settings, name):
    """Dual spike self-attention, added to its input."""
    name, channels = f"{name}_attention", x.shape[channel_axis()]
    spikes = neurons(x, settings.neuron, f"{name}_input_neuron")
    y = layers.Conv2D(
        2 * channels,
        patch,
        strides=patch,
        use_bias=False,
        kernel_initializer=NORMAL_SMALL.kernel(),
        name=f"{name}_key_value_conv",
    )(spikes)
    y = batch_normalization(y, f"{name}_key_value_bn")
    keys, values = ops.split(tokens_of_heads(y, heads, f"{name}_key_value"), 2, axis=-1)
    keys = layers.Permute((1, 3, 2), name=f"{name}_key_order")(keys)
    queries = tokens_of_heads(spikes, heads, f"{name}_query")
    chosen = neurons(
        summed(queries, keys, f"{name}_query"), settings.neuron, f"{name}_neuron"
    )
    y = joined_heads(summed(chosen, values, name), channels, x, name)
    return layers.Add(name=f"{name}_add")(
        [x, spiking_convolution(y, channels, 1, settings, f"{name}_output")]
    )


def summed(spikes, currents, name):
    """The products of spikes and currents, summed, and scaled by the rate of the spikes
    of each head."""
    scale = FiringRateScale(name=f"{name}_rate_scale")(spikes)
    return layers.Multiply(name=f"{name}_scaled")([ops.matmul(spikes, currents), scale])


def mlp(x, settings, name):
    """Two dense layers with a wider layer between them, in which a convolution in
    groups has a shortcut; added to the input."""
    channels = x.shape[channel_axis()]
    hidden = settings.mlp_ratio * channels
    y = spiking_convolution(x, hidden, 1, settings, f"{name}_mlp1")
    grouped = spiking_convolution(
        y, hidden, 3, settings, f"{name}_mlp2", groups=hidden // settings.group_size
    )
    y = layers.Add(name=f"{name}_mlp2_add")([y, grouped])
    return layers.Add(name=f"{name}_mlp_add")(
        [x, spiking_convolution(y, channels, 1, settings, f"{name}_mlp3")]
    )


def _checked_images(input_shape, stem):
    """The input, of known size, and the stem."""
    inputs, stem = _residual.input_and_stem(input_shape, (224, 3), stem, PATCHES[0])
    multiple = PATCHES[0] * (4 if stem == "imagenet" else 1)
    if any(side is None or side % multiple for side in sides(inputs)):
        raise ValueError(
            "`input_shape` must have a known height and width that are multiples of "
            f"{multiple}: with stem={stem!r}, {multiple} x {multiple} pixels are a "
            f"patch to which neurons attend. Received: input_shape={input_shape!r}."
        )
    return inputs, stem


def _checked_stages(name, values, meaning, example):
    advice = f"They are the {meaning} of the stages, for example {name}={example}."
    return positive_integers(name, values, len(PATCHES), advice)


def _checked_heads(heads, dims):
    chosen = [channels // CHANNELS_OF_HEAD for channels in dims]
    if heads is not None:
        chosen = _checked_stages("heads", heads, "numbers of heads", (1, 3, 6))
    if any(
        number == 0 or channels % number
        for channels, number in zip(dims, chosen, strict=True)
    ):
        received = (
            f"heads={heads!r}"
            if heads is not None
            else f"heads=None, which stands for {tuple(chosen)}"
        )
        raise ValueError(
            "`heads` must divide the channels of each stage: "
            f"{' and '.join(map(str, dims))}. Received: {received}, dims={dims!r}. "
            "Choose other numbers of heads or of channels."
        )
    return chosen


def _checked_group_size(group_size, hidden):
    group_size = checks.positive_integer(
        "group_size", group_size, advice="It is the number of channels of a group."
    )
    if any(channels % group_size for channels in hidden):
        raise ValueError(
            "`group_size` must divide the channels of the hidden layers of all MLPs: "
            f"{' and '.join(map(str, hidden))}. Received: group_size={group_size}."
        )
    return group_size
