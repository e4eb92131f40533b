"""Flips and rolls of recordings."""

import dataclasses

from keras_ratesnn._core import checks
from keras_ratesnn.events.frames import checked_sensor
from keras_ratesnn.events.recording import Events


def flip(events: Events, sensor_shape: tuple[int, int]) -> Events:
    """A recording seen in a mirror: left and right are exchanged.

    Example:

    >>> recording = keras_ratesnn.events.Events(*np.array([[0, 5], [7, 6], [1, 0], [30, 40]]))
    >>> keras_ratesnn.events.flip(recording, sensor_shape=(8, 8)).x
    array([7, 2])

    Args:
        events: `Events`, which stay as they are.
        sensor_shape: `(height, width)` of the camera in pixels.

    Raises:
        TypeError: If `events` are not `Events`, or the shape is not a pair of integers.
        ValueError: If the shape is invalid, or an event is outside the sensor.
    """
    _, width = checked_sensor(events, sensor_shape)
    return dataclasses.replace(events, x=width - 1 - events.x.astype("int64"))


def roll(events: Events, rows: int, columns: int, sensor_shape: tuple[int, int]) -> Events:
    """A recording moved down and to the right; what leaves the sensor on one side comes back on the other.

    Example:

    >>> recording = keras_ratesnn.events.Events(*np.array([[0, 5], [7, 6], [1, 0], [30, 40]]))
    >>> rolled = keras_ratesnn.events.roll(recording, rows=1, columns=-1, sensor_shape=(8, 8))
    >>> rolled.x, rolled.y
    (array([7, 4]), array([0, 7]))

    Args:
        events: `Events`, which stay as they are.
        rows: Integer, by how many pixels down; upwards if negative.
        columns: Integer, by how many pixels to the right; to the left if negative.
        sensor_shape: `(height, width)` of the camera in pixels.

    Raises:
        TypeError: If `events` are not `Events`, a number is not an integer, or the shape is not a pair of integers.
        ValueError: If the shape is invalid, or an event is outside the sensor.
    """
    height, width = checked_sensor(events, sensor_shape)
    rows, columns = checks.integer("rows", rows) % height, checks.integer("columns", columns) % width
    return dataclasses.replace(
        events, x=(events.x.astype("int64") + columns) % width, y=(events.y.astype("int64") + rows) % height
    )
