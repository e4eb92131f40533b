"""Argument checks: each returns the value as a plain Python type, or raises an error
that says what to do."""

import math
import numbers
import operator
import os
import stat
from collections.abc import Iterable, Sequence
from typing import Any, Literal, TypeVar

import keras
import numpy as np
from keras import ops

_Choice = TypeVar("_Choice")
_Instance = TypeVar("_Instance")


def real(
    name: str,
    value: Any,
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
    advice: str = "",
) -> float:
    """Returns `value` as a float if it is a finite real number within the bounds; else
    raises TypeError or ValueError.

    It must be both in float32, too, in which the library computes: 1e-50 is no number
    above 0 there.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise wrong_type(name, "a real number", value, advice)
    limits = zip(_SIGNS.items(), (above, at_least, below, at_most), strict=True)
    bounds = [
        (sign, holds, limit) for (sign, holds), limit in limits if limit is not None
    ]
    wanted = [f"{sign} {limit}" for sign, _, limit in bounds]
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) or not all(
        holds(value, limit) for _, holds, limit in bounds
    ):
        wanted += [] if math.isfinite(number) else ["finite"]
        raise ValueError(
            f"`{name}` must be {' and '.join(wanted)}. Received: "
            f"{name}={shown(value)}.{_also(advice)}"
        )
    held = _in_float32(number)
    if not math.isfinite(held) or not all(
        holds(held, _in_float32(limit)) for _, holds, limit in bounds
    ):
        raise ValueError(
            f"`{name}` must be {' and '.join([*wanted, 'finite'])} in float32, too. "
            f"Received: {name}={shown(value)}, which is {held} there.{_also(advice)}"
        )
    return number


_SIGNS = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}


def _in_float32(value: float) -> float:
    """A number as float32 has it. Processors may take what is smaller than the smallest
    normal number for 0."""
    with np.errstate(over="ignore", under="ignore"):
        held = np.float32(value)
    return 0.0 if abs(held) < np.finfo("float32").tiny else float(held)


def integer(
    name: str,
    value: Any,
    *,
    at_least: int | None = None,
    at_most: int | None = None,
    advice: str = "",
) -> int:
    """Returns `value` as an int if it is an integer of 64 bits within the bounds; else
    raises TypeError or ValueError."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise wrong_type(name, "an integer", value, advice)
    value = int(value)
    if not -(2**63) <= value < 2**63:
        raise ValueError(
            f"`{name}` must be an integer of 64 bits. Received: "
            f"{name}={shown(value)}.{_also(advice)}"
        )
    if (at_least is not None and value < at_least) or (
        at_most is not None and value > at_most
    ):
        bounds = (
            f"{at_least} or more"
            if at_most is None
            else f"from {at_least} to {at_most}"
        )
        raise ValueError(
            f"`{name}` must be {bounds}. Received: {name}={value}.{_also(advice)}"
        )
    return value


def positive_integer(name: str, value: Any, *, advice: str = "") -> int:
    """Returns `value` as an int if it is an integer of 1 or more; else raises TypeError
    or ValueError."""
    return integer(name, value, at_least=1, advice=advice)


def index(name: str, value: Any, count: int) -> int:
    """Returns `value` as an int if it is an index of `count` things, also from the end;
    else raises TypeError or IndexError."""
    value = integer(name, value)
    if not -count <= value < count:
        raise IndexError(
            f"`{name}` must be from {-count} to {count - 1}. Received: {name}={value}."
        )
    return value


def boolean(name: str, value: Any) -> bool:
    """Returns `value` if it is True or False; else raises TypeError."""
    if not isinstance(value, bool):
        raise wrong_type(name, "True or False", value)
    return value


def one_of(
    name: str, value: _Choice, choices: Iterable[_Choice], *, advice: str = ""
) -> _Choice:
    """Returns `value` if it is among `choices`; else raises ValueError."""
    choices = tuple(choices)
    if not is_one_of(value, choices):
        listed = ", ".join(repr(choice) for choice in choices)
        raise ValueError(
            f"`{name}` must be one of {listed}. Received: "
            f"{name}={shown(value)}.{_also(advice)}"
        )
    return value


def names(name: str, value: Any, choices: Iterable[str]) -> list[str]:
    """Returns `value` as a list of names, each of which is among `choices`; else raises
    TypeError or ValueError."""
    if not isinstance(value, (list, tuple)) or not all(
        isinstance(item, str) for item in value
    ):
        raise wrong_type(name, "a list of names", value)
    choices = list(choices)
    for item in value:
        one_of(name, item, choices)
    return list(value)


def jit_compile(value: Any) -> bool | Literal["auto"]:
    """The `jit_compile` that `compile` was given as True, False or "auto", which is
    what Keras makes of `None`."""
    if isinstance(value, bool):
        return value
    if value is None or (isinstance(value, str) and value == "auto"):
        return "auto"
    raise ValueError(
        "`jit_compile` must be True, False or 'auto'. Received: "
        f"jit_compile={shown(value)}."
    )


def is_one_of(value: Any, choices: Iterable[Any]) -> bool:
    """Whether a value is among choices that can be hashed. Other values, such as
    arrays, have no `==` of one truth value."""
    try:
        return value in frozenset(choices)
    except TypeError:
        return False


def instance(
    name: str, value: Any, kind: type[_Instance], *, advice: str = ""
) -> _Instance:
    """Returns `value` if it is an instance of `kind`; else raises TypeError."""
    if not isinstance(value, kind):
        raise wrong_type(
            name,
            f"{'an' if kind.__name__[0] in 'AEIOU' else 'a'} {kind.__name__}",
            value,
            advice,
        )
    return value


def function(name: str, value: Any, *, advice: str = "") -> Any:
    """Returns `value` if it can be called; else raises TypeError."""
    if not callable(value):
        raise wrong_type(name, "a function", value, advice)
    return value


def wrong_type(name: str, wanted: str, value: Any, advice: str = "") -> TypeError:
    """The error for an argument that is not of the type that is wanted, words such as
    `"an integer"`."""
    received = f"{name}={shown(value)} of type {type(value).__name__}"
    return TypeError(f"`{name}` must be {wanted}. Received: {received}.{_also(advice)}")


def shown(value: Any) -> str:
    """A value as text. Python writes no integers of thousands of digits."""
    if isinstance(value, int) and value.bit_length() > 64:
        return f"an integer of {value.bit_length()} bits"
    return repr(value)


def holds_numbers(tensor: Any) -> bool:
    """Whether a tensor, an array or a list holds real numbers or booleans."""
    try:
        dtype = keras.backend.standardize_dtype(
            tensor.dtype if hasattr(tensor, "dtype") else np.asarray(tensor).dtype
        )
    except ValueError:
        return False
    return dtype.startswith(("bool", "int", "uint", "float", "bfloat"))


def fits(shape: Sequence[int | None], wanted: Sequence[int | None]) -> bool:
    """Whether two shapes are equal where both are known."""
    return len(shape) == len(wanted) and all(
        a == b or None in (a, b) for a, b in zip(shape, wanted, strict=True)
    )


def tensor(name: str, value: Any) -> Any:
    """Returns `value` as a tensor if it holds real numbers; else raises TypeError."""
    if not holds_numbers(value):
        raise wrong_type(name, "a tensor or an array of numbers", value)
    return ops.convert_to_tensor(value)


def labels(name: str, value: Any, outputs: Any, of: str = "") -> None:
    """Raises ValueError if one of integer labels, an array `(batch,)` or `(batch, 1)`,
    is no class of `outputs`.

    Args:
        name: String, the name of the argument.
        value: The labels. Anything else than such an array is not checked.
        outputs: The outputs, whose last axis is that of the classes.
        of: String, what the samples are those of, as `" of the first batch"`. Defaults
            to `""`.
    """
    if (
        not isinstance(value, np.ndarray)
        or value.dtype.kind not in "iuf"
        or value.shape[1:] not in ((), (1,))
    ):
        return
    *_, classes = np.shape(outputs)
    if classes is None:
        return
    given = value.reshape(-1)
    wrong = np.flatnonzero(
        ~((given >= 0) & (given < classes) & (given == np.floor(given)))
    )
    if len(wrong):
        raise ValueError(
            f"`{name}` must be labels from 0 to {classes - 1}, the numbers of the "
            f"classes. Received: {given[wrong[0]]}, the label of sample "
            f"{wrong[0]}{of}. Leave samples without a class out."
        )


def path(name: str, value: Any) -> str:
    """Returns the string of a path; raises an error if `value` is empty, or neither a
    string nor a path as of `pathlib`."""
    text = os.fspath(value) if isinstance(value, (str, os.PathLike)) else None
    if not isinstance(text, str):
        raise wrong_type(name, "a string or a path", value)
    if not text:
        raise ValueError(
            f"`{name}` must be a path. Received: {name}='', an empty string."
        )
    return text


def file(name: str, value: Any) -> tuple[str, int]:
    """Returns the string of a path and the bytes of the file there; else raises
    TypeError, OSError, or ValueError for a pipe.

    Opening a pipe waits for somebody to write, and a device may never end. Folders are
    left to `open`, which refuses them.
    """
    text = path(name, value)
    status = os.stat(text)
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        raise ValueError(
            f"`{name}` must be the path of a file. Received: {name}={text!r}, a pipe "
            "or a device, which may never end. Write what comes out of it to a file "
            "first."
        )
    return text, status.st_size


def file_to_write(name: str, value: Any) -> str:
    """Returns the string of a path at which a file can be written; else raises
    TypeError, ValueError or OSError."""
    text = path(name, value)
    folder = os.path.dirname(text) or "."
    if not os.path.isdir(folder):
        raise FileNotFoundError(
            f"`{name}` must be a file in a folder that exists. Received: "
            f"{name}={text!r}, but there is no folder {folder!r}. Make it first."
        )
    if os.path.isdir(text):
        raise IsADirectoryError(
            f"`{name}` must be a file. Received: {name}={text!r}, which is a folder. "
            "Add a file name."
        )
    return text


def _also(advice: str) -> str:
    return f" {advice}" if advice else ""
