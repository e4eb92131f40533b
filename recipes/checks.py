"""Checks of settings: each returns the value, or raises an error that names the setting
and says what to do."""

import functools
import math
import numbers


def real(name, value, *, above=None, at_least=None, below=None, advice=""):
    """The value, if it is a finite real number within these bounds."""
    _check_type(name, value, numbers.Real, "a real number", advice)
    wanted = {
        f"> {above}": above is None or value > above,
        f">= {at_least}": at_least is None or value >= at_least,
        f"< {below}": below is None or value < below,
        "finite": math.isfinite(value),
    }
    missed = [bound for bound, holds in wanted.items() if not holds]
    if missed:
        raise mistake(name, " and ".join(missed), value, advice)
    return value


def integer(name, value, *, at_least=None, at_most=math.inf, advice=""):
    """The value, if it is an integer within these bounds."""
    _check_type(name, value, numbers.Integral, "an integer", advice)
    if at_least is not None and not at_least <= value <= at_most:
        must = f"{at_least} or more"
        if at_most < math.inf:
            must = f"from {at_least} to {at_most}"
        raise mistake(name, must, value, advice)
    return value


positive_integer = functools.partial(integer, at_least=1)
"""The value, if it is an integer of 1 or more."""


def boolean(name, value, *, advice=""):
    """The value, if it is True or False."""
    return _check_type(name, value, bool, "True or False", advice)


def one_of(name, value, choices, *, advice=""):
    """The value, if it is one of the choices."""
    choices = tuple(choices)
    if value not in choices:
        listed = ", ".join(map(repr, choices))
        raise mistake(name, f"one of {listed}", value, advice)
    return value


def _check_type(name, value, kind, called, advice):
    is_other_boolean = isinstance(value, bool) and kind is not bool
    if is_other_boolean or not isinstance(value, kind):
        remedy = f"It is of type {type(value).__name__}. {advice}"
        raise mistake(name, called, value, remedy, TypeError)
    return value


def mistake(name, must, received, remedy="", kind=ValueError):
    """An exception.

    Args:
        name: String, the name of the setting.
        must: String, what it must be.
        received: Its value.
        remedy: String, what to do, a sentence. Defaults to nothing.
        kind: Class of the exception. Defaults to `ValueError`.
    """
    return kind(
        f"`{name}` must be {must}. Received: {name}={received!r}. {remedy}".rstrip()
    )


def both_set(**values):
    """A ValueError for two settings of which one at the most can be set."""
    names = " and ".join(f"`{name}`" for name in values)
    received = ", ".join(f"{name}={value}" for name, value in values.items())
    return ValueError(
        f"{names} cannot both be set. Received: {received}. Leave one of the two out."
    )
