"""CIFAR10-DVS with artificial events, in real AEDAT files and in arrays, for tests."""

import re
import struct

import numpy as np
import pytest

from keras_ratesnn.events import write_aedat
from keras_ratesnn.events.recording import FIELDS, Events

HEADER = (
    b"#!AER-DAT2.0\r\n# This is a raw AE data file - do not edit\r\n# Timestamps "
    b"tick is 1 us\r\n"
)
START = len(HEADER)
RECORDINGS = 10
"""Of each class in the small data set: one of them for testing."""


def expect_error(kind, *said):
    """pytest.raises with a message that contains all of `said` in order."""
    return pytest.raises(
        kind, match="(?s)" + ".*".join(re.escape(str(part)) for part in said)
    )


def address(x, y, polarity):
    return y << 8 | x << 1 | polarity


def aedat_bytes(*events):
    """Events `(address, timestamp)` in the format of the file."""
    return b"".join(
        struct.pack(">II", address, timestamp % 2**32) for address, timestamp in events
    )


def made_events(count, seed, duration=1000):
    generator = np.random.default_rng(seed)
    return Events(
        x=generator.integers(0, 128, count),
        y=generator.integers(0, 128, count),
        polarity=generator.integers(0, 2, count),
        timestamp=np.sort(generator.integers(0, duration, count)),
    )


def arrays_of(events):
    return {name: getattr(events, name) for name in FIELDS}


def write_data_set(folder, classes):
    """A small CIFAR10-DVS, of classes with these names. The number of events identifies
    a recording."""
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for number in range(RECORDINGS):
            events = made_events(50 + label * RECORDINGS + number, seed=number)
            if number % 2:
                np.savez(
                    folder / name / f"cifar10_{name}_{number}.npz", **arrays_of(events)
                )
            else:
                write_aedat(folder / name / f"cifar10_{name}_{number}.aedat", events)
    return folder
