"""Fashion-MNIST: 70,000 pictures of clothes in ten classes, 28x28 pixels."""

import pathlib
import urllib.request

import keras
import numpy as np

from recipes.data.dataset import Dataset
from recipes.data.idx import read_idx

IMAGE_SHAPE = (28, 28, 1)
LARGEST_PIXEL = 255
CLASSES = 10

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
SMALLEST_DOWNLOAD = f"{FILES[3]}.gz"
SECONDS_TO_CONNECT = 20

FOLDER_ADVICE = f"--data-dir names a folder with the four files {', '.join(FILES)}, each as it is or with .gz at its end."


def load(data_dir=None):
    """Fashion-MNIST from a folder of its four IDX files, or through TensorFlow Datasets.

    Args:
        data_dir: The folder; None for TensorFlow Datasets, which downloads the data once.

    Returns:
        A `Dataset`.

    Raises:
        FileNotFoundError: If the folder or one of its files is missing.
        NotADirectoryError: If `data_dir` is not a folder.
        ValueError: If a file is damaged or holds something else.
        ImportError: If TensorFlow Datasets is needed and not installed.
        ConnectionError: If TensorFlow Datasets cannot provide the data.
    """
    return _from_tensorflow_datasets() if data_dir is None else _from_folder(pathlib.Path(data_dir))


def _from_folder(folder):
    if not folder.exists():
        raise FileNotFoundError(f"The folder {folder} does not exist. {FOLDER_ADVICE}")
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder. {FOLDER_ADVICE}")
    paths = [_find(folder, name) for name in FILES]
    train_images, train_labels = _images_and_labels(*paths[:2])
    test_images, test_labels = _images_and_labels(*paths[2:])
    return Dataset(train_images, train_labels, test_images, test_labels)


def _find(folder, name):
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise FileNotFoundError(f"There is no file {folder / name} and no {name}.gz beside it. {FOLDER_ADVICE}")


def _images_and_labels(images_path, labels_path):
    images, labels = read_idx(images_path), read_idx(labels_path)
    height, width, _ = IMAGE_SHAPE
    if images.ndim != 3 or images.shape[1:] != (height, width) or not len(images):
        raise ValueError(f"{images_path} must hold an array (images, {height}, {width}). It holds one of shape {images.shape}.")
    if labels.shape != (len(images),):
        raise ValueError(
            f"{labels_path} must hold one label for each of the {len(images)} images of {images_path.name}. "
            f"It holds an array of shape {labels.shape}."
        )
    if labels.max() >= CLASSES:
        raise ValueError(f"{labels_path} must hold labels from 0 to {CLASSES - 1}. Its largest is {labels.max()}.")
    return images[..., np.newaxis], labels.astype("int32")


def _check_connection(url):
    """OSError at once where there is no network; TensorFlow Datasets would try again for minutes before it says so."""
    urllib.request.urlopen(url, timeout=SECONDS_TO_CONNECT).close()


def _from_tensorflow_datasets():
    try:
        import tensorflow as tf
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError(
            f'Without --data-dir, Fashion-MNIST needs TensorFlow Datasets ({error}): pip install "keras-ratesnn[recipes]". '
            f"Or give --data-dir. {FOLDER_ADVICE}"
        ) from error

    if keras.backend.backend() != "tensorflow":
        # TensorFlow takes all of a GPU's memory when it first sees it, and another backend trains here.
        tf.config.set_visible_devices([], "GPU")
    try:
        if not tfds.builder("fashion_mnist").is_prepared():
            _check_connection(tfds.image_classification.FashionMNIST.URL + SMALLEST_DOWNLOAD)
        splits = tfds.load("fashion_mnist", split=["train", "test"], batch_size=-1, as_supervised=True)
    # What a download raises depends on where it fails, and none of it says what else to do.
    except Exception as error:
        raise ConnectionError(
            f"TensorFlow Datasets could not provide Fashion-MNIST ({type(error).__name__}: {error}). "
            f"Without a network, give --data-dir. {FOLDER_ADVICE}"
        ) from error
    (train_images, train_labels), (test_images, test_labels) = tfds.as_numpy(splits)
    return Dataset(train_images, train_labels, test_images, test_labels)
