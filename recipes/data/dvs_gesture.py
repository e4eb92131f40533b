"""DVS128 Gesture: eleven gestures of 29 people before an event camera of 128x128 pixels; 20 frames of each take 3.8 GB."""

import pathlib

import numpy as np

from keras_ratesnn.events import read_gestures
from keras_ratesnn.events.gestures import ENDING, label_rows
from recipes import checks
from recipes.data import stored_frames
from recipes.data.dataset import Dataset, check_folder
from recipes.data.frame_kinds import KINDS

SENSOR_SHAPE = (128, 128)
IMAGE_SHAPE = (*SENSOR_SHAPE, 2)
CLASS_NAMES = (
    "hand_clapping",
    "right_hand_wave",
    "left_hand_wave",
    "right_arm_clockwise",
    "right_arm_counter_clockwise",
    "left_arm_clockwise",
    "left_arm_counter_clockwise",
    "arm_roll",
    "air_drums",
    "air_guitar",
    "other_gestures",
)
CLASSES = len(CLASS_NAMES)
LISTS = ("trials_to_train.txt", "trials_to_test.txt")

ADVICE = (
    "--data-dir is the folder with trials_to_train.txt and trials_to_test.txt, the .aedat files that they list, and a "
    "_labels.csv file for each of them."
)
SOURCE = "Unpack DvsGesture.tar.gz of https://research.ibm.com/interactive/dvsgesture/."


def load(data_dir, timesteps, frame_kind="count"):
    """The data set as event frames, for the arguments see `recordings.RecordingSet.load`."""
    timesteps = checks.positive_integer("timesteps", timesteps, advice="It is the number of frames of a gesture.")
    checks.one_of("frame_kind", frame_kind, KINDS)
    if data_dir is None:
        raise ValueError(f"DVS128 Gesture cannot be downloaded from here. {SOURCE} Then pass --data-dir: {ADVICE}")
    folder = pathlib.Path(data_dir)
    check_folder(folder, ADVICE)
    train, test = (_listed(folder, name) for name in LISTS)
    both = sorted(set(train) & set(test))
    if both:
        raise ValueError(f"{folder / LISTS[1]} must not list what {LISTS[0]} lists. Both list {both[0].name}. {SOURCE}")
    train_labels, test_labels = (_labels(paths) for paths in (train, test))
    paths = train + test
    # A recording has gestures of all classes, so they are mixed.
    frames = stored_frames.stored(
        folder / f"frames_{timesteps}_by_{frame_kind}.npy",
        [file for path in paths for file in (path, _labels_of(path))],
        (len(train_labels) + len(test_labels), timesteps, *IMAGE_SHAPE),
        (frames for path in paths for frames in _frames_of(path, timesteps, frame_kind)),
    )
    rest = len(train_labels)
    return Dataset(frames[:rest], train_labels, frames[rest:], test_labels, CLASS_NAMES)


def _listed(folder, name):
    """The recordings in a list."""
    if not (folder / name).is_file():
        raise FileNotFoundError(f"There is no {folder / name}. {ADVICE}")
    names = (folder / name).read_text(errors="replace").split()
    if not names:
        raise ValueError(f"{folder / name} must list recordings. It is empty. {SOURCE}")
    for recording in names:
        path = folder / recording
        if path.parent != folder or path.suffix != ".aedat" or names.count(recording) > 1:
            raise ValueError(f"{folder / name} must list names of .aedat files, each once. It lists {recording!r}. {SOURCE}")
        for file in (path, _labels_of(path)):
            if not file.is_file():
                raise FileNotFoundError(f"There is no {file}, which {name} asks for. {ADVICE}")
    return [folder / recording for recording in names]


def _labels_of(path):
    return path.with_name(f"{path.stem}{ENDING}")


def _labels(paths):
    """The class of each gesture, from 0 on."""
    return np.array([row.kind - 1 for path in paths for row in label_rows(_labels_of(path))], "int32")


def _frames_of(path, timesteps, kind):
    gestures = stored_frames.read(read_gestures, path)
    try:
        return [KINDS[kind](events, timesteps, SENSOR_SHAPE, SENSOR_SHAPE) for _, events in gestures]
    except ValueError as error:
        raise ValueError(f"{path} is not a recording of DVS128 Gesture. {error}") from error
