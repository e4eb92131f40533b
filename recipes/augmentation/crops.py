"""Crops of images."""

import math

import tensorflow as tf

from recipes.data.resizing import resized

AREA = (0.08, 1.0)
"""The range of a random crop's fraction of the image area, as in torchvision."""

RATIO = (3 / 4, 4 / 3)
"""The range of the ratio of its width to its height, as in torchvision."""

TRIES = 10
"""The number of crops to try before the center crop is used, as in torchvision."""


def random_crop(padding):
    """An augmentation that shifts an image by up to `padding` pixels in each direction; new pixels are black."""

    def augment(image, seed):
        padded = tf.pad(image, [(padding, padding), (padding, padding), (0, 0)])
        return tf.image.stateless_random_crop(padded, tf.shape(image), seed)

    return augment


def random_resized_crop(size):
    """An augmentation that resizes a random crop, with the distribution of torchvision's `RandomResizedCrop`.

    `tf.image.stateless_sample_distorted_bounding_box` has another distribution: the height is uniform instead of the area, and
    the crops are a sixth smaller.

    Args:
        size: Integer, the height and width of the result.

    Returns:
        The augmentation.
    """

    def augment(image, seed):
        top, left, height, width = random_part(tf.shape(image)[0], tf.shape(image)[1], seed, AREA, RATIO)
        return resized(image[top : top + height, left : left + width], (size, size))

    return augment


def random_part(image_height, image_width, seed, area, ratio):
    """Top, left, height and width of a crop with area and ratio drawn from their ranges, see `random_resized_crop`.

    Areas are drawn uniformly, ratios uniformly on a log scale. The first of `TRIES` draws that fits is used; if none fits, the
    largest center crop with an allowed ratio.
    """
    draws = tf.random.stateless_uniform((4, TRIES), seed)
    pixels = tf.cast(image_height * image_width, tf.float32)
    areas = pixels * (area[0] + draws[0] * (area[1] - area[0]))
    ratios = tf.exp(math.log(ratio[0]) + draws[1] * math.log(ratio[1] / ratio[0]))
    heights = tf.cast(tf.round(tf.sqrt(areas / ratios)), tf.int32)
    widths = tf.cast(tf.round(tf.sqrt(areas * ratios)), tf.int32)
    tops, lefts = _places(draws[2], image_height - heights), _places(draws[3], image_width - widths)
    fits = (heights >= 1) & (heights <= image_height) & (widths >= 1) & (widths <= image_width)

    # The last draw always fits.
    height = tf.minimum(image_height, tf.cast(tf.round(tf.cast(image_width, tf.float32) / ratio[0]), tf.int32))
    width = tf.minimum(image_width, tf.cast(tf.round(tf.cast(image_height, tf.float32) * ratio[1]), tf.int32))
    middle = [(image_height - height) // 2, (image_width - width) // 2, height, width]

    parts = tf.concat([tf.stack([tops, lefts, heights, widths], axis=1), [middle]], axis=0)
    first = tf.argmax(tf.concat([fits, [True]], axis=0))
    return tf.unstack(parts[first])


def _places(draws, room):
    """Uniform integers from 0 to `room`, from draws in [0, 1)."""
    return tf.cast(draws * tf.cast(room + 1, tf.float32), tf.int32)
