"""Recordings of event cameras and of spoken words, as frames that are computed once and
stored in the data folder.

Sets of recordings are a folder for each class, with AEDAT files or NumPy archives of a
DVS128 (CIFAR10-DVS: 10,000 images in ten classes, each moved on a screen; ten frames of
48x48 pixels of each, as in the paper, take 1.8 GB). `split.txt` says which recordings
are used for testing. If there is no such file, a tenth of each class is drawn, the same
for everyone with the same recordings, and the file is written. Sets that come with the
file must have it.

N-MNIST: 70,000 handwritten digits, 34x34 pixels; ten frames of each take 6.5 GB. DVS128
Gesture: eleven gestures of 29 people, 128x128 pixels; 20 frames of each take 3.8 GB.
Both have the split of their authors.

SHD and SSC: spoken words as spikes of 700 channels of the ear, in steps of 10
milliseconds. Five neighbouring channels are summed to one of 140 inputs, as in the
program of DCLS-delays (Hammouamri et al., ICLR 2024). All sequences have T steps:
shorter ones end with silence, and of longer ones the rest is left out.
"""

import dataclasses
import hashlib
import pathlib

import numpy as np

from keras_ratesnn.events import (
    HeidelbergFile,
    binned_frames,
    read_aedat,
    read_arrays,
    read_gestures,
    read_nmnist,
)
from keras_ratesnn.events.aedat import SENSOR_SHAPE
from keras_ratesnn.events.gestures import ENDING, label_rows
from keras_ratesnn.events.heidelberg import SENSOR_SHAPE as EAR_SHAPE
from recipes.data.dataset import Dataset, check_file, check_folder
from recipes.data.frames import read, stored, stored_frames, writing_data


def given_folder(data_dir, name, source, advice):
    """The folder of recordings that cannot be downloaded.

    Args:
        data_dir: Path, or None.
        name: String, the name of the data set.
        source: String, how to get the recordings, a sentence.
        advice: String, what the folder must hold, a sentence.

    Raises:
        ValueError: If no folder was given.
        FileNotFoundError, NotADirectoryError: As `check_folder`.
    """
    if data_dir is None:
        raise ValueError(
            f"{name} cannot be downloaded from here. {source} Then pass --data-dir: "
            f"{advice}"
        )
    folder = pathlib.Path(data_dir)
    check_folder(folder, advice)
    return folder


def split_dataset(frames, labels, train_size, class_names=None):
    """A `Dataset` of arrays that begin with those for training."""
    return Dataset(
        frames[:train_size],
        labels[:train_size],
        frames[train_size:],
        labels[train_size:],
        class_names,
    )


# A folder for each class. The names of recordings, such as cat/cifar10_cat_0, have no
# file extension, because a split refers to recordings.

READERS = {".aedat": read_aedat, ".npz": read_arrays, ".npy": read_arrays}

TEST_SHARE = 0.1
SPLIT_SEED = 0
SPLIT_FILE = "split.txt"
PARTS = ("train", "test")


@dataclasses.dataclass(frozen=True)
class RecordingSet:
    """The facts of a data set of recordings.

    Attributes:
        name: String.
        class_names: Tuple of strings, which are the names of the folders; the label of
            a class is its index.
        frame_shape: `(height, width)` of a frame.
        source: String, how to get the recordings, a sentence.
        has_split: Boolean, whether the recordings come with `split.txt`, written after
            all of them. Defaults to `False`.
    """

    name: str
    class_names: tuple[str, ...]
    frame_shape: tuple[int, int]
    source: str
    has_split: bool = False

    @property
    def advice(self):
        """A sentence: the data folder must hold these files."""
        return (
            "--data-dir is a folder with a folder for each class, "
            f"{', '.join(self.class_names)}, with its recordings: .aedat files, or "
            ".npz or .npy files with x, y, polarity and timestamp."
        )

    def load(self, data_dir, timesteps, frame_kind="count"):
        """The data set as event frames.

        Args:
            data_dir: The folder. Frames and split are also stored there.
            timesteps: Integer >= 1, the number of frames of a recording.
            frame_kind: As `kind` of `Frames`. Defaults to `"count"`.

        Returns:
            A `Dataset` with images of float32 `(timesteps, *frame_shape, 2)`, which are
            read from their file on demand. The order of recordings mixes the classes.

        Raises:
            FileNotFoundError: If the folder, a class, or the split of a data set that
                comes with one is missing.
            NotADirectoryError: If `data_dir` is not a folder.
            OSError: If the folder is not writable.
            ValueError: If no folder was given, a recording cannot be read, or the
                recordings do not match the split.
        """
        folder = given_folder(data_dir, self.name, self.source, self.advice)
        recordings = self._recordings(folder)
        split = self._split(folder / SPLIT_FILE, recordings)
        names = sorted(recordings, key=_draw)
        # A stable sort: training comes first.
        names.sort(key=lambda name: split[name] == "test")
        readers = {recordings[name]: READERS[recordings[name].suffix] for name in names}
        frames = stored_frames(
            self.name,
            folder,
            readers,
            len(names),
            (timesteps, frame_kind, SENSOR_SHAPE, self.frame_shape),
        )
        labels = [self.class_names.index(_class(name)) for name in names]
        train_size = list(split.values()).count("train")
        return split_dataset(frames, np.array(labels, "int32"), train_size)

    def _recordings(self, folder):
        """A dict of recording names to files."""
        if self.has_split and not (folder / SPLIT_FILE).exists():
            raise FileNotFoundError(
                f"There is no {folder / SPLIT_FILE}, which is written after all "
                f"recordings, so they are not complete. {self.source}"
            )
        recordings = {}
        for class_name in self.class_names:
            for path in self._files(folder / class_name):
                name = f"{class_name}/{path.stem}"
                if name in recordings:
                    raise ValueError(
                        f"{recordings[name]} and {path} have the same name without "
                        "extension. Remove one of them."
                    )
                recordings[name] = path
        return recordings

    def _files(self, folder):
        """The files of recordings of a class."""
        if not folder.is_dir():
            raise FileNotFoundError(f"There is no folder {folder}. {self.advice}")
        files = [path for path in sorted(folder.iterdir()) if path.suffix in READERS]
        # A split that is given may have a class in one of its parts only.
        if len(files) < 2 and not self.has_split:
            raise ValueError(
                f"{folder} must have at least two recordings, for training and "
                f"testing. It has {len(files)}. {self.advice}"
            )
        return files

    def _split(self, path, recordings):
        """The part, of `PARTS`, of each recording: read from the file, or drawn and
        written to it unless the file is given."""
        if self.has_split or path.exists():
            return self._given_split(path, recordings)
        split = dict.fromkeys(recordings, "train")
        for class_name in self.class_names:
            names = [name for name in recordings if _class(name) == class_name]
            test_size = max(1, round(TEST_SHARE * len(names)))
            for name in sorted(names, key=_draw)[:test_size]:
                split[name] = "test"
        lines = "".join(f"{split[name]} {name}\n" for name in sorted(split))
        with writing_data(path) as part:
            part.write_text(lines)
        return split

    def _given_split(self, path, recordings):
        advice = "Get the recordings again, with their split."
        if not self.has_split:
            advice = (
                f"Remove {path} to draw a new split; accuracies of different splits "
                "are not comparable."
            )
        split = {}
        lines = path.read_text(errors="replace").splitlines()
        for line in lines:
            part, _, name = line.partition(" ")
            split[name] = part
        differ = sorted(split.keys() ^ recordings.keys())
        is_twice = len(lines) > len(split)
        if differ or is_twice or set(split.values()) != set(PARTS):
            raise ValueError(
                f"Each line of {path} must be train or test, a space and a recording: "
                f"one for each of the {len(recordings)} of the folder, and some of "
                f"both. Recordings that differ: {len(differ)} {differ[:1]}. {advice}"
            )
        return split


def _class(name):
    return name.split("/")[0]


def _draw(name):
    """A pseudorandom number that depends only on the name, so that it is the same
    everywhere."""
    return hashlib.sha256(f"{SPLIT_SEED}/{name}".encode()).hexdigest()


CIFAR10_DVS = RecordingSet(
    "CIFAR10-DVS",
    (
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    ),
    (48, 48),
    "Unpack the ten .zip files of "
    "https://figshare.com/articles/dataset/CIFAR10-DVS_New/4724671 into a folder. "
    "Another source is Tonic (pip install tonic; licence GPL-3.0); save its events as "
    ".npz files.",
)
WHOLE_CIFAR10_DVS = dataclasses.replace(CIFAR10_DVS, frame_shape=SENSOR_SHAPE)


# N-MNIST

NMNIST_SHAPE = (34, 34)
NMNIST_ADVICE = (
    "--data-dir is a folder with the folders Train and Test, each with a folder of "
    ".bin files for each digit, 0 to 9."
)
NMNIST_SOURCE = (
    "Unpack Train.zip and Test.zip of "
    "https://www.garrickorchard.com/datasets/n-mnist into a folder."
)


def load_nmnist(data_dir, timesteps, frame_kind="count"):
    """N-MNIST as event frames, see `RecordingSet.load`."""
    folder = given_folder(data_dir, "N-MNIST", NMNIST_SOURCE, NMNIST_ADVICE)
    train, test = (_digit_files(folder / part) for part in ("Train", "Test"))
    paths = train + test
    frames = stored_frames(
        "N-MNIST",
        folder,
        dict.fromkeys(paths, read_nmnist),
        len(paths),
        (timesteps, frame_kind, NMNIST_SHAPE, NMNIST_SHAPE),
    )
    labels = np.array([int(path.parent.name) for path in paths], "int32")
    return split_dataset(frames, labels, len(train))


def _digit_files(folder):
    """The files of a part, in an order that mixes the classes and is the same
    everywhere."""
    paths = []
    for digit in range(10):
        files = list((folder / str(digit)).glob("*.bin"))
        if not files:
            raise FileNotFoundError(
                f"There are no .bin files in {folder / str(digit)}. {NMNIST_ADVICE}"
            )
        paths += files
    return sorted(paths, key=lambda path: _draw(path.relative_to(folder).as_posix()))


# DVS128 Gesture

GESTURES = (
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
GESTURE_LISTS = ("trials_to_train.txt", "trials_to_test.txt")
GESTURE_ADVICE = (
    "--data-dir is the folder with trials_to_train.txt and trials_to_test.txt, the "
    ".aedat files that they list, and a _labels.csv file for each of them."
)
GESTURE_SOURCE = (
    "Unpack DvsGesture.tar.gz of https://research.ibm.com/interactive/dvsgesture/."
)


def load_gestures(data_dir, timesteps, frame_kind="count"):
    """DVS128 Gesture as event frames, see `RecordingSet.load`."""
    name = "DVS128 Gesture"
    folder = given_folder(data_dir, name, GESTURE_SOURCE, GESTURE_ADVICE)
    train, test = (_listed(folder, file) for file in GESTURE_LISTS)
    paths = train + test
    if not train or not test or len(set(paths)) < len(paths):
        raise ValueError(
            f"{' and '.join(GESTURE_LISTS)} in {folder} must list recordings, each of "
            f"them once. {GESTURE_SOURCE}"
        )
    train_labels, test_labels = map(_gesture_labels, (train, test))
    # A recording has gestures of all classes, so they are mixed.
    sources = [file for path in paths for file in (path, _labels_file(path))]
    labels = np.concatenate([train_labels, test_labels])
    frames = stored_frames(
        name,
        folder,
        dict.fromkeys(paths, read_gestures),
        len(labels),
        (timesteps, frame_kind, SENSOR_SHAPE, SENSOR_SHAPE),
        sources,
    )
    return split_dataset(frames, labels, len(train_labels), GESTURES)


def _listed(folder, name):
    """The recordings in a list."""
    check_file(folder / name, GESTURE_ADVICE)
    paths = [folder / file for file in (folder / name).read_text().split()]
    for path in paths:
        for file in (path, _labels_file(path)):
            check_file(file, f"{name} asks for it. {GESTURE_ADVICE}")
    return paths


def _labels_file(path):
    return path.with_name(f"{path.stem}{ENDING}")


def _gesture_labels(paths):
    """The class of each gesture, from 0 on."""
    rows = [row for path in paths for row in label_rows(_labels_file(path))]
    return np.array([row.kind - 1 for row in rows], "int32")


# Spoken words

SOUND_INPUTS = 140
SOUND_STEP = 10_000
"""The duration of a step, in microseconds."""

ORDER_SEED = 0


def load_words(name, classes, data_dir, timesteps):
    """A data set of spoken words as spikes summed in steps.

    Args:
        name: String, the beginning of the names of its files: "shd", the Spiking
            Heidelberg Digits in English and German, or "ssc", Spiking Speech Commands.
        classes: Integer, the number of classes.
        data_dir: The folder. The sums are also stored there.
        timesteps: Integer >= 1, the number of steps T.

    Returns:
        A `Dataset` with images of float32 `(timesteps, 140)`. The order of the
        recordings mixes the classes.

    Raises:
        FileNotFoundError: If the folder or a file is missing.
        NotADirectoryError: If `data_dir` is not a folder.
        OSError: If the folder is not writable.
        ValueError: If no folder was given, or a file is damaged or another.
    """
    advice = (
        f"--data-dir is a folder with {name}_train.h5 and {name}_test.h5, unpacked "
        "from the .gz files of "
        "https://zenkelab.org/resources/spiking-heidelberg-datasets-shd."
    )
    folder = given_folder(data_dir, name.upper(), "Unpack its files.", advice)
    train, test = (
        _words(folder / f"{name}_{part}.h5", classes, timesteps, advice)
        for part in PARTS
    )
    return Dataset(*train, *test)


def _words(path, classes, timesteps, advice):
    """Steps and labels of a file."""
    check_file(path, advice)
    with read(HeidelbergFile, path) as recordings:
        labels = recordings.labels.astype("int32")
        if labels.max() >= classes:
            raise ValueError(
                f"{path} must have {classes} classes. It has the label {labels.max()}. "
                f"{advice}"
            )
        order = np.random.default_rng(ORDER_SEED).permutation(len(recordings))
        steps = (_sound_steps(recordings[int(row)], timesteps) for row in order)
        stored_in = path.with_name(f"{path.stem}_{timesteps}_steps.npy")
        shape = (len(order), timesteps, SOUND_INPUTS)
        return stored(stored_in, [path], shape, steps), labels[order]


def _sound_steps(events, timesteps):
    shape = (1, SOUND_INPUTS)
    frames = binned_frames(events, timesteps, SOUND_STEP, EAR_SHAPE, shape)
    return frames[:, 0, :, 1]
