"""Reader of `.bin` files of N-MNIST and N-Caltech101.

An event has five bytes, most significant first: x; y; the polarity in bit 7 of the
third byte, 1 for ON; and in the other 23 bits the time in microseconds. An event with y
= 240 is none: the camera's clock ran over, and all later times are 2**13 microseconds
later. (SpikingJelly ignores this.)
"""

import os

import numpy as np

from keras_ratesnn.events._file_content import EventFile
from keras_ratesnn.events.recording import Events, recording_of

EVENT_BYTES = 5
OVERFLOW_Y = 240
OVERFLOW_MICROSECONDS = 1 << 13


def read_nmnist(path: str | os.PathLike[str]) -> Events:
    """Reads the events of a `.bin` file of N-MNIST or N-Caltech101.

    Example:

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "00002.bin")
    ...     written = file.write_bytes(bytes([3, 5, 0b10000000, 0, 7]))
    ...     events = keras_ratesnn.events.read_nmnist(file)
    >>> events.x, events.y, events.polarity, events.timestamp
    (array([3], dtype=uint8), array([5], dtype=uint8), array([1], dtype=uint8),
    array([7]))

    Args:
        path: The file.

    Returns:
        `Events`. The sensor of N-MNIST has 34x34 pixels.

    Raises:
        TypeError: If `path` is neither a string nor a path.
        OSError: If the file cannot be read.
        ValueError: If the file is too large or damaged, or its times run backwards.

    Source: Orchard et al., "Converting Static Image Datasets to Spiking Neuromorphic
    Datasets Using Saccades", 2015.
    """
    file = EventFile(path, "file of N-MNIST")
    content = file.content()
    file.check_events(0, EVENT_BYTES)
    x, y, third, *low = np.frombuffer(content, "uint8").reshape(-1, EVENT_BYTES).T
    timestamp = (
        (third & 127).astype("int64") << 16 | low[0].astype("int64") << 8 | low[1]
    )
    overflow = y == OVERFLOW_Y
    timestamp += OVERFLOW_MICROSECONDS * np.cumsum(overflow)
    real = ~overflow
    return recording_of(file.path, x[real], y[real], third[real] >> 7, timestamp[real])
