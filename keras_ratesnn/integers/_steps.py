"""The time steps of a network of integers, the same on every backend.

An integer is an int32. Sums of products are computed in float32, where they are exact
below 2^24; inputs that would lead to larger ones are split into parts of few bits.
"""

from typing import Any

import numpy as np
from keras import ops

from keras_ratesnn._core import tree
from keras_ratesnn.integers import _arrays
from keras_ratesnn.integers._network import IntegerLayer, IntegerNetwork
from keras_ratesnn.integers._schema import INPUT
from keras_ratesnn.integers._windows import counts_of, least_common_multiple

_EXACT = 2**24
"""Float32 has all integers up to it."""

_BITS = 8
"""Integers of this many bits are exact in the inputs of any matrix unit, also in those
of bfloat16."""

_LIMB = 15
"""The bits of a part of a fraction: its product with half an integer fits in 32
bits."""


class Batch:
    """A batch that is run step by step, whose rows may become fewer.

    Args:
        network: `IntegerNetwork`.
        x: Integers `(batch, ...)`, or `(batch, T, ...)` if `temporal`, channels last.
        temporal: Boolean, whether there is a frame for each step.
        kernels: Dict of kernels in float32 by layer, see `kernels_of`.
        state: Dict, the states of the neurons. Defaults to those at rest.

    Attributes:
        state: Dict, the states of the neurons.
        outputs: Dict, the outputs of all layers at the last step.
    """

    def __init__(
        self,
        network: IntegerNetwork,
        x: Any,
        temporal: bool,
        kernels: dict[str, Any],
        state: dict[str, Any] | None = None,
    ) -> None:
        self.network, self.kernels = network, kernels
        self._x, self._temporal = x, temporal
        self.state = self.start() if state is None else state
        self._known: dict[str, Any] = {}

    def start(self):
        """The states of all neurons before the first step."""
        batch = ops.shape(self._x)[0]
        return {
            layer.name: self.at_rest(layer, batch)
            for layer in self.network.layers
            if layer.kind == "neurons"
        }

    def at_rest(self, layer, batch):
        shape = (batch, *layer.shape)
        membrane = ops.broadcast_to(self.constant("v0", layer), shape)
        if not layer.facts.get("reset_delay"):
            return {"membrane": membrane}
        return {"membrane": membrane, "spikes": ops.zeros(shape, "int32")}

    def constant(self, key, layer):
        return _arrays.constant(self.network.constants[f"{key}/{layer.name}"])

    def advance(self, t: int) -> Any:
        """The logits of step t."""
        frame = self._x[:, t] if self._temporal else self._x
        outputs = {INPUT: ops.cast(frame, "int32"), **self._known}
        state = dict(self.state)
        for layer in self.network.layers:
            if layer.name in self._known:
                continue
            inputs = [outputs[name] for name in layer.sources]
            if layer.kind == "neurons":
                outputs[layer.name], state[layer.name] = self.neurons(
                    layer, inputs, state[layer.name]
                )
            else:
                outputs[layer.name] = getattr(self, layer.kind)(layer, *inputs)
        self.outputs, self.state = outputs, state
        if not self._temporal:
            self._known = {
                layer.name: outputs[layer.name]
                for layer in self.network.layers
                if layer.static
            }
        return outputs[self.network.layers[-1].name]

    def keep(self, rows: Any) -> None:
        """Goes on with these rows alone, integers `(rows,)`, in this order."""
        self._x, self.state, self._known = tree.map_leaves(
            lambda leaf: ops.take(leaf, rows, axis=0),
            (self._x, self.state, self._known),
        )

    def dense(self, layer, x):
        return self.products(layer, x, ops.matmul)

    def conv(self, layer, x):
        return self.convolution(layer, x, _arrays.convolve)

    def depthwise(self, layer, x):
        return self.convolution(layer, x, _arrays.convolve_each)

    def convolution(self, layer, x, convolve):
        x = self.padded(x, layer.facts["pad"], layer.facts.get("pad_value", 0))
        return self.products(
            layer,
            x,
            lambda part, kernel: convolve(part, kernel, tuple(layer.facts["stride"])),
        )

    def products(self, layer, x, multiply):
        """Sums of products of inputs, in parts so small that float32 has all sums."""
        largest = self.network.of(layer.sources[0]).largest
        kernel = self.kernels[layer.name]
        bits = bits_of_parts(layer, largest)
        if bits >= largest.bit_length():
            return _arrays.whole(multiply(ops.cast(x, "float32"), kernel))
        total = 0
        for shift in range(0, largest.bit_length(), bits):
            part = ops.bitwise_and(ops.right_shift(x, shift), 2**bits - 1)
            sums = _arrays.whole(multiply(ops.cast(part, "float32"), kernel))
            total = total + sums * 2**shift
        return total

    def padded(self, x, pad, value):
        if not np.any(pad):
            return x
        pad = ((0, 0), *map(tuple, pad), (0, 0))
        return ops.pad(x, pad, constant_values=value)

    def flatten(self, layer, x):
        return ops.reshape(x, (-1, *layer.shape))

    def add(self, layer, *inputs):
        factors = layer.facts.get("factors", [1] * len(inputs))
        return sum(
            x if factor == 1 else x * factor
            for x, factor in zip(inputs, factors, strict=True)
        )

    def global_sum(self, layer, x):
        return ops.sum(x, (1, 2))

    def sum_pool(self, layer, x):
        total = sum(self.taps(layer, self.padded(x, layer.facts["pad"], 0)))
        counts = counts_of(self.network.of(layer.sources[0]).shape, layer.facts)
        factors = least_common_multiple(counts) // counts
        if (factors == 1).all():
            return total
        return total * _arrays.constant(factors[..., None])

    def max_pool(self, layer, x):
        least = self.network.of(layer.sources[0]).least
        largest, *rest = self.taps(layer, self.padded(x, layer.facts["pad"], least))
        for tap in rest:
            largest = ops.maximum(largest, tap)
        return largest

    def taps(self, layer, x):
        """The elements of all windows at the same place, for each place."""
        height, width = layer.shape[:2]
        down, right = layer.facts["stride"]
        rows, columns = layer.facts["size"]
        for y in range(rows):
            for z in range(columns):
                yield x[
                    :,
                    y : y + (height - 1) * down + 1 : down,
                    z : z + (width - 1) * right + 1 : right,
                ]

    def readout(self, layer, x):
        return x * 2 ** layer.facts["f"] + self.constant("bias", layer)

    def current(self, layer, inputs):
        """I: the currents in units of the membrane, and the bias."""
        if "shift" in layer.facts:
            current = self.scaled_sum(layer, inputs)
        else:
            (current,), f = inputs, layer.facts["f"]
            if f >= 0:
                current = current * 2**f
            else:
                current = ops.right_shift(current + 2 ** (-f - 1), -f)
        return current + self.constant("bias", layer)

    def scaled_sum(self, layer, inputs):
        """⌊Σ A M / 2^n + 1/2⌋ in 32 bits: products with the whole part of M / 2^n, and
        with two limbs of its fraction."""
        mask = 2**_LIMB - 1
        whole, middle, low = 0, 2 ** (_LIMB - 1), 0
        for x, name, shift in zip(
            inputs, layer.sources, layer.facts["shift"], strict=True
        ):
            factors = self.network.constants[f"multiplier/{layer.name}/{name}"]
            fraction = (factors & (2**shift - 1)) << (2 * _LIMB - shift)
            whole = whole + x * _arrays.constant(factors >> shift)
            if not fraction.any():
                continue
            first = _arrays.constant(fraction >> _LIMB)
            second = _arrays.constant(fraction & mask)
            above, below = ops.right_shift(x, _LIMB), ops.bitwise_and(x, mask)
            whole = whole + above * first
            for product in (above * second, below * first):
                whole = whole + ops.right_shift(product, _LIMB)
                middle = middle + ops.bitwise_and(product, mask)
            product = below * second
            middle = middle + ops.right_shift(product, _LIMB)
            low = low + ops.bitwise_and(product, mask)
        return whole + ops.right_shift(middle + ops.right_shift(low, _LIMB), _LIMB)

    def neurons(self, layer, inputs, state):
        facts, theta = layer.facts, self.constant("theta", layer)
        bits, k = facts["membrane_bits"], facts["decay_k"]
        membrane, m = state["membrane"], np.asarray(facts["decay_m"])
        if (m != 2**k).any():
            membrane = ops.right_shift(membrane * _arrays.constant(m), k)
        membrane = membrane + self.current(layer, inputs)
        if facts.get("reset_delay"):
            membrane = self.after_reset(layer, membrane, state["spikes"], theta)
        membrane = ops.clip(membrane, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        spikes = self.spikes(membrane, theta, facts["levels"])
        if facts.get("reset_delay"):
            return spikes, {"membrane": membrane, "spikes": spikes}
        return spikes, {"membrane": self.after_reset(layer, membrane, spikes, theta)}

    def spikes(self, membrane, theta, levels):
        if levels == 0:
            return ops.cast(membrane >= theta, "int32")
        # Halves go to the even integer: to j from below if it is even.
        reached = (
            ops.cast(membrane * 2 >= theta * (2 * j - 1) + j % 2, "int32")
            for j in range(1, levels + 1)
        )
        return sum(reached)

    def after_reset(self, layer, membrane, spikes, theta):
        if not layer.facts["hard"]:
            return membrane - spikes * theta
        return ops.where(spikes > 0, _arrays.constant(layer.facts["v_reset"]), membrane)


def kernels_of(network: IntegerNetwork) -> dict[str, np.ndarray]:
    """The kernels of a network in float32, by the names of their layers."""
    weights = (
        layer.name for layer in network.layers if f"w/{layer.name}" in network.constants
    )
    return {name: network.constants[f"w/{name}"].astype("float32") for name in weights}


def bits_of_parts(layer: IntegerLayer, largest: int) -> int:
    """How many bits of an input a product may take at once."""
    sums = max(-layer.least, layer.largest) // max(largest, 1)
    return min(_BITS, ((_EXACT - 1) // max(sums, 1) + 1).bit_length() - 1)
