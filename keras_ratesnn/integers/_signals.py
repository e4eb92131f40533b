"""The outputs of the nodes of a network as integers: units, or currents."""

import dataclasses
from typing import Any

import numpy as np

_FINEST = 16
"""The most parts of the smallest unit among which a common unit is looked for."""


@dataclasses.dataclass(frozen=True, eq=False)
class Units:
    """Integers U >= 0 with one real unit: the real value is unit · U + offset.

    Args:
        name: String, the layer of integers that gives them.
        top: Integer, the largest value.
        unit: Float > 0.
        offset: Float. Defaults to `0.0`.
        averaged: Boolean, whether it follows a mean over time. Defaults to `False`.
    """

    name: str
    top: int
    unit: float
    offset: float = 0.0
    averaged: bool = False

    def scaled(self, scale: float, offset: float) -> "Units":
        return dataclasses.replace(
            self, unit=self.unit * scale, offset=float(self.offset * scale + offset)
        )

    def as_current(self, channels: int) -> "Current":
        term = Term(
            self.name, np.full(channels, self.unit), np.full(channels, self.top)
        )
        return Current((term,), np.full(channels, self.offset), self.averaged)


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
        bias: Array `(channels,)`.
        averaged: As in `Units`. Defaults to `False`.
    """

    terms: tuple[Term, ...]
    bias: np.ndarray
    averaged: bool = False

    def scaled(self, factor: Any, shift: Any) -> "Current":
        """The current times a factor, plus a shift, each a number or an array
        `(channels,)`."""
        terms = tuple(
            dataclasses.replace(term, unit=term.unit * factor) for term in self.terms
        )
        return dataclasses.replace(self, terms=terms, bias=self.bias * factor + shift)

    def shared(self) -> "Current":
        """The current for several consumers: its signs can no longer be changed."""
        return dataclasses.replace(
            self,
            terms=tuple(dataclasses.replace(term, kernel=None) for term in self.terms),
        )

    def as_current(self, channels: int) -> "Current":
        return self


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
