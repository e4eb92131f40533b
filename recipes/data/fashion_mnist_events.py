"""Fashion-MNIST in front of an event camera: made recordings, see `saccades`, of the
images of Fashion-MNIST.

`write` makes them as AEDAT files, in the folders of their classes, with the data set's
own split. Reading them is the same as for a camera's recordings.
"""

import numpy as np

from keras_ratesnn.events import write_aedat
from recipes.checks import mistake
from recipes.data import saccades
from recipes.data.events import SPLIT_FILE, RecordingSet

IMAGE_SHAPE = (48, 48, 2)
CLASS_NAMES = (
    "t_shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle_boot",
)
CLASSES = len(CLASS_NAMES)

SEED = 0
"""A recording depends on it, its part and the number of its image alone."""

SOURCE = (
    "Make the recordings from the images: python -m recipes.make_recordings "
    "FOLDER --data-dir DIR, where DIR is that of the recipe fashion_mnist."
)

load = RecordingSet(
    "Fashion-MNIST in front of an event camera",
    CLASS_NAMES,
    IMAGE_SHAPE[:2],
    SOURCE,
    has_split=True,
).load


def write(folder, data, train, test, progress):
    """Makes recordings of the first images of each part of a data set.

    Args:
        folder: Path of the folder, which must not exist or be empty.
        data: `Dataset` of images `(28, 28, 1)`.
        train: Integer, the number of images for training.
        test: Integer, the number of images for testing.
        progress: Function, called after each recording.

    Raises:
        FileExistsError: If the folder is not empty.
        ValueError: If there are not as many images.
    """
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(
            f"{folder} is not empty. Name another folder, or remove it to make the "
            "recordings again."
        )
    parts = {
        "train": (data.train_images, data.train_labels, train),
        "test": (data.test_images, data.test_labels, test),
    }
    for part, (images, _, count) in parts.items():
        if count > len(images):
            raise mistake(part, f"at most {len(images)}, the number of images", count)
    for name in CLASS_NAMES:
        (folder / name).mkdir(parents=True)
    split = []
    for part, (images, labels, count) in parts.items():
        for number in range(count):
            generator = np.random.default_rng([SEED, len(part), number])
            events = saccades.record(images[number, ..., 0], generator)
            name = f"{CLASS_NAMES[labels[number]]}/{part}_{number:05d}"
            write_aedat(folder / f"{name}.aedat", events)
            split.append(f"{part} {name}\n")
            progress()
    # Last: without it the recordings are not read, since they are not complete.
    (folder / SPLIT_FILE).write_text("".join(split))
