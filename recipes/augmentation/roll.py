"""Cyclic shifts of images."""

import tensorflow as tf


def random_roll(pixels):
    """An augmentation that rolls an image by up to `pixels` along both axes, all frames of a sequence together."""

    def augment(image, seed):
        if image.shape.rank < 3:
            raise ValueError(f"Rolling is for images (..., height, width, channels), not for {image.shape}.")
        shifts = tf.random.stateless_uniform((2,), seed, minval=-pixels, maxval=pixels + 1, dtype=tf.int32)
        return tf.roll(image, shifts, axis=(-3, -2))

    return augment
