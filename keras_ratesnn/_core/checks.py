"""Argument checks: each returns the value as a plain Python type, or raises an error that says what to do."""

import math
import numbers
from collections.abc import Iterable
from typing import Any, Literal, TypeVar

_Choice = TypeVar("_Choice")


def real(
    name: str,
    value: Any,
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    advice: str = "",
) -> float:
    """Returns `value` as a float if it is a finite real number within the bounds; else raises TypeError or ValueError."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(
            f"`{name}` must be a real number. Received: {name}={value!r} of type {type(value).__name__}.{_also(advice)}"
        )
    bounds = []
    if above is not None:
        bounds.append((value > above, f"> {above}"))  # type: ignore[operator]  # Every numbers.Real has it.
    if at_least is not None:
        bounds.append((value >= at_least, f">= {at_least}"))  # type: ignore[operator]
    if below is not None:
        bounds.append((value < below, f"< {below}"))
    if not math.isfinite(value) or not all(holds for holds, _ in bounds):
        wanted = [text for _, text in bounds] + (["finite"] if not math.isfinite(value) else [])
        raise ValueError(f"`{name}` must be {' and '.join(wanted)}. Received: {name}={value!r}.{_also(advice)}")
    return float(value)


def integer(name: str, value: Any, *, advice: str = "") -> int:
    """Returns `value` as an int if it is an integer; else raises TypeError."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(
            f"`{name}` must be an integer. Received: {name}={value!r} of type {type(value).__name__}.{_also(advice)}"
        )
    return int(value)


def positive_integer(name: str, value: Any, *, advice: str = "") -> int:
    """Returns `value` as an int if it is an integer of 1 or more; else raises TypeError or ValueError."""
    value = integer(name, value, advice=advice)
    if value < 1:
        raise ValueError(f"`{name}` must be 1 or more. Received: {name}={value}.{_also(advice)}")
    return value


def boolean(name: str, value: Any) -> bool:
    """Returns `value` if it is True or False; else raises TypeError."""
    if not isinstance(value, bool):
        raise TypeError(f"`{name}` must be True or False. Received: {name}={value!r} of type {type(value).__name__}.")
    return value


def one_of(name: str, value: _Choice, choices: Iterable[_Choice]) -> _Choice:
    """Returns `value` if it is among `choices`; else raises ValueError."""
    choices = tuple(choices)
    if value not in choices:
        listed = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"`{name}` must be one of {listed}. Received: {name}={value!r}.")
    return value


def jit_compile(value: Any) -> bool | Literal["auto"]:
    """The `jit_compile` that `compile` was given as True, False or "auto", which is what Keras makes of `None`."""
    if isinstance(value, bool):
        return value
    if value is None or (isinstance(value, str) and value == "auto"):
        return "auto"
    raise ValueError(f"`jit_compile` must be True, False or 'auto'. Received: jit_compile={value!r}.")


def _also(advice: str) -> str:
    return f" {advice}" if advice else ""
