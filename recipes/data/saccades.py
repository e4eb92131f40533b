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


def record(
    image,
    generator,
    enlargement=3,
    path_length=6.0,
    threshold=0.4,
    deviation=0.03,
    steps=24,
):
    """A recording of an image that moves in front of an event camera of 128x128 pixels.

    Args:
        image: Array of unsigned 8-bit integers `(height, width)`.
        generator: `numpy.random.Generator`, for the place of the image and the
            thresholds of the pixels.
        enlargement: Integer, the width of a pixel of the image on the camera. Defaults
            to `3`.
        path_length: Float, the width and height of the path, in pixels of the camera.
            Defaults to `6.0`.
        threshold: Float, the contrast threshold C. Defaults to `0.4`.
        deviation: Float, the standard deviation of the thresholds of the pixels.
            Defaults to `0.03`.
        steps: Integer, the number of positions of the image in each saccade. Defaults
            to `24`.

    Returns:
        `Events`.

    Raises:
        ValueError: If the enlarged image does not fit in front of the camera, or no
            pixel emits an event.
    """
    large = np.kron(image / 255.0, np.ones((enlargement, enlargement)))
    room = np.array(SENSOR_SHAPE) - large.shape - int(np.ceil(path_length)) - 1
    if room.min() < 0:
        raise ValueError(
            f"An image of {image.shape} pixels, enlarged {enlargement} times, and its "
            f"path of {path_length} pixels do not fit in front of a camera of "
            f"{SENSOR_SHAPE} pixels. Choose a smaller `enlargement`."
        )
    corner = generator.integers(0, room + 1)
    thresholds = np.maximum(
        generator.normal(threshold, deviation, SENSOR_SHAPE), threshold / 4
    )
    before = _logarithm(large, corner, CORNERS[0], path_length)
    remembered = before.copy()
    events = []
    for number, (start, end) in enumerate(itertools.pairwise(CORNERS)):
        for step in range(steps):
            place = np.array(start) + (np.array(end) - start) * (step + 1) / steps
            now = _logarithm(large, corner, place, path_length)
            began = (number + step / steps) * MICROSECONDS
            events += _events_between(
                before, now, remembered, thresholds, began, MICROSECONDS / steps
            )
            before = now
    if not events:
        raise ValueError(
            "The image moves without an event: its contrast is below the threshold of "
            "every pixel."
        )
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


def _logarithm(large, corner, place, path_length):
    """The log of the brightness that each pixel of the camera sees; between pixels of
    the image it is interpolated."""
    offset = corner + np.array(place) * path_length
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
