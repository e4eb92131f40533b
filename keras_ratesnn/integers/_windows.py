"""The windows of convolutions and pooling over an image."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np


def windows_of(size: int, window: int, stride: int, pad: Sequence[int]) -> int:
    """How many windows there are along an axis."""
    return (size + sum(pad) - window) // stride + 1


def places_of(
    sizes: Sequence[int], window: Sequence[int], facts: dict[str, Any]
) -> tuple[int, int]:
    """How many windows there are along both axes of an image, of convolutions and
    pooling."""
    along = zip(sizes[:2], window, facts["stride"], facts["pad"], strict=True)
    height, width = (windows_of(*axis) for axis in along)
    return height, width


def counts_of(shape: Sequence[int], facts: dict[str, Any]) -> np.ndarray:
    """How many elements of each window of a pooling are inside the image, `(height,
    width)`."""
    of_axes = []
    for size, window, stride, pad in zip(
        shape, facts["size"], facts["stride"], facts["pad"], strict=False
    ):
        first = np.arange(windows_of(size, window, stride, pad)) * stride - pad[0]
        of_axes.append(np.minimum(first + window, size) - np.maximum(first, 0))
    return np.multiply.outer(*of_axes)


def least_common_multiple(counts: np.ndarray) -> int:
    """That of an array of integers, which may be larger than 64 bits hold."""
    return math.lcm(*counts.ravel().tolist())
