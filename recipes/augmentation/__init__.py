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


LAYERS = ("randaugment", "random_erasing", "cutout", "grid_mask", "transformer")
"""Augmentations that are layers of Keras or keras-cv."""

SEQUENCE_MIX = "cutmix_in_time"
"""The mix of sequences; the others are of images."""

AUGMENTATIONS = ("none", *BY_NAME, *LAYERS)
"""All names of augmentations."""

MIXES = ("none", "mixup", "cutmix", SEQUENCE_MIX)
"""All names of mixes of a batch."""


def image_function(name):
    """The augmentation of single images with a name; None if it is that of a layer, or
    no augmentation.

    It is imported here, so that names do not require TensorFlow.
    """
    if name not in BY_NAME:
        return None
    return getattr(importlib.import_module(f"{__name__}.{BY_NAME[name]}"), name)


def layer(name):
    """The function that makes the layer of an augmentation or a mix of a seed; None if
    the name is that of no layer."""
    if name not in (*LAYERS, *MIXES[1:]):
        return None
    return getattr(importlib.import_module(f"{__name__}.layers"), name)
