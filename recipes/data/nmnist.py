"""N-MNIST: 70,000 handwritten digits, moved in front of an event camera of 34x34
pixels; ten frames of each take 6.5 GB."""

import hashlib

import numpy as np

from keras_ratesnn.events import read_nmnist
from recipes.data.dataset import Dataset, given_folder
from recipes.data.frame_kinds import Frames

SENSOR_SHAPE = (34, 34)
IMAGE_SHAPE = (*SENSOR_SHAPE, 2)
CLASSES = 10
PARTS = ("Train", "Test")

ADVICE = (
    "--data-dir is a folder with the folders Train and Test, each with a folder "
    "of .bin files for each digit, 0 to 9."
)
SOURCE = (
    "Unpack Train.zip and Test.zip of "
    "https://www.garrickorchard.com/datasets/n-mnist into a folder."
)


def load(data_dir, timesteps, frame_kind="count"):
    """The data set as event frames, for the arguments see
    `recordings.RecordingSet.load`."""
    folder, timesteps = given_folder(data_dir, "N-MNIST", SOURCE, ADVICE, timesteps)
    of_recordings = Frames("N-MNIST", frame_kind, timesteps, SENSOR_SHAPE)
    train, test = (_recordings(folder / part) for part in PARTS)
    paths = train + test
    frames = of_recordings.stored(
        folder,
        paths,
        len(paths),
        (of_recordings.of(read_nmnist, path) for path in paths),
    )
    labels = np.array([int(path.parent.name) for path in paths], "int32")
    return Dataset(
        frames[: len(train)],
        labels[: len(train)],
        frames[len(train) :],
        labels[len(train) :],
    )


def _recordings(folder):
    """The files of a part, in an order that mixes the classes and is the same
    everywhere."""
    paths = []
    for digit in range(CLASSES):
        of_digit = list((folder / str(digit)).glob("*.bin"))
        if not of_digit:
            raise FileNotFoundError(
                f"There are no .bin files in {folder / str(digit)}. {ADVICE}"
            )
        paths += of_digit
    return sorted(
        paths,
        key=lambda path: hashlib.sha256(
            path.relative_to(folder).as_posix().encode()
        ).hexdigest(),
    )
