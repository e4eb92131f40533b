"""Voxel grids: events distributed to bins of time, linearly between the two nearest, as signed numbers."""

import numpy as np

from keras_ratesnn._core import checks
from keras_ratesnn.events.frames import checked_sensor
from keras_ratesnn.events.recording import Events


def voxel_grid(events: Events, bins: int, sensor_shape: tuple[int, int]) -> np.ndarray:
    """The voxel grid of a recording: events with their sign, distributed to bins of time.

    With the scaled time t* = (bins − 1) (t − t_first) / (t_last − t_first) and its fraction f, an event adds p (1 − f) to bin
    ⌊t*⌋ and p f to the next, where p is 1 for ON and −1 for OFF. So the sum of the grid is that of the signs. (Tonic scales by
    `bins`, drops the last event and loses a part of those in the last bin.) If all events are of one moment, they are in the
    first bin.

    Example:

    >>> x, polarity, timestamp = np.array([0, 0, 1]), np.array([1, 1, 0]), np.array([0, 5, 10])
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
        TypeError: If `events` are not `Events`, `bins` is not an integer, or the shape is not a pair of integers.
        ValueError: If `bins` or the shape is invalid, or an event is outside the sensor.

    Source: Zhu et al., "Unsupervised Event-based Learning of Optical Flow, Depth, and Egomotion", CVPR 2019.
    """
    bins = checks.positive_integer("bins", bins, advice="It is the number of bins of time.")
    height, width = checked_sensor(events, sensor_shape)
    # Differences of 64-bit integers are exact modulo 2**64.
    elapsed = events.timestamp.astype("uint64") - events.timestamp[:1].astype("uint64")
    scaled = (bins - 1) * (elapsed / max(int(elapsed[-1]), 1))
    lower = np.floor(scaled).astype("int64")
    fraction = scaled - lower
    sign = np.where(events.polarity, 1.0, -1.0)
    pixels = events.y.astype("int64") * width + events.x.astype("int64")
    # One more bin, which stays zero: the last event has no fraction.
    cells = np.concatenate([lower, lower + 1]) * height * width + np.concatenate([pixels, pixels])
    weights = np.concatenate([sign * (1 - fraction), sign * fraction])
    grid = np.bincount(cells, weights, minlength=(bins + 1) * height * width)
    return grid.reshape(bins + 1, height, width)[:bins].astype("float32")
