"""The windows of convolutions and pooling over an image."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_ratesnn._core.convolutions import convolved


def places_of(
    sizes: Sequence[int], window: Sequence[int], facts: dict[str, Any]
) -> tuple[int, int]:
    """How many windows there are along both axes of an image, of convolutions and
    pooling."""
    height, width = convolved(sizes[:2], window, facts["stride"], facts["pad"], (1, 1))
    return height, width


def counts_of(shape: Sequence[int], facts: dict[str, Any]) -> np.ndarray:
    """How many elements of each window of a pooling are inside the image, `(height,
    width)`."""
    inside = []
    numbers = places_of(shape, facts["size"], facts)
    along = zip(numbers, facts["size"], facts["stride"], facts["pad"], strict=True)
    for wide, (number, window, stride, pad) in zip(shape, along, strict=False):
        first = np.arange(number) * stride - pad[0]
        inside.append(np.minimum(first + window, wide) - np.maximum(first, 0))
    return np.multiply.outer(*inside)


def least_common_multiple(counts: np.ndarray) -> int:
    """The least common multiple of integers, which may be larger than 64 bits hold."""
    return math.lcm(*counts.ravel().tolist())
