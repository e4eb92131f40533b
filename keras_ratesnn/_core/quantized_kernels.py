"""Kernels of integers times scales: one scale for each output channel, or for the whole
kernel, and no zero point.

The functions are the same for arrays of NumPy and tensors: `numbers` is `numpy` or
`keras.ops`.
"""

from typing import Any

from keras_ratesnn._core.annotations import Tensor

LARGEST = {"int8": 127, "int4": 7, "ternary": 1}
"""The largest integer weight Q. −128 and −8 are not used."""

_THRESHOLD = 0.7
"""A ternary weight is 0 up to this fraction of the mean absolute weight."""


def integers_and_scale(
    kernel: Tensor, weights: str, axis: tuple[int, ...], numbers: Any
) -> tuple[Tensor, Tensor]:
    """The integers W = clip(round(w / s), −Q, Q) of a kernel, halves to even, and the
    scales s = max |w| / Q.

    A ternary weight is the sign of w where |w| > Δ = 0.7 · mean |w|, and else 0; its
    scale is the mean of these |w|. Zeros have the scale 1.

    Args:
        kernel: Tensor, of floats.
        weights: `"int8"`, `"int4"` or `"ternary"`.
        axis: Tuple of the axes that share a scale.
        numbers: The module `numpy` or `keras.ops`.

    Returns:
        `(W, s)`, in the dtype of the kernel; s broadcasts to it.

    Source: Jacob et al., CVPR 2018; Li and Liu, "Ternary weight networks", 2016.
    """
    size = numbers.abs(kernel)
    if weights == "ternary":
        elements = numbers.sum(numbers.ones_like(size), axis=axis, keepdims=True)
        threshold = _THRESHOLD * (
            numbers.sum(size, axis=axis, keepdims=True) / elements
        )
        nonzero = numbers.maximum(numbers.sign(size - threshold), 0)
        count = numbers.sum(nonzero, axis=axis, keepdims=True)
        return numbers.sign(kernel) * nonzero, _quotient(
            numbers.sum(size * nonzero, axis=axis, keepdims=True), count, numbers
        )
    largest = LARGEST[weights]
    scale = _quotient(numbers.max(size, axis=axis, keepdims=True), largest, numbers)
    return rounded(kernel, scale, largest, numbers), scale


def rounded(kernel: Tensor, scale: Tensor, largest: int, numbers: Any) -> Tensor:
    """The integers of a kernel with these scales."""
    return numbers.clip(numbers.round(kernel / scale), -largest, largest)


def _quotient(size, divisor, numbers):
    """The quotient of a size and a divisor; 1 if the size is 0.

    The divisor is a tensor, since compilers multiply by the reciprocals of constants,
    which rounds otherwise.
    """
    one, is_positive = numbers.ones_like(size), size > 0
    return numbers.where(is_positive, size, one) / numbers.where(
        is_positive, divisor * one, one
    )
