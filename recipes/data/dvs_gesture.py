"""DVS128 Gesture: eleven gestures of 29 people before an event camera of 128x128
pixels; 20 frames of each take 3.8 GB."""

import numpy as np

from keras_ratesnn.events import read_gestures
from keras_ratesnn.events.gestures import ENDING, label_rows
from recipes.data.dataset import Dataset, given_folder
from recipes.data.frame_kinds import Frames

SENSOR_SHAPE = (128, 128)
IMAGE_SHAPE = (*SENSOR_SHAPE, 2)
OF_ARMS = (
    "right_arm_clockwise",
    "right_arm_counter_clockwise",
    "left_arm_clockwise",
    "left_arm_counter_clockwise",
)
OTHERS = ("arm_roll", "air_drums", "air_guitar", "other_gestures")
CLASS_NAMES = ("hand_clapping", "right_hand_wave", "left_hand_wave", *OF_ARMS, *OTHERS)
CLASSES = len(CLASS_NAMES)
LISTS = ("trials_to_train.txt", "trials_to_test.txt")

ADVICE = (
    "--data-dir is the folder with trials_to_train.txt and trials_to_test.txt, "
    "the .aedat files that they list, and a _labels.csv file for each of them."
)
SOURCE = "Unpack DvsGesture.tar.gz of https://research.ibm.com/interactive/dvsgesture/."


def load(data_dir, timesteps, frame_kind="count"):
    """The data set as event frames, for the arguments see
    `recordings.RecordingSet.load`."""
    folder, timesteps = given_folder(
        data_dir, "DVS128 Gesture", SOURCE, ADVICE, timesteps
    )
    of_gestures = Frames("DVS128 Gesture", frame_kind, timesteps, SENSOR_SHAPE)
    train, test = (_listed(folder, name) for name in LISTS)
    both = sorted(set(train) & set(test))
    if both:
        raise ValueError(
            f"{folder / LISTS[1]} must not list what {LISTS[0]} lists. Both list "
            f"{both[0].name}. {SOURCE}"
        )
    train_labels, test_labels = (_labels(paths) for paths in (train, test))
    paths = train + test
    # A recording has gestures of all classes, so they are mixed.
    sources = [file for path in paths for file in (path, _labels_of(path))]
    each = (frames for path in paths for frames in of_gestures.of(read_gestures, path))
    frames = of_gestures.stored(
        folder, sources, len(train_labels) + len(test_labels), each
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
        if (
            path.parent != folder
            or path.suffix != ".aedat"
            or names.count(recording) > 1
        ):
            raise ValueError(
                f"{folder / name} must list names of .aedat files, each once. It lists "
                f"{recording!r}. {SOURCE}"
            )
        for file in (path, _labels_of(path)):
            if not file.is_file():
                raise FileNotFoundError(
                    f"There is no {file}, which {name} asks for. {ADVICE}"
                )
    return [folder / recording for recording in names]


def _labels_of(path):
    return path.with_name(f"{path.stem}{ENDING}")


def _labels(paths):
    """The class of each gesture, from 0 on."""
    return np.array(
        [row.kind - 1 for path in paths for row in label_rows(_labels_of(path))],
        "int32",
    )
