"""Data sets of event camera recordings: a folder for each class, with AEDAT files or
NumPy archives of a DVS128.

The events of a recording become `timesteps` frames with two channels, OFF and ON. They
are stored in the data folder, in `frames_10_by_count.npy` for 10 frames by count, see
`stored_frames`.

`split.txt` in the data folder says which recordings are used for testing. If there is
no such file, a tenth of each class is drawn, the same for everyone with the same
recordings, and the file is written. Data sets that come with the file must have it.
"""

import dataclasses
import hashlib

import numpy as np

from keras_ratesnn.events import read_aedat, read_arrays
from keras_ratesnn.events.aedat import SENSOR_SHAPE
from recipes.data import stored_frames
from recipes.data.dataset import Dataset, given_folder
from recipes.data.frame_kinds import Frames

READERS = {".aedat": read_aedat, ".npz": read_arrays, ".npy": read_arrays}

TEST_SHARE = 0.1
SPLIT_SEED = 0
SPLIT_FILE = "split.txt"
PARTS = ("train", "test")


@dataclasses.dataclass(frozen=True)
class RecordingSet:
    """What is known of a data set of recordings.

    Args:
        name: String.
        class_names: Tuple of strings, which are the names of the folders; the label of
            a class is its index.
        image_shape: `(height, width, 2)`, the shape of a frame.
        source: String, how to get the recordings, a sentence.
        has_split: Boolean, whether the recordings come with `split.txt`, written after
            all of them. Defaults to `False`.
    """

    name: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    source: str
    has_split: bool = False

    @property
    def advice(self):
        """What the data folder must hold, a sentence."""
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
            frame_kind: A name of `frame_kinds.KINDS`: "count" for counts in frames with
                equal numbers of events, "time" for counts in frames of equal duration,
                "voxels", "surfaces". Defaults to `"count"`.

        Returns:
            A `Dataset` with images of float32 event counts `(timesteps, *image_shape)`,
            which are read from their file on demand. The order of recordings mixes the
            classes.

        Raises:
            FileNotFoundError: If the folder, a class, or the split of a data set that
                comes with one is missing.
            NotADirectoryError: If `data_dir` is not a folder.
            OSError: If the folder is not writable.
            TypeError: If `timesteps` is not an integer.
            ValueError: If no folder was given, an argument is invalid, a recording
                cannot be read, or the recordings do not match the split.
        """
        folder, timesteps = given_folder(
            data_dir, self.name, self.source, self.advice, timesteps
        )
        of_recordings = Frames(
            self.name, frame_kind, timesteps, SENSOR_SHAPE, self.image_shape[:2]
        )
        recordings = _find_recordings(self, folder)
        split = _split(folder / SPLIT_FILE, recordings, self.has_split)
        train, test = (
            [name for name in sorted(recordings, key=_draw) if split[name] == part]
            for part in PARTS
        )
        names = train + test
        paths = [recordings[name] for name in names]
        each = (of_recordings.of(READERS[path.suffix], path) for path in paths)
        frames = of_recordings.stored(folder, paths, len(paths), each)
        labels = np.array(
            [self.class_names.index(_class_of(name)) for name in names], "int32"
        )
        return Dataset(
            frames[: len(train)],
            labels[: len(train)],
            frames[len(train) :],
            labels[len(train) :],
        )


# Recordings. Their names, such as cat/cifar10_cat_0, have no file extension, because a
# split refers to recordings.


def _find_recordings(recording_set, folder):
    """A dict of recording names to files."""
    if recording_set.has_split and not (folder / SPLIT_FILE).exists():
        raise FileNotFoundError(
            f"There is no {folder / SPLIT_FILE}, which is written after all "
            f"recordings, so they are not complete. {recording_set.source}"
        )
    recordings = {}
    for class_name in recording_set.class_names:
        of_class = _find_class(folder / class_name, recording_set)
        recordings.update(
            {f"{class_name}/{stem}": path for stem, path in of_class.items()}
        )
    return recordings


def _find_class(folder, recording_set):
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}. {recording_set.advice}")
    paths = sorted(folder.iterdir())
    recordings = {}
    for path in paths:
        if path.suffix in READERS:
            if path.stem in recordings:
                raise ValueError(
                    f"{recordings[path.stem]} and {path} have the same name without "
                    "extension. Remove one of them."
                )
            recordings[path.stem] = path
    # A split that is given may have a class in one of its parts only.
    if len(recordings) < 2 and not recording_set.has_split:
        seen = (
            f"among {len(paths)} files, such as {paths[0].name}"
            if paths
            else "it is empty"
        )
        raise ValueError(
            f"{folder} must have at least two recordings, for training and testing. It "
            f"has {len(recordings)} ({seen}). {recording_set.advice}"
        )
    return recordings


def _class_of(name):
    return name.split("/")[0]


# The split


def _draw(name):
    """A pseudorandom number that depends only on the name, so that it is the same
    everywhere."""
    return hashlib.sha256(f"{SPLIT_SEED}/{name}".encode()).hexdigest()


def _split(path, recordings, is_given=False):
    """The part, of `PARTS`, of each recording: read from the file, or drawn and written
    to it unless the file is given."""
    if is_given or path.exists():
        return _read_split(path, recordings, is_given)
    split = dict.fromkeys(recordings, "train")
    for class_name in {_class_of(name) for name in recordings}:
        of_class = sorted(
            (name for name in recordings if _class_of(name) == class_name), key=_draw
        )
        test_size = max(1, round(TEST_SHARE * len(of_class)))
        split.update(dict.fromkeys(of_class[:test_size], "test"))
    stored_frames.write(
        path, ["".join(f"{split[name]} {name}\n" for name in sorted(split)).encode()]
    )
    return split


def _read_split(path, recordings, is_given):
    new = (
        f"Remove {path} to draw a new split; accuracies of different splits are not "
        "comparable."
    )
    advice = "Get the recordings again, with their split." if is_given else new
    split = {}
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        part, _, name = line.decode(errors="replace").partition(" ")
        if part not in PARTS or name in split:
            raise ValueError(
                f"Line {number} of {path} must be train or test, a space and a "
                "recording that is on no other line. It is "
                f"{line.decode(errors='replace')!r}. {advice}"
            )
        split[name] = part
    unknown, missing = (
        split.keys() - recordings.keys(),
        recordings.keys() - split.keys(),
    )
    names, what = missing, "does not contain all recordings of the folder"
    if unknown:
        names, what = unknown, "contains recordings that are not in the folder"
    if names:
        raise ValueError(
            f"{path} {what}: {len(names)}, the first {min(names)}. Make the two agree. "
            f"{advice}"
        )
    for part in {*PARTS} - {*split.values()}:
        raise ValueError(f"{path} has no {part} recordings. {advice}")
    return split
