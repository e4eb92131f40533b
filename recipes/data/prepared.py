"""Data sets from TensorFlow Datasets, which prepares them once and downloads them if
necessary."""

import urllib.request

import numpy as np

from recipes import packages
from recipes.data.dataset import Dataset
from recipes.packages import tensorflow_for_data

SECONDS_TO_CONNECT = 20
READ_AT_ONCE = 1000


def builder(name, data_dir, url, advice):
    """A TensorFlow Datasets builder whose data is on disk.

    Args:
        name: String, the name of the data set in TensorFlow Datasets.
        data_dir: Path of TensorFlow Datasets' folder, or None for its default,
            `~/tensorflow_datasets`.
        url: String, a URL of the download. It is tried first, because TensorFlow
            Datasets would retry for minutes before it reports that there is no network.
            None if the data cannot be downloaded.
        advice: String, advice for the user in error messages.

    Raises:
        ImportError: If TensorFlow Datasets is not installed.
        ConnectionError: If TensorFlow Datasets cannot provide the data.
    """
    tensorflow_for_data()
    try:
        tfds = packages.imported("tensorflow_datasets", name, "recipes")
        made = tfds.builder(name, data_dir=data_dir)
        if not made.is_prepared():
            if url is not None:
                urllib.request.urlopen(url, timeout=SECONDS_TO_CONNECT).close()
            made.download_and_prepare()
    except ImportError as error:
        raise ImportError(f"{error} {advice}") from error
    # The error of a download depends on where it fails, and gives no advice.
    except Exception as error:
        place = f"in {data_dir}" if data_dir else "in its default folder"
        raise ConnectionError(
            f"TensorFlow Datasets has no {name} {place} and could not prepare it "
            f"({type(error).__name__}: {error}). {advice}"
        ) from error
    return made


def in_memory(made):
    """The splits `train` and `test` of a builder, as a `Dataset` of arrays."""
    class_names = tuple(made.info.features["label"].names)
    return Dataset(*_arrays(made, "train"), *_arrays(made, "test"), class_names)


def _arrays(made, split):
    batches = made.as_dataset(
        split=split, as_supervised=True, batch_size=READ_AT_ONCE
    ).as_numpy_iterator()
    return [np.concatenate(parts) for parts in zip(*batches, strict=True)]
