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

LEVELS = 10
"""The number of strengths of an operation: 0 to 9."""

LARGEST_SHIFT = 150 / 331
"""As a share of the width or height."""


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


def _enhanced(kind):
    return lambda picture, factor: kind(picture).enhance(factor)


def _up_to(largest):
    return np.linspace(0, largest, LEVELS)


def _around(middle, farthest):
    return middle + _up_to(farthest), middle - _up_to(farthest)


NONE = (np.zeros(LEVELS),)

OPERATIONS = {
    "ShearY": (_shear_y, _around(0, 0.3)),
    "TranslateX": (_translate_x, _around(0, LARGEST_SHIFT)),
    "TranslateY": (_translate_y, _around(0, LARGEST_SHIFT)),
    "Rotate": (lambda picture, degrees: picture.rotate(degrees), _around(0, 30)),
    "Color": (_enhanced(ImageEnhance.Color), _around(1, 0.9)),
    "Contrast": (_enhanced(ImageEnhance.Contrast), _around(1, 0.9)),
    "Brightness": (_enhanced(ImageEnhance.Brightness), _around(1, 0.9)),
    "Sharpness": (_enhanced(ImageEnhance.Sharpness), _around(1, 0.9)),
    "Posterize": (
        lambda picture, bits: ImageOps.posterize(picture, int(bits)),
        [8 - np.round(_up_to(4))],
    ),
    # torchvision now uses 255, because a uint8 tensor cannot be compared with 256.
    "Solarize": (ImageOps.solarize, [256 - _up_to(256)]),
    "Invert": (lambda picture, _: ImageOps.invert(picture), NONE),
    "AutoContrast": (lambda picture, _: ImageOps.autocontrast(picture), NONE),
    "Equalize": (lambda picture, _: ImageOps.equalize(picture), NONE),
}
"""The operations by their names in the paper: functions of a picture and a strength,
and torchvision's strengths by level, in a row, or in two for the two directions, which
are equally likely. No CIFAR-10 sub-policy uses ShearX."""

NAMES = list(OPERATIONS)
NOTHING = len(NAMES)
"""The number for no operation."""


def _policy():
    path = pathlib.Path(__file__).with_name("cifar10_policy.csv")
    with path.open() as file:
        _, *rows = csv.reader(file)
    steps = [(row[:3], row[3:]) for row in rows]
    return tuple(
        tuple((name, float(share), int(level)) for name, share, level in pair)
        for pair in steps
    )


CIFAR10_POLICY = _policy()
"""Sub-policies of two steps: an operation, its probability, and its level, 0 to 9 (0 if
there are no levels)."""


def auto_augment(policy=CIFAR10_POLICY):
    """An augmentation that draws a sub-policy uniformly and applies each of its steps
    with its probability.

    Args:
        policy: Sub-policies in the format of `CIFAR10_POLICY`.

    Returns:
        The augmentation, for RGB images with integer values from 0 to 255.
    """

    def augment(image, seed):
        if image.shape[-1] != 3:
            raise ValueError(
                "AutoAugment's images must have three channels, `(height, width, 3)`. "
                f"Received: image.shape={image.shape}."
            )
        steps = draw_steps(policy, seed)
        augmented = tf.numpy_function(_operate, [image, *steps], tf.float32)
        return tf.ensure_shape(augmented, image.shape)

    return augment


def draw_steps(policy, seed):
    """Draws a sub-policy and its two steps.

    Args:
        policy: Sub-policies in the format of `CIFAR10_POLICY`.
        seed: Pair of integers.

    Returns:
        Two tensors of two numbers: the index in `OPERATIONS`, or `NOTHING`, and the
        strength of each step.
    """
    numbers, probabilities, strengths = [], [], []
    for steps in policy:
        numbers.append([NAMES.index(name) for name, _, _ in steps])
        probabilities.append([probability for _, probability, _ in steps])
        strengths.append([_either_strength(name, level) for name, _, level in steps])
    draws = tf.random.stateless_uniform((5,), seed)
    row = tf.cast(draws[0] * len(policy), tf.int32)
    taken = draws[1:3] < tf.gather(np.array(probabilities, "float32"), row)
    direction = tf.cast(draws[3:5] * 2, tf.int32)
    both_strengths = tf.gather(np.array(strengths, "float32"), row)
    strength = tf.gather(both_strengths, direction, batch_dims=1)
    return tf.where(
        taken, tf.gather(np.array(numbers, "int32"), row), NOTHING
    ), strength


def _either_strength(name, level):
    """The strengths in both directions, which are equal if there is only one."""
    _, rows = OPERATIONS[name]
    return rows[0][level], rows[-1][level]


def _operate(image, numbers, strengths):
    """Applies the operations with these numbers."""
    picture = Image.fromarray(image.astype("uint8"))
    for number, strength in zip(numbers, strengths, strict=True):
        if number != NOTHING:
            function, _ = OPERATIONS[NAMES[number]]
            picture = function(picture, float(strength))
    return np.asarray(picture, "float32")
