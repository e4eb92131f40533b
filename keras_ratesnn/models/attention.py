"""Attention of spiking transformers: spikes take the place of softmax.

Functions, as those of networks, and not layers: their neurons and products are
operations of the network's own graph, each of which a training method, a conversion and
`describe` must see.
"""

from typing import Unpack

import keras
from keras import ops

from keras_ratesnn._core import checks, keras_internals
from keras_ratesnn._core.annotations import Tensor
from keras_ratesnn.layers import LIF
from keras_ratesnn.models._blocks import channel_axis, neurons, sides
from keras_ratesnn.models._neuron_argument import checked_neuron
from keras_ratesnn.models._options import AttentionOptions, with_options


def spikformer_neuron(threshold: float = 1.0) -> LIF:
    """A new neuron layer as in Spikformer: membrane and input are halved, and the reset
    is to 0."""
    return LIF(decay=0.5, decay_input=True, reset="hard", threshold=threshold)


def spikformer_attention_neuron() -> LIF:
    """A new neuron layer for the currents of attention, which are smaller:
    `spikformer_neuron` with threshold 0.5."""
    return spikformer_neuron(threshold=0.5)


@with_options
def spiking_self_attention(
    inputs: Tensor,
    heads: int,
    *,
    scale: float = 0.125,
    value_ratio: int = 1,
    **options: Unpack[AttentionOptions],
) -> Tensor:
    """Spiking self-attention (SSA): attention without softmax, on the spikes of
    queries, keys and values.

    q, k, v = neurons(BN(W x)), a = neurons(scale · q kᵀ v), and the output is the
    current BN(W_o a). No softmax is needed, because the products of spikes are counts;
    kᵀ v is computed first, so the cost is linear in the number of tokens.

    It adds new, ordinary layers to the graph of a network, so that training methods,
    `describe`, energy and export see its neurons.

    Example:

    >>> inputs = keras.Input((16, 8))
    >>> x = keras_ratesnn.layers.LIF()(
    ...     spiking_self_attention(inputs, heads=2, name="attention")
    ... )
    >>> network = keras.Model(inputs, keras.layers.Add()([inputs, x]))
    >>> # (batch, heads, tokens, channels per head)
    >>> network.get_layer("attention_neuron").output.shape
    (None, 2, 16, 4)

    Args:
        inputs: A tensor of a Keras graph: tokens `(batch, tokens, channels)`, or images
            in Keras' image data format; spikes or currents.
        heads: Integer >= 1 that divides the number of channels.
        scale: Float > 0, the factor of the product. Powers of 2 are exact, so membranes
            can reach a threshold exactly. Defaults to `0.125`, as in Spikformer,
            whatever the number of channels.
        value_ratio: Integer >= 1, how many times as many channels the values have as
            the input. Defaults to `1`.
        use_bias: Boolean, whether the dense layers of queries, keys and values have a
            bias. Defaults to `False`.
        use_output_bias: Boolean, whether the dense layer of the output has one.
            Defaults to `True`.
        neuron: Function without arguments that returns a new neuron layer, for queries,
            keys and values. Defaults to `None`, which stands for `LIF(decay=0.5,
            decay_input=True, reset="hard")`.
        attention_neuron: Likewise, for the product. Defaults to `None`, the same
            neurons with threshold 0.5.
        projection: Function `(x, channels, use_bias, name)` that returns currents.
            Defaults to a dense layer `name` on the channels and batch normalisation.
        name: String, the beginning of the names of the layers. Defaults to `None`, a
            name that is not yet used.

    Returns:
        A tensor of the same shape: currents. Neurons, or a sum with the input, follow.

    Precision:
        In float32 the product is exact as long as its counts are below 2^24. In half
        precision small counts are exact, and only these are near the threshold;
        nothing overflows as long as scale · tokens · (channels / heads) < 65,504.

    Raises:
        ValueError: If `heads` does not divide the number of channels, a value is out of
            bounds, or the input has another rank or a mask, or is an image of unknown
            size.
        TypeError: If an argument has the wrong type, or the input is not a tensor of a
            Keras graph.

    Source: Zhou et al., "Spikformer: When Spiking Neural Network Meets Transformer",
    ICLR 2023.
    """
    parts = _AttentionParts(inputs, heads, "spiking_self_attention", **options)
    scale = checks.real("scale", scale, above=0)
    value_channels = parts.channels * checks.positive_integer(
        "value_ratio", value_ratio
    )
    queries, keys, values = (
        tokens_of_heads(
            parts.spikes(part, channels),
            parts.heads,
            f"{parts.name}_{part}",
            transposed=part == "key",
        )
        for part, channels in (
            ("query", parts.channels),
            ("key", parts.channels),
            ("value", value_channels),
        )
    )
    # Scaled before the second product: that keeps half precision farther from its
    # largest number.
    summed = keras.layers.Rescaling(scale, name=f"{parts.name}_scale")(
        ops.matmul(keys, values)
    )
    attended = neurons(
        ops.matmul(queries, summed), parts.attention_neuron, f"{parts.name}_neuron"
    )
    return parts.output(
        joined_heads(attended, value_channels, parts.inputs, parts.name)
    )


@with_options
def token_attention(
    inputs: Tensor, heads: int, **options: Unpack[AttentionOptions]
) -> Tensor:
    """Token attention (QK attention): the queries choose tokens, and only the keys of
    these tokens pass.

    q, k = neurons(BN(W x)). In each head, neurons sum the query of a token over its
    channels; their spike A lets the key of the token pass, and the output is the
    current BN(W_o (A ⊙ k)). The cost is linear in tokens and channels.

    It adds new, ordinary layers to the graph of a network, see
    `spiking_self_attention`.

    Example:

    >>> inputs = keras.Input((4, 4, 8))
    >>> x = keras_ratesnn.layers.LIF()(
    ...     token_attention(inputs, heads=2, name="attention")
    ... )
    >>> network = keras.Model(inputs, keras.layers.Add()([inputs, x]))
    >>> # A spike for each token and head.
    >>> network.get_layer("attention_neuron").output.shape
    (None, 4, 4, 2, 1)

    Args: as in `spiking_self_attention`.

    Source: Zhou et al., "QKFormer: Hierarchical Spiking Transformer using Q-K
    Attention", NeurIPS 2024.
    """
    parts = _AttentionParts(inputs, heads, "token_attention", **options)
    queries, keys = (_channels_of_heads(parts, part) for part in ("query", "key"))
    counts = ops.sum(queries, axis=2 if parts.channels_first else -1, keepdims=True)
    return _let_pass(parts, counts, keys)


@with_options
def spike_driven_attention(
    inputs: Tensor, heads: int, **options: Unpack[AttentionOptions]
) -> Tensor:
    """Spike-driven self-attention (SDSA): keys and values choose channels, and only the
    queries of these channels pass.

    q, k, v = neurons(BN(W x)). In each channel, neurons sum k ⊙ v over the tokens;
    their spike A lets the queries of the channel pass, and the output is the current
    BN(W_o (A ⊙ q)). There are only masks and additions, and the cost is linear in
    tokens and channels.

    It adds new, ordinary layers to the graph of a network, see
    `spiking_self_attention`.

    Example:

    >>> inputs = keras.Input((4, 4, 8))
    >>> x = keras_ratesnn.layers.LIF()(
    ...     spike_driven_attention(inputs, heads=2, name="attention")
    ... )
    >>> network = keras.Model(inputs, keras.layers.Add()([inputs, x]))
    >>> network.get_layer("attention_neuron").output.shape  # a spike for each channel
    (None, 1, 1, 2, 4)

    Args: as in `spiking_self_attention`, but
        heads: Integer >= 1 that divides the number of channels. Heads only arrange the
            channels: each of them is summed alone.

    Source: Yao et al., "Spike-driven Transformer", NeurIPS 2023.
    """
    parts = _AttentionParts(inputs, heads, "spike_driven_attention", **options)
    queries, keys, values = (
        _channels_of_heads(parts, part) for part in ("query", "key", "value")
    )
    products = keras.layers.Multiply(name=f"{parts.name}_products")([keys, values])
    first = 3 if parts.channels_first else 1
    counts = ops.sum(
        products, axis=tuple(range(first, first + len(parts.sides))), keepdims=True
    )
    return _let_pass(parts, counts, queries)


class _AttentionParts:
    """The checked arguments of attention, and the parts that all kinds have; names of
    their layers begin with `name`."""

    def __init__(
        self,
        inputs,
        heads,
        kind,
        use_bias,
        use_output_bias,
        neuron,
        attention_neuron,
        projection,
        name,
    ):
        self.heads = checks.positive_integer(
            "heads", heads, advice="Each head has its share of the channels."
        )
        self.use_bias = checks.boolean("use_bias", use_bias)
        self.use_output_bias = checks.boolean("use_output_bias", use_output_bias)
        self.neuron = checked_neuron(neuron, spikformer_neuron)
        self.attention_neuron = checked_neuron(
            attention_neuron, spikformer_attention_neuron, name="attention_neuron"
        )
        self.projection = checks.function("projection", projection)
        self.name = _checked_name(name, kind)
        self.inputs = _checked_inputs(inputs, self.heads)
        self.channels_first = channel_axis(inputs) == 1
        self.channels = inputs.shape[channel_axis(inputs)]
        self.sides = sides(inputs)

    def spikes(self, part, channels):
        """The spikes of the queries, keys or values, of `NAME_PART_neuron`."""
        currents = self.projection(
            self.inputs, channels, self.use_bias, f"{self.name}_{part}"
        )
        return neurons(currents, self.neuron, f"{self.name}_{part}_neuron")

    def output(self, attended):
        return self.projection(
            attended, self.channels, self.use_output_bias, f"{self.name}_output"
        )


def tokens_of_heads(x, heads, name, transposed=False):
    """Tokens or images as `(batch, heads, tokens, channels per head)`, or with the last
    two axes transposed."""
    head_channels = x.shape[channel_axis(x)] // heads
    if channel_axis(x) == 1:
        shape = (heads, head_channels, -1)
        order = (1, 2, 3) if transposed else (1, 3, 2)
    else:
        shape = (-1, heads, head_channels)
        order = (2, 3, 1) if transposed else (2, 1, 3)
    return keras.layers.Permute(order, name=f"{name}_order")(
        keras.layers.Reshape(shape, name=f"{name}_heads")(x)
    )


def joined_heads(x, channels, like, name):
    """The results of `tokens_of_heads` as tokens or images again, of the size of
    others, `like`."""
    order = (1, 3, 2) if channel_axis(like) == 1 else (2, 1, 3)
    return _joined(
        keras.layers.Permute(order, name=f"{name}_order")(x), channels, like, name
    )


def _joined(x, channels, like, name):
    """Channels of all heads on one axis, in tokens or images of the size of others."""
    size = sides(like)
    shape = (channels, *size) if channel_axis(like) == 1 else (*size, channels)
    return keras.layers.Reshape(shape, name=f"{name}_joined")(x)


def _channels_of_heads(parts, part):
    """Spikes whose channels are two axes, heads and channels per head."""
    two = (parts.heads, parts.channels // parts.heads)
    shape = (*two, *parts.sides) if parts.channels_first else (*parts.sides, *two)
    return keras.layers.Reshape(shape, name=f"{parts.name}_{part}_heads")(
        parts.spikes(part, parts.channels)
    )


def _let_pass(parts, counts, x):
    """The output of attention that lets the spikes `x` pass where neurons on `counts`
    spike."""
    chosen = neurons(counts, parts.attention_neuron, f"{parts.name}_neuron")
    attended = keras.layers.Multiply(name=f"{parts.name}_chosen")([chosen, x])
    return parts.output(_joined(attended, parts.channels, parts.inputs, parts.name))


def _checked_name(name, default):
    if name is not None:
        checks.instance(
            "name",
            name,
            str,
            advice="The names of the layers of its parts begin with it.",
        )
    return name or f"{default}_{keras.backend.get_uid(default)}"


def _checked_inputs(inputs, heads):
    advice = (
        "Call it on an output of another layer or on a keras.Input, as one builds "
        "a keras.Model."
    )
    checks.instance("inputs", inputs, keras.KerasTensor, advice=advice)
    shape = tuple(inputs.shape)
    if len(shape) not in (3, 4):
        raise ValueError(
            "`inputs` must be tokens (batch, tokens, channels) or images. Received: "
            f"inputs.shape={shape}."
        )
    open_sizes = shape[1:] if len(shape) == 4 else shape[2:]
    if None in open_sizes:
        raise ValueError(
            "`inputs` must have a known number of channels, and images a known height "
            f"and width. Received: inputs.shape={shape}."
        )
    if keras_internals.mask_of(inputs) is not None:
        raise ValueError(
            "Spiking attention attends to all tokens, but `inputs` have a mask that "
            f"leaves some out. Received: inputs.shape={shape}, with a mask. Use "
            "keras.layers.MultiHeadAttention, or leave out the layer that masks."
        )
    channels = shape[channel_axis(inputs)]
    if channels % heads:
        raise ValueError(
            f"`heads` must divide the number of channels. Received: heads={heads}, and "
            f"inputs with {channels} channels, inputs.shape={shape}."
        )
    return inputs
