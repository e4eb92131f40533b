"""N-MNIST: 70,000 handwritten digits, moved in front of an event camera of 34x34 pixels; ten frames of each take 6.5 GB."""

import functools
import hashlib
import pathlib

import numpy as np

from keras_ratesnn.events import read_nmnist
from recipes import checks
from recipes.data import stored_frames
from recipes.data.dataset import Dataset, check_folder
from recipes.data.frame_kinds import KINDS

SENSOR_SHAPE = (34, 34)
IMAGE_SHAPE = (*SENSOR_SHAPE, 2)
CLASSES = 10
PARTS = ("Train", "Test")

ADVICE = "--data-dir is a folder with the folders Train and Test, each with a folder of .bin files for each digit, 0 to 9."
SOURCE = "Unpack Train.zip and Test.zip of https://www.garrickorchard.com/datasets/n-mnist into a folder."


def load(data_dir, timesteps, frame_kind="count"):
    """The data set as event frames, for the arguments see `recordings.RecordingSet.load`."""
    timesteps = checks.positive_integer("timesteps", timesteps, advice="It is the number of frames of a recording.")
    checks.one_of("frame_kind", frame_kind, KINDS)
    if data_dir is None:
        raise ValueError(f"N-MNIST cannot be downloaded from here. {SOURCE} Then pass --data-dir: {ADVICE}")
    folder = pathlib.Path(data_dir)
    check_folder(folder, ADVICE)
    train, test = (_recordings(folder / part) for part in PARTS)
    paths = train + test
    frames = stored_frames.stored(
        folder / f"frames_{timesteps}_by_{frame_kind}.npy",
        paths,
        (len(paths), timesteps, *IMAGE_SHAPE),
        (_frames_of(path, timesteps, frame_kind) for path in paths),
    )
    labels = np.array([int(path.parent.name) for path in paths], "int32")
    return Dataset(frames[: len(train)], labels[: len(train)], frames[len(train) :], labels[len(train) :])


def _recordings(folder):
    """The files of a part, in an order that mixes the classes and is the same everywhere."""
    paths = []
    for digit in range(CLASSES):
        of_digit = list((folder / str(digit)).glob("*.bin"))
        if not of_digit:
            raise FileNotFoundError(f"There are no .bin files in {folder / str(digit)}. {ADVICE}")
        paths += of_digit
    return sorted(paths, key=functools.partial(_draw, folder))


def _draw(folder, path):
    return hashlib.sha256(path.relative_to(folder).as_posix().encode()).hexdigest()


def _frames_of(path, timesteps, kind):
    events = stored_frames.read(read_nmnist, path)
    try:
        return KINDS[kind](events, timesteps, SENSOR_SHAPE, SENSOR_SHAPE)
    except ValueError as error:
        raise ValueError(f"{path} is not a recording of N-MNIST. {error}") from error
