"""The large networks of E-SpikeFormer, which their authors pretrain as masked autoencoders."""

import os
from collections.abc import Callable, Sequence

import keras
from keras import layers

from keras_ratesnn._core import checks
from keras_ratesnn._core.annotations import Config, StepModeName
from keras_ratesnn.gradients import GradientMethod
from keras_ratesnn.layers import Neuron
from keras_ratesnn.models import _transformers
from keras_ratesnn.models._arguments import checked_classes
from keras_ratesnn.models._blocks import batch_normalization, channel_axis, dense, neurons, pointwise
from keras_ratesnn.models._initializers import PYTORCH_DEFAULT
from keras_ratesnn.models._weights import with_weights
from keras_ratesnn.models.attention import spiking_self_attention
from keras_ratesnn.models.espikeformer import (
    PATCH,
    checked_dims,
    checked_parts,
    checked_timesteps,
    downsampling,
    mlp,
    two_convolutions,
)
from keras_ratesnn.spiking_model import SpikingModel

LAYER_SCALE = 1e-6
"""The initial factor of what a block adds."""

CONVOLUTION_BLOCKS = (1, 1, 2)
"""The number of blocks of convolutions in the stages before those of attention."""


def ESpikeFormerLarge(
    input_shape: Sequence[int] | None = None,
    classes: int = 1000,
    timesteps: int = 1,
    gradient: str | GradientMethod | Config = "rate",
    step_mode: StepModeName = "multi",
    neuron: Callable[[], Neuron] | None = None,
    dims: Sequence[int] = (196, 384, 768),
    blocks: int = 12,
    heads: int | None = None,
    mlp_ratio: int = 4,
    shortcut_projection: bool = False,
    weights: str | os.PathLike[str] | None = None,
    name: str = "espikeformer_large",
) -> SpikingModel:
    """The large networks of E-SpikeFormer: all attention at one resolution, with factors that scale what a block adds.

    The authors have two: the default, with 171.0 million parameters, and `dims=(128, 256, 512), shortcut_projection=True`, with
    82.5 million. As in their program, the classifier reads the means of currents, not of spikes. Their second classifier, for
    distillation, is left out.

    Example:

    >>> model = ESpikeFormerLarge(input_shape=(32, 32, 3), classes=10, dims=(4, 8, 16), blocks=1)
    >>> model.predict(np.ones((1, 32, 32, 3)), verbose=0).shape
    (1, 10)

    Args: as in `ESpikeFormer`, but
        neuron: Defaults to `None`, which stands for `ILIF(levels=4, decay=0.0, normalize=True)`.
        dims: Three integers, the channels of the stages; before the first there are layers with half of its channels. Defaults
            to `(196, 384, 768)`.
        blocks: Integer, the number of blocks with attention. Defaults to `12`.
        shortcut_projection: Boolean, whether each block begins with two dense layers, which are added to its input. Defaults to
            `False`.

    Source: Yao et al., "Scaling Spike-driven Transformer with Efficient Spike Firing Approximation Training", 2025.
    """
    inputs, _ = _transformers.image_of_edition(input_shape, "imagenet", {"imagenet": PATCH})
    dims = checked_dims(dims, (196, 384, 768))
    blocks = checks.positive_integer("blocks", blocks, advice="It is the number of transformer blocks.")
    shortcut_projection = checks.boolean("shortcut_projection", shortcut_projection)
    timesteps = checked_timesteps(timesteps, neuron)
    parts = checked_parts(neuron, heads, dims, mlp_ratio)
    classes, x = checked_classes(classes), inputs
    for stage, (channels, depth) in enumerate(zip((dims[0] // 2, *dims[:2]), CONVOLUTION_BLOCKS, strict=True), 1):
        x = downsampling(x, channels, 7 if stage == 1 else 3, 2, parts if stage > 1 else None, f"down{stage}")
        for number in range(1, depth + 1):
            x = two_convolutions(x, parts, True, f"stage{stage}_block{number}")
    x = downsampling(x, dims[2], 3, 2, parts, "down4")
    for number in range(1, blocks + 1):
        x = attention_block(x, parts, shortcut_projection, f"stage4_block{number}")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    network = keras.Model(inputs, dense(x, classes, PYTORCH_DEFAULT, "classifier"), name="network")
    return with_weights(SpikingModel(network, timesteps, gradient, step_mode, name=name), weights, "ESpikeFormerLarge")


def factorized(x, channels, use_bias, name):
    """A dense layer of attention that is the product of two, with half as many channels more between them."""
    y = pointwise(x, int(1.5 * x.shape[channel_axis(x)]), use_bias, f"{name}_hidden")
    return batch_normalization(pointwise(y, channels, use_bias, name), f"{name}_bn2")


def attention_block(x, parts, shortcut_projection, name):
    """Self-attention and an MLP, each scaled and added to the input."""
    channels = x.shape[channel_axis(x)]
    if shortcut_projection:
        y = pointwise(neurons(x, parts.neuron, f"{name}_shortcut_neuron"), channels, False, f"{name}_shortcut1")
        x = layers.Add(name=f"{name}_shortcut_add")([x, pointwise(y, channels, False, f"{name}_shortcut2")])
    y = spiking_self_attention(
        neurons(x, parts.neuron, f"{name}_attention_input_neuron"),
        parts.heads,
        use_output_bias=False,
        neuron=parts.neuron,
        attention_neuron=parts.neuron,
        projection=factorized,
        name=f"{name}_attention",
    )
    x = layers.Add(name=f"{name}_attention_add")([x, scaled(y, f"{name}_attention_factor")])
    return layers.Add(name=f"{name}_mlp_add")([x, scaled(mlp(x, parts, name), f"{name}_mlp_factor")])


def scaled(x, name):
    """A learned factor for each channel."""
    factors = keras.initializers.Constant(LAYER_SCALE)
    return layers.DepthwiseConv2D(1, use_bias=False, depthwise_initializer=factors, name=name)(x)
