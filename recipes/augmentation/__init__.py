"""Augmentations of training images, by the names used in recipes. Each file has one
kind of operation.

An augmentation is a function `augment(image, seed)` of one image: a float32 tensor
`(height, width, channels)` of raw pixels, frames `(time, height, width, channels)`, or
steps `(time, channels)`. `seed`, a pair of integers, is the only source of randomness:
the same image and seed give the same result on every backend and in a resumed run. It
uses TensorFlow, for `tf.data`, with every backend. Other augmentations, and mixes of
the images of a batch, are layers of Keras and keras-cv, see `layers`.
"""

import importlib

from recipes.augmentation import layers

BY_NAME = {
    **dict.fromkeys(
        (
            "cifar10",
            "cifar100",
            "cifar10_dvs",
            "fashion_mnist",
            "fashion_mnist_cutout",
            "imagenet",
        ),
        "data_sets",
    ),
    "event_drop": "event_drop",
    "spoken_words": "spoken_words",
}
"""Augmentations of single images, and the files of this folder that they are in."""


def of_images(name):
    """The augmentation of single images with a name; None if it is that of a layer, or
    no augmentation.

    It is imported here, so that names do not require TensorFlow.
    """
    return (
        getattr(importlib.import_module(f"{__name__}.{BY_NAME[name]}"), name)
        if name in BY_NAME
        else None
    )


AUGMENTATIONS = ("none", *BY_NAME, *layers.AUGMENTATIONS)
"""All names of augmentations."""

MIXES = ("none", *layers.MIXES)
"""All names of mixes of a batch."""
