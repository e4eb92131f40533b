"""Spikes in few bytes, between a forward and a backward pass: eight in a byte, or a
byte for an integer of spikes."""

import math
from typing import NamedTuple

import numpy as np
from keras import ops

from keras_ratesnn._core import time_axis

_BITS = np.arange(8, dtype="uint8")[:, None]
"""The places of bits in a byte, one for each of eight parts of a row."""


class Packing(NamedTuple):
    """How spikes are packed.

    Args:
        shape: Tuple, that of the spikes; `None` for a size that is not known.
        dtype: String, the dtype of the spikes.
        levels: Integer, the largest of the spikes, in units of `size`.
        size: Float, the value of one spike.
    """

    shape: tuple
    dtype: str
    levels: int
    size: float

    @property
    def fits(self):
        """Whether spikes fit into bytes."""
        return self.levels < 256 and time_axis.is_float(self.dtype)

    @property
    def _features(self):
        """How many spikes a row has, if they are packed as bits: the size of a row is
        known then."""
        inner = self.shape[1:]
        return None if self.levels > 1 or None in inner else math.prod(inner)

    def packed(self, spikes):
        """The spikes as a tensor of bytes."""
        if self.size != 1.0:
            spikes = ops.round(spikes / self.size)
        counts = ops.cast(spikes, "uint8")
        features = self._features
        if features is None:
            return counts
        # Whole parts of a row, and not its neighbours, share bytes: what is in one part
        # is contiguous, and the rows of a batch may be on several devices.
        rows = ops.reshape(counts, (-1, features))
        rows = ops.pad(rows, [[0, 0], [0, -features % 8]])
        parts = ops.split(rows, 8, axis=1)
        return sum(part * (1 << bit) for bit, part in enumerate(parts))

    def unpacked(self, counts):
        """The spikes again."""
        features = self._features
        if features is not None:
            # On CPUs PyTorch compares bytes ten times as slowly as it shifts them; with
            # an integer of Python the results would not be bytes on TensorFlow.
            shifted = ops.right_shift(counts[:, None], _BITS)
            parts = ops.bitwise_and(shifted, np.uint8(1))
            rows = ops.reshape(parts, (-1, 8 * counts.shape[1]))[:, :features]
            counts = ops.reshape(rows, (-1, *self.shape[1:]))
        if self.size == 1.0:
            return ops.cast(counts, self.dtype)
        # Divided by an integer, as cells do, not multiplied by a rounded fraction.
        wide = ops.cast(counts, time_axis.accumulation_dtype(self.dtype))
        return time_axis.cast(wide / (1.0 / self.size), self.dtype)
