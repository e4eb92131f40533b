"""QKFormer: a transformer in stages, with token attention in the first stages."""

import functools
from typing import Unpack

import keras

from keras_ratesnn._core import checks
from keras_ratesnn.layers import Neuron
from keras_ratesnn.layers.shared_membrane import SharedMembraneCell
from keras_ratesnn.models import _transformers
from keras_ratesnn.models._options import ImageShape, TransformerOptions, builder
from keras_ratesnn.models._transformers import IN_STAGES, Embedding, in_stages
from keras_ratesnn.models.attention import spiking_self_attention, token_attention

FIRST_PATCHES = {
    "imagenet": Embedding((2, 1, 1), (1, 2), 1),
    "cifar": Embedding((2, 1), (), 1),
    "dvs": Embedding((8, 4, 2, 1), (2, 3, 4), 2),
}
LATER_PATCHES = {
    "imagenet": Embedding((1, 1), (1,), 0),
    "cifar": Embedding((1, 1), (2,), 0),
    "dvs": Embedding((1, 1), (2,), 0),
}
"""The patch embeddings of the first stage of each edition, and of the others."""


@builder
def QKFormer(
    input_shape: ImageShape = None,
    *,
    classes: int = 10,
    timesteps: int = 4,
    shared_membrane: bool = False,
    **options: Unpack[TransformerOptions],
) -> keras.Model:
    """QKFormer: stages of a quarter, a half and all of the channels, with token
    attention and, in the last, self-attention.

    Each stage but the first halves the image and doubles the channels. Blocks add
    spikes to spikes. The first stages have 1 and 2 blocks on ImageNet, 1 and 1 on
    CIFAR; on event frames there are two stages, of which the first has 1 block. The
    last stage has all other blocks.

    Example:

    >>> model = QKFormer(
    ...     input_shape=(16, 16, 3), classes=10, timesteps=2, dims=64, blocks=3
    ... )
    >>> model.predict(np.ones((1, 16, 16, 3)), verbose=0).shape
    (1, 10)

    Args: as in `Spikformer`, but
        shared_membrane: Boolean, whether self-attention's last neurons take the samples
            of a batch for time steps, as in the authors' program: each sample starts
            with the membranes that the one before it left. Outputs then depend on the
            batch and its order. It is for measuring what they published; such a network
            cannot be trained or exported. Defaults to `False`, each sample by itself.
        edition: The authors' choices for a data set: how images become tokens, and
            details of the blocks. In `"imagenet"` and `"dvs"` 16 x 16 pixels are a
            token of the last stage, in `"cifar"` 4 x 4. Defaults to `None`, which
            depends on the image as in `Spikformer`.

    Source: Zhou et al., "QKFormer: Hierarchical Spiking Transformer using Q-K
    Attention", NeurIPS 2024.
    """
    design = _transformers.design(IN_STAGES, input_shape, classes, **options)
    shared = checks.boolean("shared_membrane", shared_membrane)
    output_neuron = functools.partial(shared_neurons, design.neuron) if shared else None
    last = functools.partial(
        block, attention=spiking_self_attention, output_neuron=output_neuron
    )
    blocks = (*[block] * (len(design.depths) - 1), last)
    first, later = FIRST_PATCHES[design.edition], LATER_PATCHES[design.edition]
    return _transformers.classified(in_stages(design, first, later, blocks), design)


def block(x, design, name, attention=token_attention, output_neuron=None):
    """Attention and an MLP."""
    return _transformers.spike_block(
        x, design.attention(attention, x, name), design, name, output_neuron
    )


def shared_neurons(neuron):
    """New neurons whose membranes pass from sample to sample."""
    return Neuron(SharedMembraneCell(neuron().cell))
