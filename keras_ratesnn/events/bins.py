"""Frames of a fixed duration: the same time is the same step in every recording, as sound needs it."""

import numpy as np

from keras_ratesnn._core import checks
from keras_ratesnn.events.frames import checked_sensor, checked_shape, count_events, resize
from keras_ratesnn.events.recording import Events


def binned_frames(
    events: Events, timesteps: int, duration: int, sensor_shape: tuple[int, int], frame_shape: tuple[int, int]
) -> np.ndarray:
    """Converts a recording to frames of a fixed duration, from time 0 on.

    Frames after the end of the recording are zero; events after the last frame are left out. `event_frames` instead divides
    each recording as a whole.

    Example, 700 channels of sound summed to 140 in steps of 10 milliseconds:

    >>> channels, zeros = np.array([0, 4, 699]), np.zeros(3, int)
    >>> recording = keras_ratesnn.events.Events(channels, zeros, zeros + 1, np.array([0, 9_999, 10_000]))
    >>> frames = keras_ratesnn.events.binned_frames(recording, 100, 10_000, sensor_shape=(1, 700), frame_shape=(1, 140))
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
        TypeError: If `events` are not `Events`, a number is not an integer, or a shape is not a pair of integers.
        ValueError: If a number or a shape is out of range, a time is negative, or an event is outside the sensor.
    """
    timesteps = checks.positive_integer("timesteps", timesteps, advice="It is the number of frames.")
    duration = checks.positive_integer("duration", duration, advice="It is that of a frame in microseconds.")
    sensor_shape, frame_shape = checked_sensor(events, sensor_shape), checked_shape("frame_shape", frame_shape)
    if events.timestamp[0] < 0:
        raise ValueError(f"`timestamp` must be 0 or more. Its smallest is {events.timestamp[0]}. Subtract it.")
    # Narrow integers may not hold the duration.
    bins = events.timestamp.astype("uint64") // duration
    # The events are in temporal order. One more frame takes the rest.
    frame_numbers = np.minimum(bins, timesteps).astype("int64")
    return resize(count_events(events, frame_numbers, timesteps + 1, sensor_shape)[:timesteps], frame_shape)
