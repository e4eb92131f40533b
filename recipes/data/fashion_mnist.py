"""Fashion-MNIST: 70,000 images of clothes in ten classes, 28x28 pixels."""

import pathlib

import numpy as np

from recipes.data import prepared
from recipes.data.dataset import Dataset, check_folder
from recipes.data.idx import read_idx

IMAGE_SHAPE = (28, 28, 1)
LARGEST_PIXEL = 255
PIXELS = ((72.94,), (90.02,))
"""Mean and standard deviation of the training pixels."""

CLASSES = 10

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
NAME = "fashion_mnist"
URL = f"http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/{FILES[3]}.gz"

FOLDER_ADVICE = (
    f"--data-dir is a folder with the four files {', '.join(FILES)}, plain "
    f"or with the suffix .gz; or TensorFlow Datasets' folder, in which {NAME} is "
    "prepared."
)


def load(data_dir=None):
    """Fashion-MNIST from a folder of its four IDX files, or through TensorFlow
    Datasets.

    Args:
        data_dir: The folder of the four files, or TensorFlow Datasets' folder; None for
            its default.

    Returns:
        A `Dataset`.

    Raises:
        FileNotFoundError: If the folder or one of its files is missing.
        NotADirectoryError: If `data_dir` is not a folder.
        ValueError: If a file is damaged or has the wrong content.
        ImportError: If TensorFlow Datasets is needed and not installed.
        ConnectionError: If TensorFlow Datasets cannot provide the data.
    """
    if data_dir is None or (pathlib.Path(data_dir) / NAME).is_dir():
        return prepared.in_memory(prepared.builder(NAME, data_dir, URL, FOLDER_ADVICE))
    return _from_folder(pathlib.Path(data_dir))


def _from_folder(folder):
    check_folder(folder, FOLDER_ADVICE)
    paths = [_find(folder, name) for name in FILES]
    train_images, train_labels = _images_and_labels(*paths[:2])
    test_images, test_labels = _images_and_labels(*paths[2:])
    return Dataset(train_images, train_labels, test_images, test_labels)


def _find(folder, name):
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"There is no file {folder / name} and no {name}.gz next to it. {FOLDER_ADVICE}"
    )


def _images_and_labels(images_path, labels_path):
    images, labels = read_idx(images_path), read_idx(labels_path)
    if images.shape[1:] != IMAGE_SHAPE[:2]:
        raise ValueError(
            f"{images_path} must hold images {IMAGE_SHAPE[:2]}. It holds an array of "
            f"shape {images.shape}."
        )
    if labels.shape != (len(images),) or labels.max() >= CLASSES:
        raise ValueError(
            f"{labels_path} must hold a label from 0 to {CLASSES - 1} for each of the "
            f"{len(images)} images of {images_path.name}. It holds an array of shape "
            f"{labels.shape}, whose largest is {labels.max(initial=0)}."
        )
    return images[..., np.newaxis], labels.astype("int32")
