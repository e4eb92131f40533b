"""Made sequences of spikes of which only the order tells the class: all possible
ones."""

import itertools

import numpy as np

from recipes.checks import mistake
from recipes.data.dataset import Dataset, check_no_folder

T, GAP, CHANNELS = 8, 2, 4


def load(data_dir, timesteps):
    """The sequences of `order_in_time`, for training and for tests.

    Raises:
        ValueError: If a folder was given, or `timesteps` is not the length of the
            sequences.
    """
    check_no_folder(data_dir, "The data are made.")
    if timesteps != T:
        raise mistake("timesteps", f"{T}, the length of the sequences", timesteps)
    x, y = order_in_time()
    return Dataset(x, y, x, y)


def order_in_time():
    """Two pairs of channels, each of which spikes once: one of a pair two steps after
    the other. The class says which.

    Both classes have all starts, so every channel has the same rate in both.

    Returns:
        `(x, y)`: a float32 array `(32, T, CHANNELS)` of spikes, and an int64 array of
        the classes 0 and 1.
    """
    x, y = [], []
    for label, *starts in itertools.product((0, 1), range(4), range(4)):
        sample = np.zeros((T, CHANNELS), "float32")
        for pair, start in enumerate(starts):
            sample[start, 2 * pair + label] = 1.0
            sample[start + GAP, 2 * pair + 1 - label] = 1.0
        x.append(sample)
        y.append(label)
    return np.stack(x), np.array(y)
