"""Max-Former: a transformer in stages that keeps high frequencies by max pooling and
depthwise convolutions."""

import functools
from typing import Unpack

import keras
from keras import layers

from keras_ratesnn.models import _transformers
from keras_ratesnn.models._blocks import (
    batch_normalization,
    channel_axis,
    neurons,
    pointwise,
)
from keras_ratesnn.models._options import ImageShape, TransformerOptions, builder
from keras_ratesnn.models._transformers import (
    IN_STAGES,
    Embedding,
    convolution_bn,
    in_stages,
    pooled,
)
from keras_ratesnn.models.attention import spiking_self_attention

KERNELS = {"imagenet": (7, 5), "cifar": (None, 3), "dvs": (3,)}
"""The size of the depthwise convolutions of each stage before the last; `None` for a
stage of MLPs alone."""


@builder
def MaxFormer(
    input_shape: ImageShape = None,
    *,
    classes: int = 10,
    timesteps: int = 4,
    **options: Unpack[TransformerOptions],
) -> keras.Model:
    """Max-Former: stages of a quarter, a half and all of the channels, with depthwise
    convolutions and, last, self-attention.

    Each stage but the first halves the image by max pooling and doubles the channels.
    Blocks add currents to currents, so all weights see spikes. The first stages have 1
    and 2 blocks on ImageNet, with depthwise convolutions of 7 x 7 and 5 x 5, and 1 and
    1 on CIFAR, with none and 3 x 3; on event frames there are two stages, of which the
    first has 1 block with 3 x 3. The last stage has all other blocks.

    Example:

    >>> model = MaxFormer(
    ...     input_shape=(16, 16, 3), classes=10, timesteps=2, dims=32, blocks=3
    ... )
    >>> model.predict(np.ones((1, 16, 16, 3)), verbose=0).shape
    (1, 10)

    Args: as in `Spikformer`, but
        edition: The authors' choices for a data set: how images become tokens, and
            details of the blocks. In `"imagenet"` and `"dvs"` 16 x 16 pixels are a
            token of the last stage, in `"cifar"` 4 x 4. Defaults to `None`, which
            depends on the image as in `Spikformer`.

    Source: Fang et al., "Spiking Transformers Need High-Frequency Information", NeurIPS
    2025, arXiv 2505.18608.
    """
    design = _transformers.design(
        IN_STAGES, input_shape, classes, all_attend=False, **options
    )
    blocks = [
        functools.partial(convolution_block, size=size)
        for size in KERNELS[design.edition]
    ]
    x = in_stages(
        design, first_patches[design.edition], patches, [*blocks, attention_block]
    )
    return _transformers.classified(x, design, with_neurons=True)


def convolution_block(x, design, name, size):
    """A depthwise convolution of spikes, added to its input, unless `size` is `None`,
    and an MLP."""
    if size is not None:
        y = neurons(x, design.neuron, f"{name}_depthwise_neuron")
        y = _transformers.depthwise_convolution(y, size, True, f"{name}_depthwise")
        y = batch_normalization(y, f"{name}_depthwise_bn")
        x = layers.Add(name=f"{name}_depthwise_add")([x, y])
    return mlp(x, design, name)


def attention_block(x, design, name, attention=spiking_self_attention):
    """Attention of spikes, added to its input, and an MLP."""
    y = design.attention(
        attention, neurons(x, design.neuron, f"{name}_attention_input_neuron"), name
    )
    return mlp(layers.Add(name=f"{name}_attention_add")([x, y]), design, name)


def mlp(x, design, name):
    """An MLP of spikes, added to its input; a hidden layer that is no wider has a
    shortcut of its own."""
    channels = x.shape[channel_axis(x)]
    y = pointwise(
        neurons(x, design.neuron, f"{name}_mlp1_neuron"),
        channels * design.mlp_ratio,
        True,
        f"{name}_mlp1",
    )
    if design.mlp_ratio == 1:
        x = y = layers.Add(name=f"{name}_mlp1_add")([x, y])
    y = pointwise(
        neurons(y, design.neuron, f"{name}_mlp2_neuron"), channels, True, f"{name}_mlp2"
    )
    return layers.Add(name=f"{name}_mlp_add")([x, y])


def patches(x, channels, design, name):
    """Two convolutions of spikes and a shortcut, both with max pooling by 2."""
    x = neurons(x, design.neuron, f"{name}_neuron")
    y = pooled(convolution_bn(x, channels, f"{name}_1"), f"{name}_1")
    y = convolution_bn(
        neurons(y, design.neuron, f"{name}_1_neuron"), channels, f"{name}_2"
    )
    shortcut = pooled(
        convolution_bn(x, channels, f"{name}_shortcut", size=1), f"{name}_shortcut"
    )
    return layers.Add(name=f"{name}_add")([y, shortcut])


def first_patches_cifar(x, channels, design, name):
    """Two convolutions; the second and its shortcut have neurons of their own."""
    x = convolution_bn(x, channels // 2, f"{name}_1")
    y = convolution_bn(
        neurons(x, design.neuron, f"{name}_1_neuron"), channels, f"{name}_2"
    )
    shortcut = convolution_bn(
        neurons(x, design.neuron, f"{name}_shortcut_neuron"),
        channels,
        f"{name}_shortcut",
        size=1,
    )
    return layers.Add(name=f"{name}_add")([y, shortcut])


first_patches = {
    "imagenet": Embedding((2, 1, 1), (1, 2), 1, strided=True, adds_spikes=False),
    "cifar": first_patches_cifar,
    "dvs": Embedding((8, 4, 2, 1), (2, 3, 4), 2, adds_spikes=False),
}
"""The patch embedding of the first stage of each edition."""
