"""AutoAugment: one of 25 sub-policies, drawn for each image.

Cubuk, Zoph, Mané, Vasudevan, Le, "AutoAugment: Learning Augmentation Strategies from
Data", CVPR 2019 (arXiv 1805.09501).

Its operations are those of Pillow. Those of Keras and keras-cv differ from the ones
that were used in the search for the policy.
"""

import csv
import pathlib

import numpy as np
import tensorflow as tf

from recipes.packages import imported

Image = imported("PIL.Image", "AutoAugment", "recipes")
ImageEnhance = imported("PIL.ImageEnhance", "AutoAugment", "recipes")
ImageOps = imported("PIL.ImageOps", "AutoAugment", "recipes")

LARGEST_LEVEL = 9
"""The strengths of an operation have levels from 0 on."""

LARGEST_SHIFT = 150 / 331
"""The largest translation, as a share of the width or height."""


def _moved(picture, *matrix):
    """Each pixel (x, y) of the result is the pixel (a x + b y + c, d x + e y + f) of
    the picture, or black."""
    nearest = Image.Resampling.NEAREST
    return picture.transform(picture.size, Image.Transform.AFFINE, matrix, nearest)


def _shear_y(picture, slope):
    return _moved(picture, 1, 0, 0, slope, 1, 0)


def _translate_x(picture, share):
    return _moved(picture, 1, 0, -int(picture.width * share), 0, 1, 0)


def _translate_y(picture, share):
    return _moved(picture, 1, 0, 0, 0, 1, -int(picture.height * share))


def _posterize(picture, dropped_bits):
    return ImageOps.posterize(picture, 8 - abs(round(dropped_bits)))


def _solarize(picture, below_white):
    # torchvision now uses 255, because a uint8 tensor cannot be compared with 256.
    return ImageOps.solarize(picture, 256 - abs(below_white))


def _enhanced(kind):
    return lambda picture, change: kind(picture).enhance(1 + change)


def _without_strength(function):
    return lambda picture, _: function(picture)


OPERATIONS = {
    "ShearY": (_shear_y, 0.3),
    "TranslateX": (_translate_x, LARGEST_SHIFT),
    "TranslateY": (_translate_y, LARGEST_SHIFT),
    "Rotate": (Image.Image.rotate, 30),
    "Color": (_enhanced(ImageEnhance.Color), 0.9),
    "Contrast": (_enhanced(ImageEnhance.Contrast), 0.9),
    "Brightness": (_enhanced(ImageEnhance.Brightness), 0.9),
    "Sharpness": (_enhanced(ImageEnhance.Sharpness), 0.9),
    "Posterize": (_posterize, 4),
    "Solarize": (_solarize, 256),
    "Invert": (_without_strength(ImageOps.invert), 0),
    "AutoContrast": (_without_strength(ImageOps.autocontrast), 0),
    "Equalize": (_without_strength(ImageOps.equalize), 0),
}
"""The operations by their names in the paper: functions of a picture and a strength,
and torchvision's largest strength. The two directions of a strength are equally likely.
No CIFAR-10 sub-policy uses ShearX."""

with pathlib.Path(__file__).with_name("cifar10_policy.csv").open() as file:
    _, *CIFAR10_POLICY = csv.reader(file)
"""Sub-policies of two steps: for each an operation, its probability, and its level."""


def auto_augment(image, seed):
    """Draws a sub-policy uniformly and applies each of its steps with its
    probability, to an RGB image with integer values from 0 to 255."""
    if image.shape[-1] != 3:
        raise ValueError(
            "AutoAugment's images must have three channels, `(height, width, 3)`. "
            f"Received: image.shape={image.shape}."
        )
    draws = tf.random.stateless_uniform((5,), seed)
    augmented = tf.numpy_function(_operate, [image, draws], tf.float32)
    return tf.ensure_shape(augmented, image.shape)


def _operate(image, draws):
    """Applies the steps that uniform draws in [0, 1) choose."""
    picture = Image.fromarray(image.astype("uint8"))
    policy = CIFAR10_POLICY[int(draws[0] * len(CIFAR10_POLICY))]
    for step in (0, 1):
        name, probability, level = policy[3 * step : 3 * step + 3]
        if draws[1 + step] < float(probability):
            function, largest = OPERATIONS[name]
            direction = 1 if draws[3 + step] < 0.5 else -1
            strength = direction * int(level) / LARGEST_LEVEL * largest
            picture = function(picture, strength)
    return np.asarray(picture, "float32")
