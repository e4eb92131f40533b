"""Recordings as structured arrays with the fields x, y, t and p, the form of Tonic."""

import numpy as np

from keras_ratesnn._core import checks
from keras_ratesnn.events.recording import ADVICE, Events

DTYPE = np.dtype([("x", "i2"), ("y", "i2"), ("t", "i8"), ("p", "?")])
NEEDED = ("x", "t", "p")


def from_structured(array: np.ndarray) -> Events:
    """A recording from a structured array with the fields `x`, `y`, `t` and `p`, as Tonic returns it.

    Example:

    >>> array = np.array([(3, 5, 7, True)], [("x", "i2"), ("y", "i2"), ("t", "i8"), ("p", "?")])
    >>> keras_ratesnn.events.from_structured(array).timestamp
    array([7])

    Args:
        array: Structured array of one dimension: columns, rows, times in microseconds, and polarities. Without `y`, as in
            recordings of sound, the row is 0.

    Returns:
        `Events` with copies of the fields.

    Raises:
        TypeError: If `array` is not an array, or a field does not hold integers.
        ValueError: If a field is missing, or the values are not a recording.
    """
    checks.instance("array", array, np.ndarray, advice="It is a structured array with the fields x, y, t and p.")
    names = array.dtype.names or ()
    if any(name not in names for name in NEEDED):
        raise ValueError(
            f"`array` must have the fields x, y, t and p. Received: {', '.join(names) or 'an array without fields'}."
        )
    y = array["y"].copy() if "y" in names else np.zeros(array.shape, "int16")
    return Events(array["x"].copy(), y, array["p"].copy(), array["t"].copy())


def to_structured(events: Events) -> np.ndarray:
    """A recording as a structured array with the fields `x`, `y`, `t` and `p`, as Tonic takes it.

    Example:

    >>> recording = keras_ratesnn.events.Events(*np.array([[0, 5], [7, 6], [1, 0], [30, 40]]))
    >>> keras_ratesnn.events.to_structured(recording)["t"]
    array([30, 40])

    Args:
        events: `Events`.

    Returns:
        Structured array: `x` and `y` of 16 bits, `t` of 64 bits in microseconds, `p` as booleans.

    Raises:
        TypeError: If `events` are not `Events`.
        ValueError: If a coordinate or a time does not fit.
    """
    checks.instance("events", events, Events, advice=ADVICE)
    fields = {"x": events.x, "y": events.y, "t": events.timestamp, "p": events.polarity}
    for name, values in fields.items():
        if name != "p" and int(values.max()) > np.iinfo(DTYPE[name]).max:
            raise ValueError(f"`{name}` must fit in {DTYPE[name]}. Its largest is {values.max()}.")
    array = np.empty(len(events.x), DTYPE)
    for name, values in fields.items():
        array[name] = values
    return array
