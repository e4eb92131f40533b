"""Time surfaces: how long ago each pixel reported its last event."""

import itertools

import numpy as np

from keras_ratesnn._core import checks
from keras_ratesnn.events.frames import checked_sensor, frame_numbers_by_time
from keras_ratesnn.events.recording import Events


def time_surfaces(events: Events, timesteps: int, tau: float, sensor_shape: tuple[int, int]) -> np.ndarray:
    """The time surfaces of a recording, at the ends of slices of equal duration.

    At the end t_e of a slice a pixel has the value exp(−(t_e − t_last) / tau) for each polarity, where t_last is the time of
    its last event of that polarity, in this slice or an earlier one; 0 if it had none.

    Example:

    >>> x, timestamp = np.array([0, 1]), np.array([0, 9])
    >>> recording = keras_ratesnn.events.Events(x, 0 * x, 0 * x + 1, timestamp)
    >>> keras_ratesnn.events.time_surfaces(recording, 2, tau=5.0, sensor_shape=(1, 2))[:, 0, :, 1].round(3)
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
        TypeError: If `events` are not `Events`, a number has the wrong type, or the shape is not a pair of integers.
        ValueError: If a number or the shape is invalid, or an event is outside the sensor.

    Source: Lagorce et al., "HOTS: A Hierarchy of Event-Based Time-Surfaces for Pattern Recognition", 2017.
    """
    timesteps = checks.positive_integer("timesteps", timesteps, advice="It is the number of slices.")
    tau = checks.real("tau", tau, above=0, advice="It is a time constant in microseconds.")
    sensor_shape = checked_sensor(events, sensor_shape)
    elapsed = (events.timestamp.astype("uint64") - events.timestamp[:1].astype("uint64")).astype("float64")
    # The recording lasts to the end of its last microsecond, as for frames.
    ends = (np.arange(timesteps) + 1) * ((elapsed[-1] + 1) / timesteps)
    starts = np.searchsorted(frame_numbers_by_time(events, timesteps), np.arange(timesteps + 1))
    latest = np.full((*sensor_shape, 2), -np.inf)
    surfaces = np.empty((timesteps, *sensor_shape, 2), "float32")
    places = tuple(values.astype("int64") for values in (events.y, events.x, events.polarity))
    for step, (first, last) in enumerate(itertools.pairwise(starts)):
        # Of several events of a pixel the last one counts.
        latest[tuple(values[first:last] for values in places)] = elapsed[first:last]
        surfaces[step] = np.exp((latest - ends[step]) / tau)
    return surfaces
