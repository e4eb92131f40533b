"""Conversion of the events of an event camera to frames.

An event camera has no frames: each pixel independently reports changes of its brightness. A network that runs for T time steps
needs T frames. Each frame counts the events of one slice of the recording, for each pixel and polarity.
"""

import numbers
from collections.abc import Iterable
from typing import Literal

import numpy as np

from keras_ratesnn._core import checks
from keras_ratesnn.events.recording import ADVICE, Events

SplitBy = Literal["count", "time"]


def frame_numbers_by_count(events, timesteps):
    """The frame of each event, from 0 to `timesteps - 1`, such that frames have equal numbers of events, up to one."""
    return np.arange(len(events.x)) * timesteps // len(events.x)


def frame_numbers_by_time(events, timesteps):
    """The frame of each event, from 0 to `timesteps - 1`, such that all frames have the same duration.

    The recording lasts from the start of the microsecond of its first event to the end of the microsecond of its last event.
    """
    # Differences of 64-bit integers are exact modulo 2**64, and all of them fit. Products with T might overflow.
    timestamps = events.timestamp.astype("uint64")
    elapsed = timestamps - timestamps[0]
    duration = int(elapsed[-1]) + 1
    starts = [-(-frame * duration // timesteps) for frame in range(1, timesteps)]
    return np.searchsorted(np.array(starts, "uint64"), elapsed, side="right")


FRAME_NUMBERS_BY = {"count": frame_numbers_by_count, "time": frame_numbers_by_time}


def checked_sensor(events, sensor_shape):
    """`(height, width)` of the sensor of a recording as ints; else raises TypeError or ValueError."""
    checks.instance("events", events, Events, advice=ADVICE)
    sensor_shape = checked_shape("sensor_shape", sensor_shape)
    for name, values, size in zip("yx", (events.y, events.x), sensor_shape, strict=True):
        if values.max() >= size:
            raise ValueError(f"`{name}` must be less than {size}, the sensor's size. Its largest is {values.max()}.")
    return sensor_shape


def count_events(events, frame_numbers, timesteps, sensor_shape):
    """Counts the events of each pixel in each frame.

    Args:
        events: `Events`.
        frame_numbers: The frame of each event.
        timesteps: The number of frames.
        sensor_shape: `(height, width)` in pixels.

    Returns:
        Integers `(timesteps, height, width, 2)`; the last axis is OFF, then ON.
    """
    shape = (timesteps, *sensor_shape, 2)
    places = (values.astype("int64") for values in (events.y, events.x, events.polarity))
    cells = np.ravel_multi_index((frame_numbers, *places), shape)
    return np.bincount(cells, minlength=np.prod(shape)).reshape(shape)


def resize(frames, frame_shape):
    """Resizes frames. The count of an old pixel is distributed to new pixels in proportion to the overlapping area.

    No event is lost, and a scene of uniform activity stays uniform. (If event positions were rounded to the new grid instead,
    from 128 to 48 pixels, some new pixels would collect 2x2 old ones and others 3x3.)

    Args:
        frames: Array `(timesteps, height, width, channels)`.
        frame_shape: The new `(height, width)`.

    Returns:
        Array of float32 `(timesteps, *frame_shape, channels)` with the same sum.
    """
    rows, columns = (_shares(old, new) for old, new in zip(frames.shape[1:3], frame_shape, strict=True))
    return np.einsum("ah,bw,thwc->tabc", rows, columns, frames.astype("float32"), optimize=True)


def _shares(old, new):
    """Matrix `(new, old)`: the fraction of each of `old` pixels that lies in each of `new` pixels of the same total length."""
    edges = np.arange(new + 1)[:, np.newaxis] * (old / new)
    pixels = np.arange(old)
    overlap = np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels)
    return np.maximum(overlap, 0).astype("float32")


def event_frames(
    events: Events, timesteps: int, split_by: SplitBy, sensor_shape: tuple[int, int], frame_shape: tuple[int, int]
) -> np.ndarray:
    """Converts a recording to the frames that a network sees.

    Args:
        events: `Events`.
        timesteps: Integer >= 1, the number of frames.
        split_by: "count" for frames with equal numbers of events, "time" for frames of equal duration.
        sensor_shape: `(height, width)` of the camera in pixels.
        frame_shape: `(height, width)` of a frame.

    Returns:
        Array of float32 `(timesteps, *frame_shape, 2)`: event counts, OFF then ON; their sum is the number of events.

    Raises:
        TypeError: If `events` are not `Events`, `timesteps` is not an integer, or a shape is not a pair of integers.
        ValueError: If `timesteps`, `split_by` or a shape is invalid, or an event is outside the sensor.

    Example:

    >>> x, y, polarity, timestamp = np.array([[0, 0, 1, 0], [3, 2, 1, 10], [3, 2, 0, 20]]).T
    >>> recording = keras_ratesnn.events.Events(x, y, polarity, timestamp)
    >>> frames = keras_ratesnn.events.event_frames(recording, 2, "time", sensor_shape=(4, 4), frame_shape=(4, 4))
    >>> frames.shape
    (2, 4, 4, 2)
    >>> frames.sum(axis=(1, 2))
    array([[0., 2.],
           [1., 0.]], dtype=float32)
    """
    sensor_shape, frame_shape = checked_sensor(events, sensor_shape), checked_shape("frame_shape", frame_shape)
    timesteps = checks.positive_integer("timesteps", timesteps, advice="It is the number of frames.")
    frame_numbers = FRAME_NUMBERS_BY[checks.one_of("split_by", split_by, FRAME_NUMBERS_BY)](events, timesteps)
    return resize(count_events(events, frame_numbers, timesteps, sensor_shape), frame_shape)


def checked_shape(name, value):
    """`(height, width)` as two ints of 1 or more; else raises TypeError or ValueError."""
    sizes = tuple(value) if isinstance(value, Iterable) else ()
    integers = bool(sizes) and all(isinstance(size, numbers.Integral) and not isinstance(size, bool) for size in sizes)
    if not integers or len(sizes) != 2 or min(sizes) < 1:
        raise (ValueError if integers else TypeError)(
            f"`{name}` must be two integers of 1 or more, (height, width) in pixels. Received: {name}={value!r}."
        )
    return tuple(checks.integer(f"{name}[{index}]", size) for index, size in enumerate(sizes))
