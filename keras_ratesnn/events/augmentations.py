"""Augmentations of recordings: flips, rolls, and EventDrop, which leaves out some
events."""

import dataclasses

import numpy as np

from keras_ratesnn._core import checks
from keras_ratesnn.events.frames import checked_sensor, elapsed
from keras_ratesnn.events.recording import Events, part_of


def flip(events: Events, sensor_shape: tuple[int, int]) -> Events:
    """A recording seen in a mirror: left and right are exchanged.

    Example:

    >>> recording = keras_ratesnn.events.Events(
    ...     *np.array([[0, 5], [7, 6], [1, 0], [30, 40]])
    ... )
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


def roll(
    events: Events, rows: int, columns: int, sensor_shape: tuple[int, int]
) -> Events:
    """A recording moved down and to the right; what leaves the sensor on one side comes
    back on the other.

    Example:

    >>> recording = keras_ratesnn.events.Events(
    ...     *np.array([[0, 5], [7, 6], [1, 0], [30, 40]])
    ... )
    >>> rolled = keras_ratesnn.events.roll(
    ...     recording, rows=1, columns=-1, sensor_shape=(8, 8)
    ... )
    >>> rolled.x, rolled.y
    (array([7, 4]), array([0, 7]))

    Args:
        events: `Events`, which stay as they are.
        rows: Integer, by how many pixels down; upwards if negative.
        columns: Integer, by how many pixels to the right; to the left if negative.
        sensor_shape: `(height, width)` of the camera in pixels.

    Raises:
        TypeError: If `events` are not `Events`, a number is not an integer, or the
            shape is not a pair of integers.
        ValueError: If the shape is invalid, or an event is outside the sensor.
    """
    height, width = checked_sensor(events, sensor_shape)
    rows = checks.integer("rows", rows) % height
    columns = checks.integer("columns", columns) % width
    return dataclasses.replace(
        events,
        x=(events.x.astype("int64") + columns) % width,
        y=(events.y.astype("int64") + rows) % height,
    )


def event_drop(
    events: Events, generator: np.random.Generator, sensor_shape: tuple[int, int]
) -> Events:
    """EventDrop: leaves out, with equal probability, no events, those of a span of
    time, those of an area, or any.

    * By time: those of a span of k/10 of the duration, k from 1 to 9, that starts
      anywhere in it.
    * By area: those of a rectangle with k/20 of each side of the sensor, k from 1 to
      19, whose corner is anywhere.
    * At random: k/10 of the events, k from 1 to 9.

    The span may reach beyond the end of the recording, and the rectangle beyond the
    border. If no events would be left, none are left out.

    Example:

    >>> recording = keras_ratesnn.events.Events(
    ...     *np.random.default_rng(0).integers(0, 2, (3, 50)), np.arange(50)
    ... )
    >>> dropped = keras_ratesnn.events.event_drop(
    ...     recording, np.random.default_rng(0), sensor_shape=(2, 2)
    ... )
    >>> len(dropped.x) < 50
    True

    Args:
        events: `Events`, which stay as they are.
        generator: `np.random.Generator`, the only source of randomness.
        sensor_shape: `(height, width)` of the camera in pixels.

    Returns:
        `Events`.

    Raises:
        TypeError: If `events` are not `Events`, `generator` is no generator, or the
            shape is not a pair of integers.
        ValueError: If the shape is invalid, or an event is outside the sensor.

    Source: Gu et al., "EventDrop: Data Augmentation for Event-based Learning",
    IJCAI 2021.
    """
    checks.instance(
        "generator",
        generator,
        np.random.Generator,
        advice="Pass np.random.default_rng(seed).",
    )
    sensor_shape = checked_sensor(events, sensor_shape)
    ways = _all, _outside_span, _outside_area, _any
    chosen = ways[generator.integers(4)](events, generator, sensor_shape)
    if not chosen.any():
        chosen = _all(events, generator, sensor_shape)
    return part_of(events, chosen)


def _all(events, generator, sensor_shape):
    return np.ones(len(events.x), bool)


def _outside_span(events, generator, sensor_shape):
    share = generator.integers(1, 10) / 10
    times = elapsed(events).astype("float64")
    place = times / max(times[-1], 1.0)
    start = generator.random()
    return (place < start) | (place >= start + share)


def _outside_area(events, generator, sensor_shape):
    share = generator.integers(1, 20) / 20
    outside = []
    for values, size in zip((events.y, events.x), sensor_shape, strict=True):
        start = generator.random() * size
        outside.append((values < start) | (values >= start + share * size))
    # Either is enough to be outside the rectangle.
    return outside[0] | outside[1]


def _any(events, generator, sensor_shape):
    count = len(events.x)
    chosen = np.ones(count, bool)
    dropped = generator.integers(1, 10) * count // 10
    chosen[generator.choice(count, dropped, replace=False)] = False
    return chosen
