"""Augmentations of training images, by the names used in recipes.

Those of a data set are functions `augment(image, seed)` of one image, see `data_sets`:
a float32 tensor `(height, width, channels)` of raw pixels, or frames `(time, height,
width, channels)`. `seed`, a pair of integers, is the only source of randomness: the
same image and seed give the same result on every backend and in a resumed run. They use
TensorFlow, for `tf.data`, with every backend. Other augmentations, and mixes of the
images of a batch, are layers of Keras, see `layers`.
"""

IMAGE_FUNCTIONS = (
    "cifar10",
    "cifar100",
    "cifar10_dvs",
    "fashion_mnist",
    "fashion_mnist_cutout",
    "imagenet",
)
"""Augmentations of single images."""

LAYERS = ("randaugment", "random_erasing", "transformer")
"""Augmentations that are layers of Keras."""

AUGMENTATIONS = ("none", *IMAGE_FUNCTIONS, *LAYERS)
"""All names of augmentations."""

MIXES = ("none", "mixup", "cutmix")
"""All names of mixes of a batch."""


def image_function(name):
    """The augmentation of single images with a name; None if it is that of a layer, or
    no augmentation."""
    if name not in IMAGE_FUNCTIONS:
        return None
    # Imported here, so that names do not require TensorFlow.
    from recipes.augmentation import data_sets

    return getattr(data_sets, name)


def layer(name):
    """The function that makes the layer of an augmentation or a mix of a seed; None if
    the name is that of no layer."""
    from recipes.augmentation import layers

    return getattr(layers, name) if name in (*LAYERS, *MIXES[1:]) else None
