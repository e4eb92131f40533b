"""Horizontal flips."""

import tensorflow as tf


def random_flip(image, seed):
    """Flips an image horizontally with probability 1/2. All frames of a sequence are flipped together."""
    # `tf.image.stateless_random_flip_left_right` would draw for each frame.
    return tf.where(tf.random.stateless_uniform((), seed) < 0.5, tf.reverse(image, axis=[-2]), image)
