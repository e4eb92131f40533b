"""Meta-SpikeFormer, which is Spike-driven Transformer V2."""

import functools
from collections.abc import Sequence
from typing import Unpack

import keras

from keras_ratesnn._core import checks
from keras_ratesnn.layers.border import BorderedBatchNormalization
from keras_ratesnn.models._blocks import (
    batch_normalization,
    channel_axis,
    neurons,
    pointwise,
)
from keras_ratesnn.models._neuron_argument import checked_neuron
from keras_ratesnn.models._options import ImageShape, NeuronFunction, Options, builder
from keras_ratesnn.models._transformers import depthwise_convolution
from keras_ratesnn.models.attention import (
    spikformer_attention_neuron,
    spikformer_neuron,
)
from keras_ratesnn.models.espikeformer import (
    LAST_BLOCKS,
    attention_and_mlp,
    checked,
    classified,
    convolution_block,
    staged,
)


@builder
def MetaSpikeFormer(
    input_shape: ImageShape = None,
    *,
    classes: int = 1000,
    timesteps: int = 4,
    neuron: NeuronFunction = None,
    attention_neuron: NeuronFunction = None,
    dims: Sequence[int] = (128, 256, 512, 640),
    blocks: int = 8,
    heads: int | None = None,
    mlp_ratio: int = 4,
    distilled: bool = False,
    **options: Unpack[Options],
) -> keras.Model:
    """Meta-SpikeFormer, Spike-driven Transformer V2: convolutions, then self-attention
    whose parts are convolutions, too.

    Blocks add currents to currents. The authors' networks have `dims` of (64, 128, 256,
    360), (96, 192, 384, 480) and (128, 256, 512, 640): 15.1, 31.3 and 55.4 million
    parameters. The layout is that of `ESpikeFormer`.

    Example:

    >>> model = MetaSpikeFormer(
    ...     input_shape=(32, 32, 3),
    ...     classes=10,
    ...     timesteps=2,
    ...     dims=(4, 8, 16, 24),
    ...     blocks=3,
    ... )
    >>> model.predict(np.ones((1, 32, 32, 3)), verbose=0).shape
    (1, 10)

    Args: as in `Spikformer`, but
        input_shape: Tuple of three integers, the shape of one image in Keras' image
            data format, whose height and width are multiples of 16. Defaults to 224 x
            224 pixels of 3 channels.
        classes: Defaults to `1000`.
        timesteps: Defaults to `4`. The authors train with 1, and then on with 4.
        dims: Four integers, the channels of the stages; before the first there are
            layers with half of its channels. Defaults to `(128, 256, 512, 640)`.
        blocks: Integer, the number of blocks with attention, of which the last two have
            `dims[3]` channels. Defaults to `8`.
        heads: Defaults to `None`, which stands for 8.
        mlp_ratio: Defaults to `4`.
        distilled: Boolean, whether there is a second classifier and the output is the
            mean of both, as the authors' networks are after distillation. Defaults to
            `False`.

    Source: Yao et al., "Spike-driven Transformer V2: Meta Spiking Neural Network
    Architecture Inspiring the Design of Next-generation Neuromorphic Chips", ICLR 2024.
    """
    distilled = checks.boolean("distilled", distilled)
    inputs, dims, depths, settings = checked(
        *(input_shape, timesteps, dims, (128, 256, 512, 640), blocks, heads, mlp_ratio),
        neuron=spikformer_neuron if neuron is None else neuron,
        last_blocks=LAST_BLOCKS,
    )
    product_neuron = checked_neuron(
        attention_neuron, spikformer_attention_neuron, name="attention_neuron"
    )
    attention = functools.partial(
        attention_and_mlp, attention_neuron=product_neuron, projection=convolutions
    )
    x = neurons(
        staged(
            inputs,
            dims,
            depths,
            functools.partial(convolution_block, normalized=False),
            attention,
            settings,
        ),
        settings.neuron,
        "neuron",
    )
    return classified(inputs, classes, x, x if distilled else None)


def convolutions(x, channels, use_bias, name):
    """A dense layer, a depthwise convolution of 3 x 3 and a dense layer. The border is
    as if the convolution came first."""
    y = pointwise(
        x, x.shape[channel_axis(x)], use_bias, f"{name}_hidden", bordered_normalization
    )
    y = depthwise_convolution(y, 3, use_bias, f"{name}_depthwise", padding="valid")
    return batch_normalization(pointwise(y, channels, use_bias, name), f"{name}_bn2")


def bordered_normalization(x, name):
    """`BorderedBatchNormalization` with the same momentum and epsilon as
    `batch_normalization`."""
    return BorderedBatchNormalization(
        axis=channel_axis(x), momentum=0.9, epsilon=1e-5, name=name
    )(x)
