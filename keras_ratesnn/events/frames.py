"""Conversion of the events of an event camera to frames: counts, voxel grids and time
surfaces.

An event camera has no frames: each pixel independently reports changes of its
brightness. A network that runs for T time steps needs T frames. Each frame counts the
events of one slice of the recording, for each pixel and polarity.
"""

import numbers
from collections.abc import Iterable
from typing import Literal

import numpy as np

from keras_ratesnn._core import checks
from keras_ratesnn.events.recording import ADVICE, Events

SplitBy = Literal["count", "time"]


def frame_numbers_by_count(events, timesteps):
    """The frame of each event, from 0 to `timesteps - 1`, such that frames have equal
    numbers of events, up to one."""
    return np.arange(len(events.x)) * timesteps // len(events.x)


def frame_numbers_by_time(events, timesteps):
    """The frame of each event, from 0 to `timesteps - 1`, such that all frames have the
    same duration.

    The recording lasts from the start of the microsecond of its first event to the end
    of the microsecond of its last event.
    """
    times = elapsed(events)
    # Products with T might overflow in 64 bits.
    duration = int(times[-1]) + 1
    starts = [-(-frame * duration // timesteps) for frame in range(1, timesteps)]
    return np.searchsorted(np.array(starts, "uint64"), times, side="right")


def elapsed(events):
    """The time of each event since the first one, unsigned integers."""
    # Differences of 64-bit integers are exact modulo 2**64, and all of them fit.
    return events.timestamp.astype("uint64") - events.timestamp[:1].astype("uint64")


FRAME_NUMBERS_BY = {"count": frame_numbers_by_count, "time": frame_numbers_by_time}


def checked_sensor(events, sensor_shape):
    """`(height, width)` of the sensor of a recording as ints; else raises TypeError or
    ValueError."""
    checks.instance("events", events, Events, advice=ADVICE)
    sensor_shape = checked_shape("sensor_shape", sensor_shape)
    for name, values, size in zip(
        "yx", (events.y, events.x), sensor_shape, strict=True
    ):
        if values.max() >= size:
            raise ValueError(
                f"`{name}` must be less than {size}, the sensor's size. Its largest is "
                f"{values.max()}."
            )
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
    cells = np.ravel_multi_index((frame_numbers, *_pixels(events)), shape)
    return np.bincount(cells, minlength=np.prod(shape)).reshape(shape)


def _pixels(events):
    """The row, column and polarity of each event."""
    fields = events.y, events.x, events.polarity
    return tuple(values.astype("int64") for values in fields)


def resize(frames, frame_shape):
    """Resizes frames. The count of an old pixel is distributed to new pixels in
    proportion to the overlapping area.

    No event is lost, and a scene of uniform activity stays uniform. (If event positions
    were rounded to the new grid instead, from 128 to 48 pixels, some new pixels would
    collect 2x2 old ones and others 3x3.)

    Args:
        frames: Array `(timesteps, height, width, channels)`.
        frame_shape: The new `(height, width)`.

    Returns:
        Array of float32 `(timesteps, *frame_shape, channels)` with the same sum.
    """
    _, height, width, _ = frames.shape
    rows, columns = _shares(height, frame_shape[0]), _shares(width, frame_shape[1])
    return np.einsum(
        "ah,bw,thwc->tabc", rows, columns, frames.astype("float32"), optimize=True
    )


def _shares(old, new):
    """Matrix `(new, old)`: the fraction of each of `old` pixels that lies in each of
    `new` pixels of the same total length."""
    edges = np.arange(new + 1)[:, np.newaxis] * (old / new)
    pixels = np.arange(old)
    overlap = np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels)
    return np.maximum(overlap, 0).astype("float32")


def event_frames(
    events: Events,
    timesteps: int,
    split_by: SplitBy,
    sensor_shape: tuple[int, int],
    frame_shape: tuple[int, int],
) -> np.ndarray:
    """Converts a recording to the frames that a network sees.

    Args:
        events: `Events`.
        timesteps: Integer >= 1, the number of frames.
        split_by: "count" for frames with equal numbers of events, "time" for frames of
            equal duration.
        sensor_shape: `(height, width)` of the camera in pixels.
        frame_shape: `(height, width)` of a frame.

    Returns:
        Array of float32 `(timesteps, *frame_shape, 2)`: event counts, OFF then ON;
        their sum is the number of events.

    Raises:
        TypeError: If `events` are not `Events`, `timesteps` is not an integer, or a
            shape is not a pair of integers.
        ValueError: If `timesteps`, `split_by` or a shape is invalid, or an event is
            outside the sensor.

    Example:

    >>> x, y, polarity, timestamp = np.array(
    ...     [[0, 0, 1, 0], [3, 2, 1, 10], [3, 2, 0, 20]]
    ... ).T
    >>> recording = keras_ratesnn.events.Events(x, y, polarity, timestamp)
    >>> frames = keras_ratesnn.events.event_frames(
    ...     recording, 2, "time", sensor_shape=(4, 4), frame_shape=(4, 4)
    ... )
    >>> frames.shape
    (2, 4, 4, 2)
    >>> frames.sum(axis=(1, 2))
    array([[0., 2.],
           [1., 0.]], dtype=float32)
    """
    sensor_shape = checked_sensor(events, sensor_shape)
    frame_shape = checked_shape("frame_shape", frame_shape)
    timesteps = checks.positive_integer(
        "timesteps", timesteps, advice="It is the number of frames."
    )
    checks.one_of("split_by", split_by, FRAME_NUMBERS_BY)
    frame_numbers = FRAME_NUMBERS_BY[split_by](events, timesteps)
    counts = count_events(events, frame_numbers, timesteps, sensor_shape)
    return resize(counts, frame_shape)


def checked_shape(name, value):
    """`(height, width)` as two ints of 1 or more; else raises TypeError or
    ValueError."""
    sizes = tuple(value) if isinstance(value, Iterable) else ()
    integers = bool(sizes) and all(
        isinstance(size, numbers.Integral) and not isinstance(size, bool)
        for size in sizes
    )
    if not integers or len(sizes) != 2 or min(sizes) < 1:
        raise (ValueError if integers else TypeError)(
            f"`{name}` must be two integers of 1 or more, (height, width) in pixels. "
            f"Received: {name}={value!r}."
        )
    return tuple(
        checks.integer(f"{name}[{index}]", size) for index, size in enumerate(sizes)
    )


def binned_frames(
    events: Events,
    timesteps: int,
    duration: int,
    sensor_shape: tuple[int, int],
    frame_shape: tuple[int, int],
) -> np.ndarray:
    """Converts a recording to frames of a fixed duration, from time 0 on.

    Frames after the end of the recording are zero; events after the last frame are left
    out. `event_frames` instead divides each recording as a whole.

    Example, 700 channels of sound summed to 140 in steps of 10 milliseconds:

    >>> channels, zeros = np.array([0, 4, 699]), np.zeros(3, int)
    >>> recording = keras_ratesnn.events.Events(
    ...     channels, zeros, zeros + 1, np.array([0, 9_999, 10_000])
    ... )
    >>> frames = keras_ratesnn.events.binned_frames(
    ...     recording, 100, 10_000, sensor_shape=(1, 700), frame_shape=(1, 140)
    ... )
    >>> frames.shape, frames[0, 0, 0, 1], frames[1, 0, 139, 1]
    ((100, 1, 140, 2), np.float32(2.0), np.float32(1.0))

    Args:
        events: `Events`, with times of 0 or more.
        timesteps: Integer >= 1, the number of frames.
        duration: Integer >= 1, that of a frame in microseconds.
        sensor_shape: `(height, width)` of the sensor.
        frame_shape: `(height, width)` of a frame.

    Returns:
        Array of float32 `(timesteps, *frame_shape, 2)`: event counts, OFF then ON.

    Raises:
        TypeError: If `events` are not `Events`, a number is not an integer, or a shape
            is not a pair of integers.
        ValueError: If a number or a shape is out of range, a time is negative, or an
            event is outside the sensor.
    """
    timesteps = checks.positive_integer(
        "timesteps", timesteps, advice="It is the number of frames."
    )
    duration = checks.positive_integer(
        "duration", duration, advice="It is that of a frame in microseconds."
    )
    sensor_shape = checked_sensor(events, sensor_shape)
    frame_shape = checked_shape("frame_shape", frame_shape)
    if events.timestamp[0] < 0:
        raise ValueError(
            f"`timestamp` must be 0 or more. Its smallest is {events.timestamp[0]}. "
            "Subtract it."
        )
    # Narrow integers may not hold the duration.
    bins = events.timestamp.astype("uint64") // duration
    # The events are in temporal order. One more frame takes the rest.
    frame_numbers = np.minimum(bins, timesteps).astype("int64")
    counts = count_events(events, frame_numbers, timesteps + 1, sensor_shape)
    return resize(counts[:timesteps], frame_shape)


def voxel_grid(events: Events, bins: int, sensor_shape: tuple[int, int]) -> np.ndarray:
    """The voxel grid of a recording: events with their sign, distributed to bins of
    time.

    With the scaled time t* = (bins − 1) (t − t_first) / (t_last − t_first) and its
    fraction f, an event adds p (1 − f) to bin ⌊t*⌋ and p f to the next, where p is 1
    for ON and −1 for OFF. So the sum of the grid is that of the signs. (Tonic scales by
    `bins`, drops the last event and loses a part of those in the last bin.) If all
    events are of one moment, they are in the first bin.

    Example:

    >>> x, polarity, timestamp = (
    ...     np.array([0, 0, 1]),
    ...     np.array([1, 1, 0]),
    ...     np.array([0, 5, 10]),
    ... )
    >>> recording = keras_ratesnn.events.Events(x, 0 * x, polarity, timestamp)
    >>> keras_ratesnn.events.voxel_grid(recording, 2, sensor_shape=(1, 2))[:, 0]
    array([[ 1.5,  0. ],
           [ 0.5, -1. ]], dtype=float32)

    Args:
        events: `Events`.
        bins: Integer >= 1, the number of bins.
        sensor_shape: `(height, width)` of the camera in pixels.

    Returns:
        Array of float32 `(bins, height, width)`.

    Raises:
        TypeError: If `events` are not `Events`, `bins` is not an integer, or the shape
            is not a pair of integers.
        ValueError: If `bins` or the shape is invalid, or an event is outside the
            sensor.

    Source: Zhu et al., "Unsupervised Event-based Learning of Optical Flow, Depth, and
    Egomotion", CVPR 2019.
    """
    bins = checks.positive_integer(
        "bins", bins, advice="It is the number of bins of time."
    )
    height, width = checked_sensor(events, sensor_shape)
    times = elapsed(events)
    scaled = (bins - 1) * (times / max(int(times[-1]), 1))
    lower = np.floor(scaled).astype("int64")
    fraction = scaled - lower
    rows, columns, polarities = _pixels(events)
    sign, pixels = 2.0 * polarities - 1.0, rows * width + columns
    # One more bin, which stays zero: the last event has no fraction.
    cells = np.concatenate([lower, lower + 1]) * height * width + np.concatenate(
        [pixels, pixels]
    )
    weights = np.concatenate([sign * (1 - fraction), sign * fraction])
    grid = np.bincount(cells, weights, minlength=(bins + 1) * height * width)
    return grid.reshape(bins + 1, height, width)[:bins].astype("float32")


def time_surfaces(
    events: Events, timesteps: int, tau: float, sensor_shape: tuple[int, int]
) -> np.ndarray:
    """The time surfaces of a recording, at the ends of slices of equal duration.

    At the end t_e of a slice a pixel has the value exp(−(t_e − t_last) / tau) for each
    polarity, where t_last is the time of its last event of that polarity, in this slice
    or an earlier one; 0 if it had none.

    Example:

    >>> x, timestamp = np.array([0, 1]), np.array([0, 9])
    >>> recording = keras_ratesnn.events.Events(x, 0 * x, 0 * x + 1, timestamp)
    >>> keras_ratesnn.events.time_surfaces(recording, 2, tau=5.0, sensor_shape=(1, 2))[
    ...     :, 0, :, 1
    ... ].round(3)
    array([[0.368, 0.   ],
           [0.135, 0.819]], dtype=float32)

    Args:
        events: `Events`.
        timesteps: Integer >= 1, the number of slices.
        tau: Float > 0, the time constant in microseconds.
        sensor_shape: `(height, width)` of the camera in pixels.

    Returns:
        Array of float32 `(timesteps, height, width, 2)`, OFF then ON.

    Raises:
        TypeError: If `events` are not `Events`, a number has the wrong type, or the
            shape is not a pair of integers.
        ValueError: If a number or the shape is invalid, or an event is outside the
            sensor.

    Source: Lagorce et al., "HOTS: A Hierarchy of Event-Based Time-Surfaces for Pattern
    Recognition", 2017.
    """
    timesteps = checks.positive_integer(
        "timesteps", timesteps, advice="It is the number of slices."
    )
    tau = checks.real(
        "tau", tau, above=0, advice="It is a time constant in microseconds."
    )
    sensor_shape = checked_sensor(events, sensor_shape)
    times = elapsed(events).astype("float64")
    # The recording lasts to the end of its last microsecond, as for frames.
    ends = (np.arange(timesteps) + 1) * ((times[-1] + 1) / timesteps)
    frame_numbers = frame_numbers_by_time(events, timesteps)
    starts = np.searchsorted(frame_numbers, np.arange(timesteps + 1))
    latest = np.full((*sensor_shape, 2), -np.inf)
    surfaces = np.empty((timesteps, *sensor_shape, 2), "float32")
    rows, columns, polarities = _pixels(events)
    for step in range(timesteps):
        part = slice(starts[step], starts[step + 1])
        # Of several events of a pixel the last one counts.
        latest[rows[part], columns[part], polarities[part]] = times[part]
        surfaces[step] = np.exp((latest - ends[step]) / tau)
    return surfaces
