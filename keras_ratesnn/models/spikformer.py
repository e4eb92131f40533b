"""Spikformer: the first transformer with spiking self-attention."""

from typing import Unpack

import keras
from keras import layers

from keras_ratesnn.models import _transformers
from keras_ratesnn.models._blocks import neurons
from keras_ratesnn.models._options import ImageShape, TransformerOptions, builder
from keras_ratesnn.models._transformers import Edition, convolution_bn, pooled
from keras_ratesnn.models.attention import spiking_self_attention

EDITIONS = {
    # The authors' network of 384 channels has 12 heads on ImageNet, too.
    "imagenet": Edition(
        patch=16,
        first_blocks=(),
        narrowest=8,
        heads=lambda dims: 12 if dims == 384 else dims // 64,
    ),
    "cifar": Edition(
        patch=4, first_blocks=(), narrowest=8, heads=lambda dims: dims // 32
    ),
    "dvs": Edition(patch=16, first_blocks=(), narrowest=8, heads=lambda dims: 16),
}
POOLINGS = {"imagenet": (1, 2, 3, 4), "cifar": (3, 4), "dvs": (1, 2, 3, 4)}
"""The convolutions of the patch embedding after which images are halved."""

SCALES = {"imagenet": 0.125, "cifar": 0.125, "dvs": 0.25}
"""The factor of the product of attention."""


@builder
def Spikformer(
    input_shape: ImageShape = None,
    *,
    classes: int = 10,
    timesteps: int = 4,
    **options: Unpack[TransformerOptions],
) -> keras.Model:
    """Spikformer: convolutions that make patches of the image to tokens, and blocks of
    spiking self-attention and MLPs.

    Blocks add spikes to spikes. Spikformer-8-512 has `blocks=8, dims=512`.

    Example:

    >>> model = Spikformer(
    ...     input_shape=(16, 16, 3), classes=10, timesteps=2, dims=32, blocks=1
    ... )
    >>> model.predict(np.ones((1, 16, 16, 3)), verbose=0).shape
    (1, 10)

    Args: as in `ResNet18`, but
        input_shape: Tuple of three integers, the shape of one image in Keras' image
            data format, whose height and width are multiples of those of a token.
            Defaults to images of the edition: 32 x 32 pixels of 3 channels for
            `"cifar"` and `None`, 224 x 224 pixels of 3 for `"imagenet"`, 128 x 128
            pixels of 2 for `"dvs"`.
        neuron: Defaults to `None`, which stands for `LIF(decay=0.5, decay_input=True,
            reset="hard")`, the paper's neurons.
        attention_neuron: As `neuron`, for the products of attention. Defaults to
            `None`, the paper's neurons with threshold 0.5.
        dims: Integer, the number of channels of the tokens of the last stage. Defaults
            to `384`.
        blocks: Integer, the number of blocks of all stages. Defaults to `4`.
        heads: Integer >= 1, the number of attention heads, which divides the channels
            of every stage with attention. Defaults to `None`, that of the paper.
        mlp_ratio: Integer >= 1, how many times as many channels the hidden layer of an
            MLP has. Defaults to `None`, that of the paper.
        edition: The authors' choices for a data set: how images become tokens, and
            details of the blocks. `"imagenet"`: 16 x 16 pixels are a token. `"cifar"`:
            4 x 4 pixels. `"dvs"`, for event frames: 16 x 16 pixels. Defaults to `None`:
            `"cifar"` for images of fewer than 128 x 128 pixels, and for larger images
            `"dvs"` if they have two channels, else `"imagenet"`.

    Raises:
        ValueError: As in `ResNet18`, and if `heads` do not divide the channels, or
            patches the image.

    Source: Zhou et al., "Spikformer: When Spiking Neural Network Meets Transformer",
    ICLR 2023.
    """
    design = _transformers.design(EDITIONS, input_shape, classes, **options)
    x = _transformers.tokens(
        patch_splitting(design.inputs, design, "patches"), "tokens"
    )
    for number in range(1, design.depths[-1] + 1):
        x = block(x, design, f"block{number}")
    return _transformers.classified(x, design)


def patch_splitting(x, design, name):
    """Spiking patch splitting (SPS): four convolutions that double the channels, and
    one that adds spikes for the position."""
    for number, divisor in enumerate((8, 4, 2, 1), 1):
        x = convolution_bn(x, design.dims // divisor, f"{name}{number}")
        x = neurons(x, design.neuron, f"{name}{number}_neuron")
        x = pooled(x, f"{name}{number}") if number in POOLINGS[design.edition] else x
    position = convolution_bn(x, design.dims, f"{name}_position", neuron=design.neuron)
    return layers.Add(name=f"{name}_add")([x, position])


def block(x, design, name):
    """Spiking self-attention and an MLP. The authors' programs have biases of queries,
    keys and values for CIFAR only."""
    scale, use_bias = SCALES[design.edition], design.edition == "cifar"
    attended = design.attention(
        spiking_self_attention, x, name, scale=scale, use_bias=use_bias
    )
    return _transformers.spike_block(x, attended, design, name)
