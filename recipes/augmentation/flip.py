"""Left and right exchanged."""

import tensorflow as tf


def random_flip(image, seed):
    """`image` or, as likely, its mirror image. All frames of a sequence turn together."""
    # `tf.image.stateless_random_flip_left_right` would draw for each frame.
    return tf.where(tf.random.stateless_uniform((), seed) < 0.5, tf.reverse(image, axis=[-2]), image)
