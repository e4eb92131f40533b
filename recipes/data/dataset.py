"""Dataset: images and labels to train with and to test with."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Labelled images in memory.

    Attributes:
        train_images: Array `(images, height, width, channels)` of pixels as the files have them.
        train_labels: Array `(images,)` of integers, the classes.
        test_images: As `train_images`; nothing is chosen or trained by them.
        test_labels: As `train_labels`.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
