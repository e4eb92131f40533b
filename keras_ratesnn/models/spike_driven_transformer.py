"""Spike-driven Transformer: attention of masks and additions alone."""

import re
from typing import Any, Unpack

import keras
from keras import layers

from keras_ratesnn._core import checks
from keras_ratesnn.models import _transformers
from keras_ratesnn.models._blocks import neurons
from keras_ratesnn.models._options import ImageShape, TransformerOptions, builder
from keras_ratesnn.models._transformers import Edition, convolution_bn, pooled
from keras_ratesnn.models.attention import spike_driven_attention
from keras_ratesnn.models.maxformer import attention_block

POOLINGS = {"imagenet": "1111", "cifar": "0011", "dvs": "0111"}
"""The default `pooling_stat` of each edition."""


@builder
def SpikeDrivenTransformer(
    input_shape: ImageShape = None,
    *,
    classes: int = 10,
    timesteps: int = 4,
    pooling_stat: str | None = None,
    **options: Unpack[TransformerOptions],
) -> keras.Model:
    """Spike-driven Transformer: the patches of Spikformer, and blocks of spike-driven
    attention, without a product of matrices.

    Blocks add currents to currents, so all weights see spikes. Spike-driven
    Transformer-8-512 has `blocks=8, dims=512`.

    Example:

    >>> model = SpikeDrivenTransformer(
    ...     input_shape=(16, 16, 3), classes=10, timesteps=2, dims=32, blocks=1
    ... )
    >>> model.predict(np.ones((1, 16, 16, 3)), verbose=0).shape
    (1, 10)

    Args: as in `Spikformer`, but
        pooling_stat: String of four digits, 1 for each of the four convolutions of the
            patch embedding after which images are halved, else 0. Defaults to `None`,
            that of the edition.
        heads: Integer >= 1 that divides the channels. Heads only arrange the channels,
            see `spike_driven_attention`. Defaults to `None`, which stands for 8.
        edition: The number of pixels that become one token, unless `pooling_stat` is
            given. `"imagenet"`: 16 x 16, `"1111"`. `"cifar"`: 4 x 4, `"0011"`. `"dvs"`,
            for event frames: 8 x 8, `"0111"`. Defaults to `None`, which depends on the
            image as in `Spikformer`.

    Source: Yao et al., "Spike-driven Transformer", NeurIPS 2023.
    """
    poolings = (
        POOLINGS
        if pooling_stat is None
        else dict.fromkeys(POOLINGS, _checked_pooling(pooling_stat))
    )
    design = _transformers.design(
        {name: _edition(pooling) for name, pooling in poolings.items()},
        input_shape,
        classes,
        **options,
    )
    x = _transformers.tokens(
        patch_splitting(design.inputs, design, poolings[design.edition], "patches"),
        "tokens",
    )
    for number in range(1, design.depths[-1] + 1):
        x = attention_block(x, design, f"block{number}", spike_driven_attention)
    return _transformers.classified(x, design, with_neurons=True)


def patch_splitting(x, design, pooling_stat, name):
    """Four convolutions that double the channels, and one of the spikes of the last,
    which adds currents for the position."""
    for number, (divisor, halves) in enumerate(
        zip((8, 4, 2, 1), pooling_stat, strict=True), 1
    ):
        last = divisor == 1
        x = convolution_bn(
            x,
            design.dims // divisor,
            f"{name}{number}",
            neuron=None if last else design.neuron,
        )
        x = pooled(x, f"{name}{number}") if halves == "1" else x
    position = convolution_bn(
        neurons(x, design.neuron, f"{name}4_neuron"), design.dims, f"{name}_position"
    )
    return layers.Add(name=f"{name}_add")([x, position])


def _edition(pooling_stat):
    return Edition(
        patch=2 ** pooling_stat.count("1"),
        first_blocks=(),
        narrowest=8,
        heads=lambda dims: 8,
    )


def _checked_pooling(pooling_stat: Any) -> str:
    checks.instance(
        "pooling_stat",
        pooling_stat,
        str,
        advice="Its four digits say after which convolutions images are halved.",
    )
    if not re.fullmatch("[01]{4}", pooling_stat):
        raise ValueError(
            "`pooling_stat` must be four digits, 1 for a convolution after which "
            "images are halved, else 0: for example '0011'. Received: "
            f"pooling_stat={pooling_stat!r}."
        )
    return pooling_stat
