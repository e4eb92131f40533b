"""Signals between the operations of a network."""

import dataclasses
from typing import Any


@dataclasses.dataclass(slots=True, weakref_slot=True, eq=False)
class Signal:
    """A tensor over time, for what rewrites or watches a network.

    Args:
        value: Tensor `(batch * T, ...)`, all steps; `(batch, ...)` if `static`.
        static: Boolean, whether the signal is the same at every step. Defaults to
            `False`.
    """

    value: Any
    static: bool = False
