"""Checks of settings: each returns the value, or raises an error that names the setting
and says what to do."""

import math
import numbers
import operator


def real(name, value, *, above=None, at_least=None, below=None, advice=""):
    """The value, if it is a finite real number within these bounds."""
    _check_type(name, value, numbers.Real, "a real number", advice)
    bounds = {
        ">": (operator.gt, above),
        ">=": (operator.ge, at_least),
        "<": (operator.lt, below),
    }
    bounds = {
        sign: (compare, bound)
        for sign, (compare, bound) in bounds.items()
        if bound is not None
    }
    if not math.isfinite(value) or not all(
        compare(value, bound) for compare, bound in bounds.values()
    ):
        wanted = [f"{sign} {bound}" for sign, (_, bound) in bounds.items()]
        raise mistake(
            name,
            " and ".join(wanted + ["finite"] * (not math.isfinite(value))),
            value,
            advice,
        )
    return value


def integer(name, value, *, advice=""):
    """The value, if it is an integer."""
    return _check_type(name, value, numbers.Integral, "an integer", advice)


def positive_integer(name, value, *, advice=""):
    """The value, if it is an integer of 1 or more."""
    if integer(name, value, advice=advice) < 1:
        raise mistake(name, "1 or more", value, advice)
    return value


def boolean(name, value, *, advice=""):
    """The value, if it is True or False."""
    if not isinstance(value, bool):
        raise mistake(
            name,
            "True or False",
            value,
            f"It is of type {type(value).__name__}. {advice}",
            TypeError,
        )
    return value


def one_of(name, value, choices, *, advice=""):
    """The value, if it is one of the choices."""
    choices = tuple(choices)
    if value not in choices:
        listed = ", ".join(map(repr, choices))
        raise mistake(name, f"one of {listed}", value, advice)
    return value


def _check_type(name, value, kind, called, advice):
    if isinstance(value, bool) or not isinstance(value, kind):
        raise mistake(
            name,
            called,
            value,
            f"It is of type {type(value).__name__}. {advice}",
            TypeError,
        )
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
