"""Images in other sizes, by TensorFlow."""

import tensorflow as tf

SHORTER_SIDE, CENTER = 256, 224
"""The shorter side to which images are resized for evaluation, and the side of their
center crop."""


def resized(image, shape):
    """The image resized to another height and width, with antialiasing as in Pillow."""
    return tf.image.resize(image, shape, antialias=True)


def resized_center(image):
    """The center crop of an image `(height, width, channels)`, resized with its aspect
    ratio kept, for evaluation."""
    shape = tf.shape(image)[:2]
    new_shape = shape * SHORTER_SIDE // tf.reduce_min(shape)
    return tf.image.resize_with_crop_or_pad(resized(image, new_shape), CENTER, CENTER)
