"""Japanese Vowels: 270 and 370 utterances of nine speakers, sequences of 7 to 29 steps
with 12 coefficients of speech each.

The sequences are padded with NaN to the number of time steps of the model, which must
be told: `mask_value`. They ship with the package aeon, in the text format of the UCR
archive, and are read from there without importing it.

Source: Kudo, Toyama and Shimbo, "Multidimensional Curve Classification Using
Passing-Through Regions", 1999.
"""

import importlib.util
import pathlib

import keras
import numpy as np

from recipes.checks import mistake
from recipes.data.dataset import Dataset, check_file, check_folder

CHANNELS = 12
LONGEST = 29
CLASSES = 9
PADDING = float("nan")

FILES = ("JapaneseVowels_TRAIN.ts", "JapaneseVowels_TEST.ts")
ADVICE = (
    f"--data-dir is a folder with {FILES[0]} and {FILES[1]}. Without it they are "
    'read from aeon: pip install -e ".[timeseries]"'
)
ORDER_SEED = 0


def load(data_dir, timesteps):
    """The sequences, each coefficient with the mean 0 and the deviation 1 of the
    training sequences.

    Args:
        data_dir: Path of the folder with the two files; None for those of aeon.
        timesteps: Integer T >= 29, to which sequences are padded.

    Returns:
        A `Dataset` of float32 arrays `(samples, T, 12)`.

    Raises:
        ImportError: If no folder was given, and aeon is not installed.
        ValueError: If T is too small, or a file has another format.
    """
    if timesteps < LONGEST:
        raise mistake(
            "timesteps",
            f"at least {LONGEST}, the longest sequence of Japanese Vowels",
            timesteps,
        )
    folder = _folder() if data_dir is None else pathlib.Path(data_dir)
    check_folder(folder, ADVICE)
    (train, train_labels), (test, test_labels) = (
        read_ts(folder / name) for name in FILES
    )
    steps = np.concatenate(train)
    mean, deviation = steps.mean(axis=0), steps.std(axis=0)
    arrays = []
    for part in (train, test):
        scaled = [(sequence - mean) / deviation for sequence in part]
        padded = keras.utils.pad_sequences(
            scaled, timesteps, "float32", padding="post", value=PADDING
        )
        arrays.append(padded)
    train_array, test_array = arrays
    # The files are sorted by class: the last sequences, which settings may hold out,
    # would be those of one speaker.
    order = np.random.default_rng(ORDER_SEED).permutation(len(train))
    return Dataset(train_array[order], train_labels[order], test_array, test_labels)


def read_ts(path):
    """Reads a file of sequences of 12 channels, a line each: channels separated by
    colons, and then the class from 1 on.

    Returns:
        `(sequences, labels)`: a list of float64 arrays `(steps, 12)`, and an int64
        array of classes from 0 on.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it has another format.
    """
    path = pathlib.Path(path)
    check_file(path, ADVICE)
    _, _, data = path.read_text(encoding="utf-8").partition("\n@data\n")
    lines = data.split()
    if not lines:
        raise ValueError(f"{path} has no sequences after a line @data. {ADVICE}")
    sequences, labels = [], []
    for line in lines:
        *channels, label = line.split(":")
        try:
            rows = [channel.split(",") for channel in channels]
            sequence, number = np.array(rows, "float64").T, int(label)
            has_shape = sequence.shape[1:] == (CHANNELS,) and len(sequence) <= LONGEST
            if not (
                has_shape and 1 <= number <= CLASSES and np.isfinite(sequence).all()
            ):
                raise ValueError("something else")
        except ValueError as error:
            raise ValueError(
                f"Each line of {path} must have {CHANNELS} channels of one length up "
                f"to {LONGEST}, finite numbers, and a class from 1 to {CLASSES}. "
                f"Received: {line[:60]!r}... ({error})."
            ) from error
        sequences.append(sequence)
        labels.append(number - 1)
    return sequences, np.array(labels)


def _folder():
    """The folder of the data set in the package aeon."""
    spec = importlib.util.find_spec("aeon")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(
            "Japanese Vowels come with the package aeon, which is not installed. "
            f"{ADVICE}."
        )
    package = pathlib.Path(spec.submodule_search_locations[0])
    return package / "datasets" / "data" / "JapaneseVowels"
