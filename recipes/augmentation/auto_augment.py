"""AutoAugment: one of 25 sub-policies, drawn for each image.

Cubuk, Zoph, Mané, Vasudevan, Le, "AutoAugment: Learning Augmentation Strategies from
Data", CVPR 2019 (arXiv 1805.09501).
"""

import csv
import functools
import pathlib

import numpy as np
import tensorflow as tf

from recipes.augmentation.operations import OPERATIONS

NOTHING = len(OPERATIONS)
"""The number for no operation."""

with pathlib.Path(__file__).with_name("cifar10_policy.csv").open() as _file:
    _, *_rows = csv.reader(_file)
CIFAR10_POLICY = tuple(
    tuple((name, float(p), int(level)) for name, p, level in (row[:3], row[3:]))
    for row in _rows
)
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
        numbers, strengths = draw_steps(policy, seed)
        for number, strength in zip(
            tf.unstack(numbers), tf.unstack(strengths), strict=True
        ):
            image = tf.ensure_shape(_operate(number, image, strength), image.shape)
        return image

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
    names = list(OPERATIONS)
    numbers = np.array(
        [[names.index(name) for name, _, _ in steps] for steps in policy], "int32"
    )
    probabilities = np.array(
        [[probability for _, probability, _ in steps] for steps in policy], "float32"
    )
    strengths = np.array(
        [
            [_either_strength(name, level) for name, _, level in steps]
            for steps in policy
        ],
        "float32",
    )

    draws = tf.random.stateless_uniform((5,), seed)
    row = tf.cast(draws[0] * len(policy), tf.int32)
    taken = draws[1:3] < tf.gather(probabilities, row)
    direction = tf.cast(draws[3:5] * 2, tf.int32)
    strength = tf.gather(tf.gather(strengths, row), direction, batch_dims=1)
    return tf.where(taken, tf.gather(numbers, row), NOTHING), strength


def _either_strength(name, level):
    """The strengths in both directions, which are equal if there is only one."""
    rows = OPERATIONS[name].strengths
    return rows[0][level], rows[-1][level]


def _operate(number, image, strength):
    """Applies the operation with this number, or none for `NOTHING`. No other operation
    is computed."""
    branches = [
        functools.partial(operation.function, image, strength)
        for operation in OPERATIONS.values()
    ]
    return tf.switch_case(number, [*branches, lambda: image])
