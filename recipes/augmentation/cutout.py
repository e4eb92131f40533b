"""Cutout: hides a square of the image.

DeVries, Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout", 2017 (arXiv 1708.04552).
"""

import tensorflow as tf


def cutout(size, color):
    """An augmentation that fills a square around a random pixel; the part outside the image is cut off.

    Args:
        size: Even integer, the side of the square in pixels.
        color: Floats, one for each channel: the mean of the data set, which becomes zero after normalisation.

    Returns:
        The augmentation.
    """

    def augment(image, seed):
        shape = tf.shape(image)[:2]
        center = tf.cast(tf.random.stateless_uniform((2,), seed) * tf.cast(shape, tf.float32), tf.int32)
        rows, columns = (_near(tf.range(shape[axis]), center[axis], size // 2) for axis in (0, 1))
        return tf.where(rows[:, tf.newaxis, tf.newaxis] & columns[:, tf.newaxis], tf.constant(color, image.dtype), image)

    return augment


def _near(positions, center, reach):
    return (positions >= center - reach) & (positions < center + reach)
