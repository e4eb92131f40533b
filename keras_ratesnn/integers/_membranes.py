"""The units of membranes: from the units of currents to a shift and integer thresholds.

A membrane of the unit m holds the integer V = v / m. With currents of the unit a it is
m = a / 2^f, so that the current needs only a shift.
"""

import dataclasses
import math

import numpy as np

HEADROOM = 3
"""Bits between the largest threshold, times the levels, and the largest membrane."""

LEAST_BITS, MOST_BITS = 8, 24
LARGEST_CURRENT = 2**30
SMALLEST_THRESHOLD = 8
"""Rounding a smaller one would change it by more than 1/16."""

_FARTHEST = 8.0
"""A channel whose threshold is so many times the median's does not take part in the
choice of the shift."""

LARGEST_SHIFT = 30

_FAR = 2**40
"""More than any constant may be."""


@dataclasses.dataclass(frozen=True, eq=False)
class MembraneConstants:
    """The constants of a layer of neurons.

    Args:
        f: Integer, the shift of the current.
        unit: Array `(channels,)`, m.
        theta: Array `(channels,)`, integers, the thresholds.
        bias: Likewise.
        v0: Likewise, the membranes before the first step.
        v_reset: Likewise, the membranes after a hard reset.
        silent: Boolean array `(channels,)`, the channels that their bias alone drives.
    """

    f: int
    unit: np.ndarray
    theta: np.ndarray
    bias: np.ndarray
    v0: np.ndarray
    v_reset: np.ndarray
    silent: np.ndarray


def choose(
    unit: np.ndarray,
    bias: np.ndarray,
    bound: np.ndarray,
    theta: float,
    v0: float,
    v_reset: float,
    levels: int,
    bits: int,
) -> MembraneConstants | int:
    """The constants of a layer of neurons with the finest unit of its membranes that is
    possible.

    Args:
        unit: Array `(channels,)`, a >= 0 of the current.
        bias: Array `(channels,)`, β, real.
        bound: Array `(channels,)`, the largest absolute value of the integer current.
        theta: Float, the threshold.
        v0: Float, the membrane before the first step.
        v_reset: Float, the membrane after a hard reset.
        levels: Integer D.
        bits: Integer, the number of bits of a membrane.

    Returns:
        `MembraneConstants`, or how many bits these would need: more than `MOST_BITS` if
        none are enough.
    """
    limit = 2 ** (bits - 1 - HEADROOM) // max(1, levels)
    farthest = max(abs(v0), abs(v_reset))
    if farthest * limit >= theta * (2 ** (bits - 1) - 1):
        # Membranes hold `v0` and `v_reset`, too.
        limit = max(1, int((2 ** (bits - 1) - 1) * theta / farthest))
    fine = np.divide(theta, unit, out=np.full(unit.shape, np.inf), where=unit > 0)
    # The unit of a current that is always 0 means nothing.
    fine = np.where(bound > 0, fine, np.inf)
    taking_part = fine[np.isfinite(fine)]
    far = (
        ~(fine <= _FARTHEST * np.median(taking_part))
        if taking_part.size
        else np.ones(unit.shape, bool)
    )

    def constants(f):
        # Channels that did not take part in the choice keep their currents where their
        # thresholds fit nevertheless.
        silent = far & (fine * 2.0**f > limit)
        per_unit = np.where(silent, limit / theta, fine / theta * 2.0**f)

        def whole(value):
            return np.clip(np.rint(value * per_unit), -_FAR, _FAR).astype("int64")

        return MembraneConstants(
            f,
            1.0 / per_unit,
            whole(theta),
            whole(bias),
            whole(v0),
            whole(v_reset),
            silent,
        )

    for f in range(LARGEST_SHIFT, -31, -1):
        chosen = constants(f)
        largest = np.where(chosen.silent, 0, bound) * 2.0**f + np.abs(chosen.bias)
        if chosen.theta.max() <= limit and largest.max() < LARGEST_CURRENT:
            break
    least = chosen.theta.min()
    if least >= SMALLEST_THRESHOLD:
        return chosen
    # Thresholds are twice as large for each bit, unless large currents are the limit.
    more = math.ceil(math.log2(SMALLEST_THRESHOLD / max(least, 0.5)))
    return bits + more if largest.max() * 2**more < LARGEST_CURRENT else MOST_BITS + 1


def multipliers(
    units: list[np.ndarray], bounds: list[np.ndarray], membranes: MembraneConstants
) -> tuple[list[np.ndarray], list[int]] | None:
    """The multipliers M of several currents, integers `(channels,)` each, and their
    shifts n; `None` if there are none.

    The current of neurons is I = ⌊Σ A M / 2^n + 1/2⌋. A shift is the smallest one with
    which rounding all M changes no sum by more than half a unit of the membrane. So a
    sum is off by at most one unit, with the rounding to whole ones.

    Args:
        units: List of arrays `(channels,)`, a of each current, which may be negative.
        bounds: List of arrays `(channels,)`, the largest absolute values of the integer
            currents.
        membranes: `MembraneConstants`.
    """
    all_factors: list[np.ndarray] = []
    shifts: list[int] = []
    for unit, bound in zip(units, bounds, strict=True):
        ratio = np.where(membranes.silent | (bound == 0), 0.0, unit / membranes.unit)
        for n in range(LARGEST_SHIFT + 1):
            factors = np.rint(ratio * 2.0**n)
            if (
                np.abs(factors - ratio * 2.0**n) * bound * len(units) <= 2.0 ** (n - 1)
            ).all():
                break
        else:
            return None
        all_factors.append(factors.astype("int64"))
        shifts.append(n)
    return all_factors, shifts
