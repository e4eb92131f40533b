"""A recording of an event camera."""

import dataclasses
import os
from typing import Any

import numpy as np

from keras_ratesnn._core import checks

FIELDS = ("x", "y", "polarity", "timestamp")

ADVICE = (
    "Read a file with read_aedat or read_arrays, or pass arrays: Events(x, y, "
    "polarity, timestamp)."
)
"""How to get `Events`."""

LARGEST_RECORDING = 2**28
"""Uncompressed bytes of a recording. Recordings of CIFAR10-DVS have about 200,000
events of up to 32 bytes. A compressed archive can contain more than a thousand times
its own size."""


DTYPE = np.dtype([("x", "i2"), ("y", "i2"), ("t", "i8"), ("p", "?")])
"""The dtype of a structured array of events, as Tonic has it."""

NEEDED = ("x", "t", "p")
"""Fields that such an array must have."""


@dataclasses.dataclass(frozen=True, eq=False)
class Events:
    """One recording: arrays with one entry per event, in temporal order.

    Args:
        x: Integers >= 0, the column, from the left of the image.
        y: Integers >= 0, the row, from the top of the image.
        polarity: 1 (or True) if the pixel became brighter (ON), 0 if it became darker
            (OFF).
        timestamp: Non-decreasing integers, in microseconds.

    Raises:
        TypeError: If a field is not an array of integers.
        ValueError: If there are no events, the arrays differ in length, or they contain
            invalid values.
    """

    x: np.ndarray
    y: np.ndarray
    polarity: np.ndarray
    timestamp: np.ndarray

    def __post_init__(self) -> None:
        for name in FIELDS:
            if not isinstance(getattr(self, name), np.ndarray):
                raise checks.wrong_type(
                    name,
                    "an array of integers",
                    getattr(self, name),
                    "Convert it with np.asarray.",
                )
        shapes = {name: getattr(self, name).shape for name in FIELDS}
        if len(set(shapes.values())) != 1 or self.x.ndim != 1:
            raise ValueError(
                "The arrays of a recording must be of one dimension and of the same "
                f"length. Received: {shapes}."
            )
        if not len(self.x):
            raise ValueError("A recording must have events. Received: none.")
        for name in FIELDS:
            dtype = getattr(self, name).dtype
            if dtype.kind not in "biu":
                raise TypeError(
                    f"`{name}` must hold integers. Received: an array of {dtype}. "
                    f'Round it, np.rint({name}).astype("int64"). Times are in '
                    "microseconds: multiply seconds by 1e6 before."
                )
        for name, values in (("x", self.x), ("y", self.y)):
            if values.min() < 0:
                raise ValueError(
                    f"`{name}` must hold pixels from 0 on. Its smallest is "
                    f"{values.min()}."
                )
        if self.polarity.min() < 0 or self.polarity.max() > 1:
            raise ValueError(
                "`polarity` must be 0 (OFF) or 1 (ON). It goes from "
                f"{self.polarity.min()} to {self.polarity.max()}. If these are OFF and "
                f"ON, pass polarity == {self.polarity.max()}."
            )
        backwards = np.flatnonzero(self.timestamp[1:] < self.timestamp[:-1])
        if len(backwards):
            event = backwards[0] + 1
            raise ValueError(
                f"`timestamp` must not run backwards. Event {event} is at "
                f"{self.timestamp[event]}, the one before it at "
                f"{self.timestamp[event - 1]}. Sort the events by time."
            )


def read_arrays(path: str | os.PathLike[str]) -> Events:
    """Reads events from a NumPy file.

    Args:
        path: A `.npz` file of four arrays, or a `.npy` file of one structured array
            with four fields: x, y, polarity and timestamp, as in `Events`.

    Returns:
        `Events`.

    Raises:
        TypeError: If `path` is neither a string nor a path.
        OSError: If the file cannot be read.
        ValueError: If the file is damaged, has the wrong content or is too large.
    """
    wanted = (
        f"It must hold {', '.join(FIELDS)}: four arrays in a .npz file, four "
        "fields of one array in a .npy file."
    )
    path, size = checks.file("path", path)
    check_size(path, size)
    with open(path, "rb") as file:
        try:
            # Both a .npz file and a structured array are indexed by name.
            content = np.load(file, allow_pickle=False)
            if isinstance(content, np.lib.npyio.NpzFile):
                archive: Any = content.zip
                check_size(
                    path,
                    sum(
                        archive.getinfo(f"{name}.npy").file_size
                        for name in FIELDS
                        if name in content.files
                    ),
                )
            names = (
                content.files
                if isinstance(content, np.lib.npyio.NpzFile)
                else content.dtype.names or ()
            )
            missing = [name for name in FIELDS if name not in names]
            arrays = {} if missing else {name: content[name] for name in FIELDS}
        except TooLargeError:
            raise
        # A damaged file fails in zipfile, zlib or NumPy, each with different errors.
        except Exception as error:
            raise ValueError(
                f"NumPy cannot read {path} ({type(error).__name__}: {error}). {wanted}"
            ) from error
    if missing:
        held = ", ".join(names) or "an array without fields"
        raise ValueError(
            f"{path} has no {', '.join(missing)}. {wanted} It holds: {held}."
        )
    return recording_of(path, **arrays)


def from_structured(array: np.ndarray) -> Events:
    """A recording from a structured array with the fields `x`, `y`, `t` and `p`, as
    Tonic returns it.

    Example:

    >>> array = np.array(
    ...     [(3, 5, 7, True)], [("x", "i2"), ("y", "i2"), ("t", "i8"), ("p", "?")]
    ... )
    >>> keras_ratesnn.events.from_structured(array).timestamp
    array([7])

    Args:
        array: Structured array of one dimension: columns, rows, times in microseconds,
            and polarities. Without `y`, as in recordings of sound, the row is 0.

    Returns:
        `Events` with copies of the fields.

    Raises:
        TypeError: If `array` is not an array, or a field does not hold integers.
        ValueError: If a field is missing, or the values are not a recording.
    """
    checks.instance(
        "array",
        array,
        np.ndarray,
        advice="It is a structured array with the fields x, y, t and p.",
    )
    names = array.dtype.names or ()
    if any(name not in names for name in NEEDED):
        raise ValueError(
            "`array` must have the fields x, y, t and p. Received: "
            f"{', '.join(names) or 'an array without fields'}."
        )
    y = array["y"].copy() if "y" in names else np.zeros(array.shape, "int16")
    return Events(array["x"].copy(), y, array["p"].copy(), array["t"].copy())


def to_structured(events: Events) -> np.ndarray:
    """A recording as a structured array with the fields `x`, `y`, `t` and `p`, as Tonic
    takes it.

    Example:

    >>> recording = keras_ratesnn.events.Events(
    ...     *np.array([[0, 5], [7, 6], [1, 0], [30, 40]])
    ... )
    >>> keras_ratesnn.events.to_structured(recording)["t"]
    array([30, 40])

    Args:
        events: `Events`.

    Returns:
        Structured array: `x` and `y` of 16 bits, `t` of 64 bits in microseconds, `p` as
        booleans.

    Raises:
        TypeError: If `events` are not `Events`.
        ValueError: If a coordinate or a time does not fit.
    """
    checks.instance("events", events, Events, advice=ADVICE)
    fields = {"x": events.x, "y": events.y, "t": events.timestamp, "p": events.polarity}
    for name, values in fields.items():
        if name != "p" and int(values.max()) > np.iinfo(DTYPE[name]).max:
            raise ValueError(
                f"`{name}` must fit in {DTYPE[name]}. Its largest is {values.max()}."
            )
    array = np.empty(len(events.x), DTYPE)
    for name, values in fields.items():
        array[name] = values
    return array


def recording_of(
    path: str | os.PathLike[str], *arrays: np.ndarray, **named: np.ndarray
) -> Events:
    """`Events` of these arrays; what is wrong with them is an error that names the
    file."""
    try:
        return Events(*arrays, **named)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} does not hold a recording. {error}") from error


def part_of(events: Events, chosen: Any) -> Events:
    """Some events of a recording, given their numbers, a boolean array or a slice."""
    return Events(*(getattr(events, name)[chosen] for name in FIELDS))


class TooLargeError(ValueError):
    """A recording that would take too much memory."""


def check_size(path: str | os.PathLike[str], size: int) -> None:
    """Raises an error for a recording of more than `LARGEST_RECORDING` bytes, before it
    is read."""
    if size > LARGEST_RECORDING:
        raise TooLargeError(
            f"{path} must hold a recording of {LARGEST_RECORDING / 2**20:,.0f} MiB at "
            f"most. It holds {size / 2**20:,.0f} MiB, unpacked. Cut it into shorter "
            "recordings, or leave it out."
        )
