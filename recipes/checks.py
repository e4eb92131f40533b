"""Checks of settings: each returns the value, or raises an error that names the setting and says what to do."""

import math
import numbers
import operator


def real(name, value, *, above=None, at_least=None, below=None, advice=""):
    """The value, if it is a finite real number within these bounds."""
    _check_type(name, value, numbers.Real, "a real number", advice)
    bounds = {">": (operator.gt, above), ">=": (operator.ge, at_least), "<": (operator.lt, below)}
    bounds = {sign: (compare, bound) for sign, (compare, bound) in bounds.items() if bound is not None}
    if not math.isfinite(value) or not all(compare(value, bound) for compare, bound in bounds.values()):
        wanted = [f"{sign} {bound}" for sign, (_, bound) in bounds.items()] + ([] if math.isfinite(value) else ["finite"])
        raise ValueError(f"`{name}` must be {' and '.join(wanted)}. Received: {name}={value!r}.{_also(advice)}")
    return value


def integer(name, value, *, advice=""):
    """The value, if it is an integer."""
    return _check_type(name, value, numbers.Integral, "an integer", advice)


def positive_integer(name, value, *, advice=""):
    """The value, if it is an integer of 1 or more."""
    if integer(name, value, advice=advice) < 1:
        raise ValueError(f"`{name}` must be 1 or more. Received: {name}={value}.{_also(advice)}")
    return value


def boolean(name, value):
    """The value, if it is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"`{name}` must be True or False. Received: {name}={value!r} of type {type(value).__name__}.")
    return value


def one_of(name, value, choices):
    """The value, if it is one of the choices."""
    if value not in (choices := tuple(choices)):
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, choices))}. Received: {name}={value!r}.")
    return value


def _check_type(name, value, kind, called, advice):
    if isinstance(value, bool) or not isinstance(value, kind):
        raise TypeError(f"`{name}` must be {called}. Received: {name}={value!r} of type {type(value).__name__}.{_also(advice)}")
    return value


def _also(advice):
    return f" {advice}" if advice else ""
