"""Spikformer: the first transformer with spiking self-attention."""

import os
from collections.abc import Callable, Sequence

from keras import layers

from keras_ratesnn._core.annotations import Config, StepModeName, TransformerEdition
from keras_ratesnn.gradients import GradientMethod
from keras_ratesnn.layers import Neuron
from keras_ratesnn.models import _transformers
from keras_ratesnn.models._blocks import neurons
from keras_ratesnn.models._transformers import Edition, convolution_bn, pooled
from keras_ratesnn.models._weights import with_weights
from keras_ratesnn.spiking_model import SpikingModel

EDITIONS = {
    # The authors' network of 384 channels has 12 heads on ImageNet, too.
    "imagenet": Edition(patch=16, first_blocks=(), narrowest=8, heads=lambda dims: 12 if dims == 384 else dims // 64),
    "cifar": Edition(patch=4, first_blocks=(), narrowest=8, heads=lambda dims: dims // 32),
    "dvs": Edition(patch=16, first_blocks=(), narrowest=8, heads=lambda dims: 16),
}
POOLINGS = {"imagenet": (1, 2, 3, 4), "cifar": (3, 4), "dvs": (1, 2, 3, 4)}
"""The convolutions of the patch embedding after which images are halved."""


def Spikformer(
    input_shape: Sequence[int] | None = None,
    classes: int = 10,
    timesteps: int = 4,
    gradient: str | GradientMethod | Config = "rate",
    step_mode: StepModeName = "multi",
    neuron: Callable[[], Neuron] | None = None,
    dims: int = 384,
    blocks: int = 4,
    heads: int | None = None,
    edition: TransformerEdition | None = None,
    mlp_ratio: int | None = None,
    attention_neuron: Callable[[], Neuron] | None = None,
    weights: str | os.PathLike[str] | None = None,
    name: str = "spikformer",
) -> SpikingModel:
    """Spikformer: convolutions that make patches of the image to tokens, and blocks of spiking self-attention and MLPs.

    Blocks add spikes to spikes. Spikformer-8-512 has `blocks=8, dims=512`.

    Example:

    >>> model = Spikformer(input_shape=(16, 16, 3), classes=10, timesteps=2, dims=32, blocks=1)
    >>> model.predict(np.ones((1, 16, 16, 3)), verbose=0).shape
    (1, 10)

    Args:
        input_shape: Tuple of three integers, the shape of one image in Keras' image data format, `(height, width, channels)`
            or, with `channels_first`, `(channels, height, width)`. Defaults to that of the edition: 32 x 32 pixels of 3
            channels for `"cifar"` and `None`, 224 x 224 pixels of 3 for `"imagenet"`, 128 x 128 pixels of 2 for `"dvs"`.
        classes: Integer >= 1, the number of outputs, which are logits. Defaults to `10`.
        timesteps: Integer >= 1, see `keras_ratesnn.SpikingModel`. Defaults to `4`.
        gradient: The training method, see `keras_ratesnn.SpikingModel`. Defaults to `"rate"`.
        step_mode: `"multi"` or `"single"`, see `keras_ratesnn.SpikingModel`. Defaults to `"multi"`.
        neuron: Function without arguments that returns a new neuron layer each time; the network sets its name. Defaults to
            `None`, which stands for `LIF(decay=0.5, decay_input=True, reset="hard")`, the paper's neurons.
        dims: Integer, the number of channels of the tokens of the last stage. Defaults to `384`.
        blocks: Integer, the number of blocks of all stages. Defaults to `4`.
        heads: Integer >= 1, the number of attention heads, which divides the channels of every stage. Defaults to `None`, that
            of the paper.
        edition: What the authors chose for a data set: how images become tokens, and details of the blocks. `"imagenet"`:
            16 x 16 pixels are a token. `"cifar"`: 4 x 4 pixels. `"dvs"`, for event frames: 16 x 16 pixels. Height and width of
            the images must be multiples of these. Defaults to `None`: `"cifar"` for images of fewer than 128 x 128 pixels, and
            for larger images `"dvs"` if they have two channels, else `"imagenet"`.
        mlp_ratio: Integer >= 1, how many times as many channels the hidden layer of an MLP has. Defaults to `None`, that of
            the paper.
        attention_neuron: As `neuron`, for the products of attention. Defaults to `None`, the paper's neurons with threshold
            0.5.
        weights: The initial weights. `None`: random. The name of a pretrained network with this architecture, see
            `keras_ratesnn.models.list_pretrained()`: images must be preprocessed as described on its card, and the last layer
            is replaced if `classes` differs. A path that ends in `.keras`: a file of the same network, written by
            `SpikingModel.save`. Defaults to `None`.
        name: String, the model's name. Defaults to `"spikformer"`.

    Returns:
        A `keras_ratesnn.SpikingModel`, not compiled. Its layers always have the same names, so that weights load by name.

    Raises:
        ValueError: If a value is out of bounds, `heads` do not divide the channels, patches do not divide the image, a name is
            unknown, or `weights` belong to another network.
        TypeError: If an argument has the wrong type, or `neuron` does not return a neuron layer.
        OSError: If the file of `weights` does not exist or cannot be downloaded.

    Source: Zhou et al., "Spikformer: When Spiking Neural Network Meets Transformer", ICLR 2023.
    """
    plan = _transformers.plan(EDITIONS, input_shape, classes, dims, blocks, heads, edition, mlp_ratio, neuron, attention_neuron)
    x = _transformers.tokens(patch_splitting(plan.inputs, plan, "patches"), "tokens")
    for number in range(1, blocks + 1):
        x = block(x, plan, f"block{number}")
    network = _transformers.classified(_transformers.token_mean(x), plan)
    return with_weights(SpikingModel(network, timesteps, gradient, step_mode, name=name), weights, "Spikformer")


def patch_splitting(x, plan, name):
    """Spiking patch splitting (SPS): four convolutions that double the channels, and one that adds spikes for the position."""
    for number, divisor in enumerate((8, 4, 2, 1), 1):
        x = convolution_bn(x, plan.dims // divisor, f"{name}{number}")
        x = neurons(x, plan.neuron, f"{name}{number}_neuron")
        x = pooled(x, f"{name}{number}") if number in POOLINGS[plan.edition] else x
    position = convolution_bn(x, plan.dims, f"{name}_position", neuron=plan.neuron)
    return layers.Add(name=f"{name}_add")([x, position])


def block(x, plan, name):
    """Spiking self-attention and an MLP. The authors' programs have biases of queries, keys and values for CIFAR only."""
    scale = 0.25 if plan.edition == "dvs" else 0.125
    attended = _transformers.self_attention(x, plan, name, scale, use_bias=plan.edition == "cifar")
    return _transformers.spike_block(x, attended, plan, name)
