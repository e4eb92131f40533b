"""AutoAugment: one of 25 sub-policies, drawn for each image.

Cubuk, Zoph, Mané, Vasudevan, Le, "AutoAugment: Learning Augmentation Strategies from Data", CVPR 2019 (arXiv 1805.09501).
"""

import functools

import numpy as np
import tensorflow as tf

from recipes.augmentation.operations import OPERATIONS

NOTHING = len(OPERATIONS)
"""In the place of the number of an operation: none."""

CIFAR10_POLICY = (
    (("Invert", 0.1, 0), ("Contrast", 0.2, 6)),
    (("Rotate", 0.7, 2), ("TranslateX", 0.3, 9)),
    (("Sharpness", 0.8, 1), ("Sharpness", 0.9, 3)),
    (("ShearY", 0.5, 8), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.5, 0), ("Equalize", 0.9, 0)),
    (("ShearY", 0.2, 7), ("Posterize", 0.3, 7)),
    (("Color", 0.4, 3), ("Brightness", 0.6, 7)),
    (("Sharpness", 0.3, 9), ("Brightness", 0.7, 9)),
    (("Equalize", 0.6, 0), ("Equalize", 0.5, 0)),
    (("Contrast", 0.6, 7), ("Sharpness", 0.6, 5)),
    (("Color", 0.7, 7), ("TranslateX", 0.5, 8)),
    (("Equalize", 0.3, 0), ("AutoContrast", 0.4, 0)),
    (("TranslateY", 0.4, 3), ("Sharpness", 0.2, 6)),
    (("Brightness", 0.9, 6), ("Color", 0.2, 8)),
    (("Solarize", 0.5, 2), ("Invert", 0.0, 0)),
    (("Equalize", 0.2, 0), ("AutoContrast", 0.6, 0)),
    (("Equalize", 0.2, 0), ("Equalize", 0.6, 0)),
    (("Color", 0.9, 9), ("Equalize", 0.6, 0)),
    (("AutoContrast", 0.8, 0), ("Solarize", 0.2, 8)),
    (("Brightness", 0.1, 3), ("Color", 0.7, 0)),
    (("Solarize", 0.4, 5), ("AutoContrast", 0.9, 0)),
    (("TranslateY", 0.9, 9), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.9, 0), ("Solarize", 0.8, 3)),
    (("Equalize", 0.8, 0), ("Invert", 0.1, 0)),
    (("TranslateY", 0.7, 9), ("AutoContrast", 0.9, 0)),
)
"""Sub-policies of two steps: an operation, how probable it is, and its level, 0 to 9 (0 also where there are no levels)."""


def auto_augment(policy=CIFAR10_POLICY):
    """An augmentation that draws a sub-policy, all as likely, and takes each of its steps with the probability it says.

    Args:
        policy: Sub-policies, as `CIFAR10_POLICY` has them.

    Returns:
        The augmentation. Its images are of three colours and of whole numbers from 0 to 255.
    """

    def augment(image, seed):
        if image.shape[-1] != 3:
            raise ValueError(
                f"AutoAugment's images must be of three colours, `(height, width, 3)`. Received: image.shape={image.shape}."
            )
        numbers, strengths = draw_steps(policy, seed)
        for number, strength in zip(tf.unstack(numbers), tf.unstack(strengths), strict=True):
            image = tf.ensure_shape(_operate(number, image, strength), image.shape)
        return image

    return augment


def draw_steps(policy, seed):
    """The two steps of a sub-policy, which is drawn.

    Args:
        policy: Sub-policies, as `CIFAR10_POLICY` has them.
        seed: Pair of integers.

    Returns:
        Two tensors of two numbers: which operation, by its place among `OPERATIONS` or `NOTHING`, and how strong it is.
    """
    names = list(OPERATIONS)
    numbers = np.array([[names.index(name) for name, _, _ in steps] for steps in policy], "int32")
    probabilities = np.array([[probability for _, probability, _ in steps] for steps in policy], "float32")
    strengths = np.array([[_either_strength(name, level) for name, _, level in steps] for steps in policy], "float32")

    draws = tf.random.stateless_uniform((5,), seed)
    row = tf.cast(draws[0] * len(policy), tf.int32)
    taken = draws[1:3] < tf.gather(probabilities, row)
    direction = tf.cast(draws[3:5] * 2, tf.int32)
    strength = tf.gather(tf.gather(strengths, row), direction, batch_dims=1)
    return tf.where(taken, tf.gather(numbers, row), NOTHING), strength


def _either_strength(name, level):
    """The strength in one direction and in the other, the same twice if there is one only."""
    rows = OPERATIONS[name].strengths
    return rows[0][level], rows[-1][level]


def _operate(number, image, strength):
    """The image after the operation of this number, or as it is for `NOTHING`. No other operation is computed."""
    branches = [functools.partial(operation.function, image, strength) for operation in OPERATIONS.values()]
    return tf.switch_case(number, [*branches, lambda: image])
