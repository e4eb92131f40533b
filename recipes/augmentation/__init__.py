"""What is done to training images, by the names that recipes use. One operation, or one kind of it, a file.

An augmentation is a function `augment(image, seed)` of one image: a float32 tensor `(height, width, channels)` of pixels as the
files have them, or frames `(time, height, width, channels)`. `seed`, a pair of integers, is all that is random about it: the
same image and seed give the same result on every backend and in a run that is resumed. A mix is a function
`mix(images, labels, seed)` of a batch with one-hot labels. Both are TensorFlow, for `tf.data`, whichever backend trains.
"""

import functools
import importlib


def _later(file, name):
    """The function `name` of a file of this folder, which is imported when it is called: names must not need TensorFlow."""
    # TensorFlow rewrites what `tf.data` calls, fails with Python's import, and leaves functions with a cache as they are.
    load = functools.cache(functools.partial(importlib.import_module, f"{__name__}.{file}"))

    def call(*arguments):
        return getattr(load(), name)(*arguments)

    return call


BY_NAME = {
    "none": None,
    "cifar10": _later("data_sets", "cifar10"),
    "cifar100": _later("data_sets", "cifar100"),
    "cifar10_dvs": _later("data_sets", "cifar10_dvs"),
    "fashion_mnist": _later("data_sets", "fashion_mnist"),
    "imagenet": _later("data_sets", "imagenet"),
}
"""Augmentations of single images; None leaves them as they are."""

MIXES = {"none": None, "mixup": _later("mixes", "mixup"), "cutmix": _later("mixes", "cutmix")}
"""Mixes of a batch; None leaves it as it is."""

resized_center = _later("crops", "resized_center")
