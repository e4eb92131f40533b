"""Made recordings of an event camera: an image moves in front of it, as in the
recordings of N-MNIST and CIFAR10-DVS.

The image is enlarged and moves along a triangle, three saccades of equal duration. Each
pixel of the camera remembers the log of the brightness at its last event. Whenever the
present log differs from it by the contrast threshold C, the pixel emits an event, ON if
it has become brighter, OFF if darker, and remembers the brightness at that event:

    emit an event of polarity p = ±1 and L_ref ← L_ref + p C
            while p (log(I + ε) − L_ref) >= C

Between two positions the log is taken as linear in time, which gives each event its
time. Real cameras also have noise, dead time, and thresholds that differ from pixel to
pixel; of these only the last is modelled: thresholds are drawn for each recording. So
this is made data, for which no published accuracy exists.
"""

import itertools

import numpy as np

from keras_ratesnn.events import Events
from keras_ratesnn.events.aedat import SENSOR_SHAPE

CORNERS = ((0.0, 0.0), (0.5, 1.0), (1.0, 0.0), (0.0, 0.0))
"""The path of an image, as fractions of its length: a triangle, as for N-MNIST (Orchard
et al., 2015)."""

MICROSECONDS = 100_000
"""The duration of a saccade, as for N-MNIST."""

DARKEST = 0.1
"""The brightness of a black pixel, of which a white one has 1 more: a screen in a
room."""


ENLARGEMENT = 3
"""The width of a pixel of the image on the camera."""

PATH_LENGTH = 6.0
"""The width and height of the path, in pixels of the camera."""

THRESHOLD, DEVIATION = 0.4, 0.03
"""The contrast threshold C, and its standard deviation."""

STEPS = 24
"""The number of positions of the image in each saccade."""


def record(image, generator):
    """A recording of an image that moves in front of an event camera of 128x128 pixels.

    Args:
        image: Array of unsigned 8-bit integers `(height, width)`, at most 40 each; not
            without contrast.
        generator: `numpy.random.Generator`, for the place of the image and the
            thresholds of the pixels.

    Returns:
        `Events`.
    """
    large = np.kron(image / 255.0, np.ones((ENLARGEMENT, ENLARGEMENT)))
    room = np.array(SENSOR_SHAPE) - large.shape - int(PATH_LENGTH) - 1
    corner = generator.integers(0, room + 1)
    thresholds = np.maximum(
        generator.normal(THRESHOLD, DEVIATION, SENSOR_SHAPE), THRESHOLD / 4
    )
    before = _logarithm(large, corner, CORNERS[0])
    remembered = before.copy()
    events = []
    for number, (start, end) in enumerate(itertools.pairwise(CORNERS)):
        for step in range(STEPS):
            place = np.array(start) + (np.array(end) - start) * (step + 1) / STEPS
            now = _logarithm(large, corner, place)
            began = (number + step / STEPS) * MICROSECONDS
            events += _events_between(
                before, now, remembered, thresholds, began, MICROSECONDS / STEPS
            )
            before = now
    y, x, polarity, timestamp = (
        np.concatenate(arrays) for arrays in zip(*events, strict=True)
    )
    order = np.argsort(timestamp, kind="stable")
    return Events(
        x=x[order],
        y=y[order],
        polarity=polarity[order],
        timestamp=timestamp[order].astype("int64"),
    )


def _logarithm(large, corner, place):
    """The log of the brightness that each pixel of the camera sees; between pixels of
    the image it is interpolated."""
    offset = corner + np.array(place) * PATH_LENGTH
    whole = np.floor(offset).astype(int)
    rows, columns = offset - whole
    padded = np.pad(large, 1)
    moved = (1 - rows) * padded[1:] + rows * padded[:-1]
    moved = (1 - columns) * moved[:, 1:] + columns * moved[:, :-1]
    brightness = np.zeros(SENSOR_SHAPE)
    height, width = moved.shape
    brightness[whole[0] : whole[0] + height, whole[1] : whole[1] + width] = moved
    return np.log(brightness + DARKEST)


def _events_between(before, now, remembered, thresholds, began, duration):
    """The events of a step: a list of `(y, x, polarity, timestamp)`. Changes
    `remembered`."""
    events = []
    for polarity, sign in ((1, 1.0), (0, -1.0)):
        while True:
            y, x = np.nonzero(sign * (now - remembered) >= thresholds)
            if not len(y):
                break
            remembered[y, x] += sign * thresholds[y, x]
            # When the log passes what is now remembered.
            passed = (remembered[y, x] - before[y, x]) / (now[y, x] - before[y, x])
            events.append(
                (
                    y,
                    x,
                    np.full(len(y), polarity),
                    began + np.clip(passed, 0.0, 1.0) * duration,
                )
            )
    return events
