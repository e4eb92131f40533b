"""QKFormer: a transformer in stages, with token attention in the first stages."""

import functools
from typing import Unpack

import keras
from keras import layers

from keras_ratesnn._core import checks
from keras_ratesnn.layers import Neuron
from keras_ratesnn.layers.shared_membrane import SharedMembraneCell
from keras_ratesnn.models import _transformers
from keras_ratesnn.models._blocks import neurons
from keras_ratesnn.models._options import ImageShape, TransformerOptions, builder
from keras_ratesnn.models._transformers import IN_STAGES, convolution_bn, in_stages, pooled
from keras_ratesnn.models.attention import spiking_self_attention, token_attention


@builder
def QKFormer(
    input_shape: ImageShape = None,
    *,
    classes: int = 10,
    timesteps: int = 4,
    shared_membrane: bool = False,
    **options: Unpack[TransformerOptions],
) -> keras.Model:
    """QKFormer: stages of a quarter, a half and all of the channels, with token attention and, in the last, self-attention.

    Each stage but the first halves the image and doubles the channels. Blocks add spikes to spikes. The first stages have 1 and
    2 blocks on ImageNet, 1 and 1 on CIFAR; on event frames there are two stages, of which the first has 1 block. The last
    stage has all other blocks.

    Example:

    >>> model = QKFormer(input_shape=(16, 16, 3), classes=10, timesteps=2, dims=64, blocks=3)
    >>> model.predict(np.ones((1, 16, 16, 3)), verbose=0).shape
    (1, 10)

    Args: as in `Spikformer`, but
        edition: In `"imagenet"` and `"dvs"` 16 x 16 pixels are a token of the last stage, in `"cifar"` 4 x 4.
        shared_membrane: Boolean, whether self-attention's last neurons take the samples of a batch for time steps, as in the
            authors' program: each sample starts with the membranes that the one before it left. Outputs then depend on the
            batch and its order. It is for measuring what they published; such a network cannot be trained or exported.
            Defaults to `False`, each sample by itself.

    Source: Zhou et al., "QKFormer: Hierarchical Spiking Transformer using Q-K Attention", NeurIPS 2024.
    """
    plan = _transformers.plan(IN_STAGES, input_shape, classes, **options)
    shared = checks.boolean("shared_membrane", shared_membrane)
    output_neuron = functools.partial(shared_neurons, plan.neuron) if shared else None
    last = functools.partial(block, attention=spiking_self_attention, output_neuron=output_neuron)
    blocks = (*[block] * (len(plan.depths) - 1), last)
    return _transformers.classified(in_stages(plan, first_patches, patches, blocks), plan)


def block(x, plan, name, attention=token_attention, output_neuron=None):
    """Attention and an MLP."""
    return _transformers.spike_block(x, plan.attention(attention, x, name), plan, name, output_neuron)


def shared_neurons(neuron):
    """New neurons whose membranes pass from sample to sample."""
    return Neuron(SharedMembraneCell(neuron().cell))


def patches(x, channels, plan, name):
    """Two convolutions that halve the image, and a shortcut of spikes."""
    at = 1 if plan.edition == "imagenet" else 2
    y = _unit(x, channels, plan, f"{name}_1", pool=at == 1)
    y = _unit(y, channels, plan, f"{name}_2", pool=at == 2)
    return _with_shortcut(x, y, channels, 2, plan, name)


def first_patches_imagenet(x, channels, plan, name):
    """Three convolutions, a reduction by 4; the shortcut is that of the last two."""
    x = _unit(x, channels // 2, plan, f"{name}_1", pool=True)
    y = _unit(_unit(x, channels, plan, f"{name}_2", pool=True), channels, plan, f"{name}_3", pool=False)
    return _with_shortcut(x, y, channels, 2, plan, name)


def first_patches_cifar(x, channels, plan, name):
    """Two convolutions; the shortcut is that of the last."""
    x = _unit(x, channels // 2, plan, f"{name}_1", pool=False)
    return _with_shortcut(x, _unit(x, channels, plan, f"{name}_2", pool=False), channels, 1, plan, name)


def first_patches_dvs(x, channels, plan, name):
    """Four convolutions that double the channels, a reduction by 8; the shortcut is that of the last two."""
    x = _unit(x, channels // 8, plan, f"{name}_1", pool=False)
    x = _unit(x, channels // 4, plan, f"{name}_2", pool=True)
    y = _unit(_unit(x, channels // 2, plan, f"{name}_3", pool=True), channels, plan, f"{name}_4", pool=True)
    return _with_shortcut(x, y, channels, 4, plan, name)


first_patches = {"imagenet": first_patches_imagenet, "cifar": first_patches_cifar, "dvs": first_patches_dvs}
"""The patch embedding of the first stage of each edition."""


def _unit(x, filters, plan, name, pool):
    """A convolution, batch normalisation, perhaps pooling, and neurons."""
    x = convolution_bn(x, filters, name)
    return neurons(pooled(x, name) if pool else x, plan.neuron, f"{name}_neuron")


def _with_shortcut(x, y, channels, strides, plan, name):
    shortcut = convolution_bn(x, channels, f"{name}_shortcut", size=1, strides=strides, neuron=plan.neuron)
    return layers.Add(name=f"{name}_add")([y, shortcut])
