"""Attention of spiking transformers: spikes take the place of softmax."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_ratesnn._core import checks, keras_internals
from keras_ratesnn._core.annotations import Tensor
from keras_ratesnn.layers._neuron_argument import checked_neuron
from keras_ratesnn.layers.neurons import LIF, Neuron
from keras_ratesnn.layers.pointwise import channel_axis, pointwise


def spikformer_neuron(threshold: float = 1.0) -> LIF:
    """A new neuron layer as in Spikformer: membrane and input are halved, and the reset is to 0."""
    return LIF(decay=0.5, decay_input=True, reset="hard", threshold=threshold)


def spikformer_attention_neuron() -> LIF:
    """A new neuron layer for the currents of attention, which are smaller: `spikformer_neuron` with threshold 0.5."""
    return spikformer_neuron(threshold=0.5)


class _Attention:
    """What the attention layers share: they are called on a tensor of a graph, and add their parts to the graph."""

    def __init__(
        self,
        heads: int,
        use_bias: bool,
        use_output_bias: bool,
        neuron: Callable[[], Neuron] | None,
        attention_neuron: Callable[[], Neuron] | None,
        name: str | None,
        default_name: str,
    ) -> None:
        self.heads = checks.positive_integer("heads", heads, advice="Each head has its share of the channels.")
        self.use_bias = checks.boolean("use_bias", use_bias)
        self.use_output_bias = checks.boolean("use_output_bias", use_output_bias)
        self.neuron = checked_neuron(neuron, spikformer_neuron)
        self.attention_neuron = checked_neuron(attention_neuron, spikformer_attention_neuron, name="attention_neuron")
        if name is not None:
            checks.instance("name", name, str, advice="The names of the layers of its parts begin with it.")
        self.name = name or f"{default_name}_{keras.backend.get_uid(default_name)}"

    def __call__(self, inputs: Tensor) -> Tensor:
        self._check(inputs)
        current = self._attended(inputs, int(inputs.shape[channel_axis(inputs)]))
        return self._projected(current, inputs.shape[channel_axis(inputs)], self.use_output_bias, "output")

    def _projected(self, x, channels, use_bias, part):
        """The currents of the queries, keys, values or of the output: `NAME_PART` and `NAME_PART_bn`."""
        return pointwise(x, channels, use_bias, f"{self.name}_{part}")

    def _attended(self, inputs: Any, channels: int) -> Any:
        raise NotImplementedError

    def _spikes(self, inputs, channels, part):
        """The spikes of the queries, keys or values, of `NAME_PART_neuron`."""
        neurons = self.neuron()
        neurons.name = f"{self.name}_{part}_neuron"
        return neurons(self._projected(inputs, channels, self.use_bias, part))

    def _attention_spikes(self, currents):
        neurons = self.attention_neuron()
        neurons.name = f"{self.name}_neuron"
        return neurons(currents)

    def _check(self, inputs):
        advice = "Call it on an output of another layer or on a keras.Input, as one builds a keras.Model."
        checks.instance("inputs", inputs, keras.KerasTensor, advice=advice)
        shape = tuple(inputs.shape)
        if len(shape) not in (3, 4):
            raise ValueError(
                f"{type(self).__name__} takes tokens (batch, tokens, channels) or images. Received: inputs.shape={shape}."
            )
        open_sizes = shape[1:] if len(shape) == 4 else shape[2:]
        if None in open_sizes:
            raise ValueError(
                f"{type(self).__name__} must know the number of channels, and the height and width of images. "
                f"Received: inputs.shape={shape}."
            )
        if keras_internals.mask_of(inputs) is not None:
            raise ValueError(
                f"{type(self).__name__} attends to all tokens, but `inputs` have a mask that leaves some out. Received: "
                f"inputs.shape={shape}, with a mask. Use keras.layers.MultiHeadAttention, or leave out the layer that masks."
            )
        channels = shape[channel_axis(inputs)]
        if channels % self.heads:
            raise ValueError(
                f"`heads` must divide the number of channels. Received: heads={self.heads}, and inputs with {channels} "
                f"channels, inputs.shape={shape}."
            )


class SpikingSelfAttention(_Attention):
    """Spiking self-attention (SSA): attention without softmax, on the spikes of queries, keys and values.

    q, k, v = neurons(BN(W x)), a = neurons(scale · q kᵀ v), and the output is the current BN(W_o a). No softmax is needed,
    because the products of spikes are counts; kᵀ v is computed first, so the cost is linear in the number of tokens.

    It is called like a layer, on a tensor of a Keras graph, and adds ordinary layers to this graph: training methods,
    `describe`, energy and export see its neurons. Each call makes new layers.

    Example:

    >>> inputs = keras.Input((16, 8))
    >>> x = keras_ratesnn.layers.LIF()(SpikingSelfAttention(heads=2, name="attention")(inputs))
    >>> network = keras.Model(inputs, keras.layers.Add()([inputs, x]))
    >>> network.get_layer("attention_neuron").output.shape  # (batch, heads, tokens, channels per head)
    (None, 2, 16, 4)

    Args:
        heads: Integer >= 1 that divides the number of channels.
        scale: Float > 0, the factor of the product. Powers of 2 are exact, so membranes can reach a threshold exactly. Defaults
            to `0.125`, as in Spikformer, whatever the number of channels.
        value_ratio: Integer >= 1, how many times as many channels the values have as the input. Defaults to `1`.
        use_bias: Boolean, whether the dense layers of queries, keys and values have a bias. Defaults to `False`.
        use_output_bias: Boolean, whether the dense layer of the output has one. Defaults to `True`.
        neuron: Function without arguments that returns a new neuron layer, for queries, keys and values. Defaults to `None`,
            which stands for `LIF(decay=0.5, decay_input=True, reset="hard")`.
        attention_neuron: Likewise, for the product. Defaults to `None`, the same neurons with threshold 0.5.
        name: String, the beginning of the names of the layers. Defaults to `None`, a name that is not yet used.

    Input shape:
        Tokens `(batch, tokens, channels)`, or images in Keras' image data format: spikes or currents.

    Output shape:
        Same as the input shape: currents. Neurons, or a sum with the input, follow.

    Precision:
        In float32 the product is exact as long as its counts are below 2^24. In half precision small counts are exact,
        and only these are near the threshold; nothing overflows as long as scale · tokens · (channels / heads) < 65,504.

    Raises:
        ValueError: If `heads` does not divide the number of channels, a value is out of bounds, or the input has another rank
            or a mask, or is an image of unknown size.
        TypeError: If an argument has the wrong type, or the input is not a tensor of a Keras graph.

    Source: Zhou et al., "Spikformer: When Spiking Neural Network Meets Transformer", ICLR 2023.
    """

    def __init__(
        self,
        heads: int,
        scale: float = 0.125,
        value_ratio: int = 1,
        use_bias: bool = False,
        use_output_bias: bool = True,
        neuron: Callable[[], Neuron] | None = None,
        attention_neuron: Callable[[], Neuron] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(heads, use_bias, use_output_bias, neuron, attention_neuron, name, "spiking_self_attention")
        self.scale = checks.real("scale", scale, above=0)
        self.value_ratio = checks.positive_integer("value_ratio", value_ratio)

    def _attended(self, inputs, channels):
        queries = self._heads(self._spikes(inputs, channels, "query"), "query")
        keys = self._heads(self._spikes(inputs, channels, "key"), "key", transposed=True)
        values = self._heads(self._spikes(inputs, channels * self.value_ratio, "value"), "value")
        # Scaled before the second product: that keeps half precision farther from its largest number.
        summed = keras.layers.Rescaling(self.scale, name=f"{self.name}_scale")(ops.matmul(keys, values))
        attended = self._attention_spikes(ops.matmul(queries, summed))
        return self._joined(attended, inputs)

    def _heads(self, x, part, transposed=False):
        """Images or tokens as `(batch, heads, tokens, channels per head)`, or with the last two axes transposed."""
        channels = x.shape[channel_axis(x)] // self.heads
        if channel_axis(x) == 1:
            shape, order = (self.heads, channels, -1), (1, 2, 3) if transposed else (1, 3, 2)
        else:
            shape, order = (-1, self.heads, channels), (2, 3, 1) if transposed else (2, 1, 3)
        x = keras.layers.Reshape(shape, name=f"{self.name}_{part}_heads")(x)
        return keras.layers.Permute(order, name=f"{self.name}_{part}_order")(x)

    def _joined(self, x, inputs):
        """The inverse of `_heads`, with the axes of `inputs`."""
        first = channel_axis(inputs) == 1
        x = keras.layers.Permute((1, 3, 2) if first else (2, 1, 3), name=f"{self.name}_order")(x)
        sides = (-1,) if len(inputs.shape) == 3 else inputs.shape[2:] if first else inputs.shape[1:3]
        channels = inputs.shape[channel_axis(inputs)] * self.value_ratio
        return keras.layers.Reshape((channels, *sides) if first else (*sides, channels), name=f"{self.name}_joined")(x)


class TokenAttention(_Attention):
    """Token attention (QK attention): the queries choose tokens, and only the keys of these tokens pass.

    q, k = neurons(BN(W x)). In each head, neurons sum the query of a token over its channels; their spike A lets the key of the
    token pass, and the output is the current BN(W_o (A ⊙ k)). The cost is linear in tokens and channels.

    It is called like a layer, on a tensor of a Keras graph, and adds ordinary layers to this graph, see `SpikingSelfAttention`.

    Example:

    >>> inputs = keras.Input((4, 4, 8))
    >>> x = keras_ratesnn.layers.LIF()(TokenAttention(heads=2, name="attention")(inputs))
    >>> network = keras.Model(inputs, keras.layers.Add()([inputs, x]))
    >>> network.get_layer("attention_neuron").output.shape  # a spike for each token and head
    (None, 4, 4, 2, 1)

    Args: as in `SpikingSelfAttention`, without `scale` and `value_ratio`.

    Source: Zhou et al., "QKFormer: Hierarchical Spiking Transformer using Q-K Attention", NeurIPS 2024.
    """

    def __init__(
        self,
        heads: int,
        use_bias: bool = False,
        use_output_bias: bool = True,
        neuron: Callable[[], Neuron] | None = None,
        attention_neuron: Callable[[], Neuron] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(heads, use_bias, use_output_bias, neuron, attention_neuron, name, "token_attention")

    def _attended(self, inputs, channels):
        queries = self._heads(self._spikes(inputs, channels, "query"), "query")
        keys = self._heads(self._spikes(inputs, channels, "key"), "key")
        of_head = 2 if channel_axis(inputs) == 1 else -1
        chosen = self._attention_spikes(ops.sum(queries, axis=of_head, keepdims=True))
        attended = keras.layers.Multiply(name=f"{self.name}_chosen")([chosen, keys])
        shape = (-1, channels) if len(inputs.shape) == 3 else tuple(inputs.shape[1:])
        return keras.layers.Reshape(shape, name=f"{self.name}_joined")(attended)

    def _heads(self, x, part):
        """The channels as two axes, heads and channels per head."""
        channels = x.shape[channel_axis(x)] // self.heads
        sides = (-1,) if len(x.shape) == 3 else x.shape[2:] if channel_axis(x) == 1 else x.shape[1:3]
        shape = (self.heads, channels, *sides) if channel_axis(x) == 1 else (*sides, self.heads, channels)
        return keras.layers.Reshape(shape, name=f"{self.name}_{part}_heads")(x)
