"""Pixels moved sideways and up or down; what leaves at one edge comes in at the other."""

import tensorflow as tf


def random_roll(pixels):
    """An augmentation that rolls an image by up to `pixels` in each of both directions, all frames of a sequence together."""

    def augment(image, seed):
        shifts = tf.random.stateless_uniform((2,), seed, minval=-pixels, maxval=pixels + 1, dtype=tf.int32)
        return tf.roll(image, shifts, axis=(-3, -2))

    return augment
