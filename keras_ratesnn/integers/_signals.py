"""What flows along the edges of a network while it is compiled: units, or currents."""

import dataclasses
import math
from typing import Any

import numpy as np

Padding = tuple[tuple[int, int], tuple[int, int]]
NO_PADDING: Padding = ((0, 0), (0, 0))

_FINEST = 16
"""The most parts of the smallest unit among which a common unit is looked for."""


@dataclasses.dataclass(frozen=True, eq=False)
class Units:
    """Integers U >= 0 with one real unit: the real value is unit · U + offset.

    Args:
        name: String, the layer of integers that gives them.
        shape: Tuple, channels last, without the batch.
        top: Integer, the largest value.
        unit: Float > 0.
        offset: Float. Defaults to `0.0`.
        order: Integer array: where the features of a flattened image are with channels
            last; `None` if they are in this order. Defaults to `None`.
        padding: Zeros around an image, for the next layer. Defaults to none.
        averaged: Boolean, whether it follows a mean over time. Defaults to `False`.
    """

    name: str
    shape: tuple[int, ...]
    top: int
    unit: float
    offset: float = 0.0
    order: np.ndarray | None = None
    padding: Padding = NO_PADDING
    averaged: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Term:
    """A current of integers A with a real unit for each channel.

    Args:
        name: String, the layer of integers that gives it.
        unit: Array `(channels,)`; may be negative.
        bound: Integer array `(channels,)`, the largest |A|.
        kernel: String, the layer whose kernel makes it and nothing else, so that signs
            can be changed there; or `None`.
    """

    name: str
    unit: np.ndarray
    bound: np.ndarray
    kernel: str | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Current:
    """A sum of currents, and a real bias for each channel: the real value is Σ unit ·
    A + bias.

    Args:
        terms: Tuple of `Term`.
        shape: Tuple, channels last, without the batch.
        bias: Array `(channels,)`.
        order: As in `Units`. Defaults to `None`.
        averaged: As in `Units`. Defaults to `False`.
    """

    terms: tuple[Term, ...]
    shape: tuple[int, ...]
    bias: np.ndarray
    order: np.ndarray | None = None
    averaged: bool = False

    def scaled(self, factor: Any, shift: Any) -> "Current":
        """The current times a factor, plus a shift, each a number or an array
        `(channels,)`."""
        terms = tuple(
            dataclasses.replace(term, unit=term.unit * factor) for term in self.terms
        )
        return dataclasses.replace(self, terms=terms, bias=self.bias * factor + shift)

    def shared(self) -> "Current":
        """The current, if others see it, too: its signs stay."""
        return dataclasses.replace(
            self,
            terms=tuple(dataclasses.replace(term, kernel=None) for term in self.terms),
        )


def as_current(signal: Units | Current) -> Current:
    """Units as a current."""
    if isinstance(signal, Current):
        return signal
    channels = signal.shape[-1]
    term = Term(
        signal.name, np.full(channels, signal.unit), np.full(channels, signal.top)
    )
    return Current(
        (term,),
        signal.shape,
        np.full(channels, signal.offset),
        signal.order,
        signal.averaged,
    )


def sum_of_currents(signals: list[Current]) -> Current:
    """The sum of currents of one shape. The same current counts once, with the sum of
    its units."""
    terms: dict[str, Term] = {}
    for term in (term for signal in signals for term in signal.terms):
        before = terms.get(term.name)
        terms[term.name] = (
            term
            if before is None
            else dataclasses.replace(before, unit=before.unit + term.unit)
        )
    bias = np.sum([signal.bias for signal in signals], axis=0)
    return dataclasses.replace(signals[0], terms=tuple(terms.values()), bias=bias)


def common_unit(units: list[float]) -> tuple[float, list[int]]:
    """A unit u₀ of which all units are multiples r, and these: exact if one of few
    parts is enough, else the nearest ones."""
    least = min(units)
    for parts in range(1, _FINEST + 1):
        ratios = [unit * parts / least for unit in units]
        if all(abs(ratio - round(ratio)) <= 1e-6 * ratio for ratio in ratios):
            return least / parts, [round(ratio) for ratio in ratios]
    common = min(max(units) / 255, least / _FINEST)
    return common, [round(unit / common) for unit in units]


def flattened_order(
    shape: tuple[int, ...], channels_first: bool, moves: bool
) -> np.ndarray | None:
    """Where each feature of an image is with channels last; `moves`: `Flatten` takes
    the first axis for the channels."""
    places = np.arange(math.prod(shape)).reshape(shape)
    places = np.moveaxis(places, -1, 0) if channels_first else places
    order = (np.moveaxis(places, 0, -1) if moves else places).ravel()
    return None if (order[1:] > order[:-1]).all() else order


def moved(values: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Rows of an array at the places of `flattened_order`."""
    found = np.empty_like(values)
    found[order] = values
    return found
