"""Augmentations of training images, by the names used in recipes. Each file has one operation or one kind of operation.

An augmentation is a function `augment(image, seed)` of one image: a float32 tensor `(height, width, channels)` of raw pixels,
frames `(time, height, width, channels)`, or steps `(time, channels)`. `seed`, a pair of integers, is the only source of
randomness: the same image and seed give the same result on every backend and in a resumed run. It uses TensorFlow, for
`tf.data`, with every backend. Other augmentations, and mixes of the images of a batch, are layers of Keras and keras-cv, see
`layers`.
"""

import functools
import importlib

from recipes.augmentation import layers


def _later(file, name):
    """The function `name` of a file in this folder, imported on the first call, so that names do not require TensorFlow."""
    # TensorFlow rewrites functions called by `tf.data`, which fails for import statements, but not functions with a cache.
    load = functools.cache(functools.partial(importlib.import_module, f"{__name__}.{file}"))

    def call(*arguments):
        return getattr(load(), name)(*arguments)

    return call


BY_NAME = {
    "none": None,
    "cifar10": _later("data_sets", "cifar10"),
    "cifar100": _later("data_sets", "cifar100"),
    "cifar10_dvs": _later("data_sets", "cifar10_dvs"),
    "event_drop": _later("event_drop", "event_drop"),
    "fashion_mnist": _later("data_sets", "fashion_mnist"),
    "fashion_mnist_cutout": _later("data_sets", "fashion_mnist_cutout"),
    "imagenet": _later("data_sets", "imagenet"),
    "spoken_words": _later("spoken_words", "spoken_words"),
}
"""Augmentations of single images; None is no augmentation."""

AUGMENTATIONS = (*BY_NAME, *layers.AUGMENTATIONS)
"""All names of augmentations."""

MIXES = ("none", *layers.MIXES)
"""All names of mixes of a batch."""
