"""Parts of images."""

import math

import tensorflow as tf

TRIES = 10
"""How many crops are drawn before the middle of the image is taken: torchvision's number."""


def random_crop(padding):
    """An augmentation that moves an image by up to `padding` pixels in each direction; what comes in is black."""

    def augment(image, seed):
        padded = tf.pad(image, [(padding, padding), (padding, padding), (0, 0)])
        return tf.image.stateless_random_crop(padded, tf.shape(image), seed)

    return augment


def random_resized_crop(size, area=(0.08, 1.0), ratio=(3 / 4, 4 / 3)):
    """An augmentation that resizes a part of the image, drawn as by torchvision's `RandomResizedCrop`.

    `tf.image.stateless_sample_distorted_bounding_box` draws by another law: the height is uniform there, not the area, and the
    crops are a sixth smaller.

    Args:
        size: Integer, the height and width of the result.
        area: Pair of floats, the least and the largest share of the image that the part has.
        ratio: Pair of floats, the least and the largest ratio of its width to its height.

    Returns:
        The augmentation.
    """

    def augment(image, seed):
        top, left, height, width = random_part(tf.shape(image)[0], tf.shape(image)[1], seed, area, ratio)
        return resized(image[top : top + height, left : left + width], (size, size))

    return augment


def random_part(image_height, image_width, seed, area, ratio):
    """Top, left, height and width of a part with an area and a ratio drawn from their ranges, see `random_resized_crop`.

    Areas are drawn uniformly, ratios by their logarithm. The first of `TRIES` draws that fits is taken, and if none does, the
    largest part in the middle that has an allowed ratio.
    """
    draws = tf.random.stateless_uniform((4, TRIES), seed)
    pixels = tf.cast(image_height * image_width, tf.float32)
    areas = pixels * (area[0] + draws[0] * (area[1] - area[0]))
    ratios = tf.exp(math.log(ratio[0]) + draws[1] * math.log(ratio[1] / ratio[0]))
    heights = tf.cast(tf.round(tf.sqrt(areas / ratios)), tf.int32)
    widths = tf.cast(tf.round(tf.sqrt(areas * ratios)), tf.int32)
    tops, lefts = _places(draws[2], image_height - heights), _places(draws[3], image_width - widths)
    fits = (heights >= 1) & (heights <= image_height) & (widths >= 1) & (widths <= image_width)

    # A draw that comes after all others and always fits.
    height = tf.minimum(image_height, tf.cast(tf.round(tf.cast(image_width, tf.float32) / ratio[0]), tf.int32))
    width = tf.minimum(image_width, tf.cast(tf.round(tf.cast(image_height, tf.float32) * ratio[1]), tf.int32))
    middle = [(image_height - height) // 2, (image_width - width) // 2, height, width]

    parts = tf.concat([tf.stack([tops, lefts, heights, widths], axis=1), [middle]], axis=0)
    first = tf.argmax(tf.concat([fits, [True]], axis=0))
    return tf.unstack(parts[first])


def _places(draws, room):
    """Integers from 0 to `room`, all as likely, from draws in [0, 1)."""
    return tf.cast(draws * tf.cast(room + 1, tf.float32), tf.int32)


def resized_center(image, shorter_side=256, size=224):
    """The middle of an image whose shorter side was resized, for evaluation.

    Args:
        image: Tensor `(height, width, channels)`.
        shorter_side: Integer, what the shorter side is resized to; the longer keeps its proportion.
        size: Integer, the height and width of the middle.

    Returns:
        Tensor `(size, size, channels)` of float32.
    """
    shape = tf.shape(image)[:2]
    new_shape = shape * shorter_side // tf.reduce_min(shape)
    return tf.image.resize_with_crop_or_pad(resized(image, new_shape), size, size)


def resized(image, shape):
    """The image with another height and width. Every pixel of the original counts, as in Pillow."""
    return tf.image.resize(image, shape, antialias=True)
