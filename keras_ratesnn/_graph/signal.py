"""Signals between the operations of a network."""

from typing import Any


class Signal:
    """A tensor over time, for what rewrites or watches a network.

    Args:
        value: Tensor `(batch * T, ...)`, all steps; `(batch, ...)` if `static`.
        static: Boolean, whether the signal is the same at every step. Defaults to
            `False`.
    """

    __slots__ = ("__weakref__", "static", "value")

    def __init__(self, value: Any, static: bool = False) -> None:
        self.value = value
        self.static = static
