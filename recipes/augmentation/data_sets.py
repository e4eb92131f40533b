"""The augmentation for the training images of each data set, applied before
normalisation, and what it is composed of."""

import math

import tensorflow as tf

from recipes.augmentation.auto_augment import auto_augment
from recipes.data import cifar
from recipes.data import fashion_mnist as clothes

AREA = (0.08, 1.0)
"""The range of a random crop's fraction of the image area, as in torchvision."""

RATIO = (3 / 4, 4 / 3)
"""The range of the ratio of a random crop's width to its height, as in torchvision."""

TRIES = 10
"""The number of crops to try before the center crop is used, as in torchvision."""


def compose(*augmentations):
    """An augmentation that applies all `augmentations` in order, each with its own
    seed."""

    def augment(image, seed):
        seeds = tf.unstack(tf.random.split(seed, len(augmentations)))
        for augmentation, own_seed in zip(augmentations, seeds, strict=True):
            image = augmentation(image, own_seed)
        return image

    return augment


def random_flip(image, seed):
    """Flips an image horizontally with probability 1/2. All frames of a sequence are
    flipped together."""
    # `tf.image.stateless_random_flip_left_right` would draw for each frame.
    return tf.where(
        tf.random.stateless_uniform((), seed) < 0.5, tf.reverse(image, axis=[-2]), image
    )


def random_roll(pixels):
    """An augmentation that rolls an image by up to `pixels` along both axes, all frames
    of a sequence together."""

    def augment(image, seed):
        if image.shape.rank < 3:
            raise ValueError(
                "Rolling is for images (..., height, width, channels), not for "
                f"{image.shape}."
            )
        shifts = tf.random.stateless_uniform(
            (2,), seed, minval=-pixels, maxval=pixels + 1, dtype=tf.int32
        )
        return tf.roll(image, shifts, axis=(-3, -2))

    return augment


def random_crop(padding):
    """An augmentation that shifts an image by up to `padding` pixels in each direction;
    new pixels are black."""

    def augment(image, seed):
        padded = tf.pad(image, [(padding, padding), (padding, padding), (0, 0)])
        return tf.image.stateless_random_crop(padded, tf.shape(image), seed)

    return augment


def random_resized_crop(size):
    """An augmentation that resizes a random crop, with the distribution of
    torchvision's `RandomResizedCrop`.

    `tf.image.stateless_sample_distorted_bounding_box` has another distribution: the
    height is uniform instead of the area, and the crops are a sixth smaller.

    Args:
        size: Integer, the height and width of the result.

    Returns:
        The augmentation.
    """

    def augment(image, seed):
        top, left, height, width = random_part(
            tf.shape(image)[0], tf.shape(image)[1], seed, AREA, RATIO
        )
        crop = image[top : top + height, left : left + width]
        # Antialiased as in Pillow.
        return tf.image.resize(crop, (size, size), antialias=True)

    return augment


def random_part(image_height, image_width, seed, area, ratio):
    """Top, left, height and width of a crop with area and ratio drawn from their
    ranges, see `random_resized_crop`.

    Areas are drawn uniformly, ratios uniformly on a log scale. The first of `TRIES`
    draws that fits is used; if none fits, the largest center crop with an allowed
    ratio.
    """
    draws = tf.random.stateless_uniform((4, TRIES), seed)
    pixels = tf.cast(image_height * image_width, tf.float32)
    areas = pixels * (area[0] + draws[0] * (area[1] - area[0]))
    ratios = tf.exp(math.log(ratio[0]) + draws[1] * math.log(ratio[1] / ratio[0]))
    heights = tf.cast(tf.round(tf.sqrt(areas / ratios)), tf.int32)
    widths = tf.cast(tf.round(tf.sqrt(areas * ratios)), tf.int32)
    tops, lefts = (
        _places(draws[2], image_height - heights),
        _places(draws[3], image_width - widths),
    )
    fits = (
        (heights >= 1)
        & (heights <= image_height)
        & (widths >= 1)
        & (widths <= image_width)
    )

    # The last draw always fits.
    height = tf.minimum(
        image_height,
        tf.cast(tf.round(tf.cast(image_width, tf.float32) / ratio[0]), tf.int32),
    )
    width = tf.minimum(
        image_width,
        tf.cast(tf.round(tf.cast(image_height, tf.float32) * ratio[1]), tf.int32),
    )
    middle = [(image_height - height) // 2, (image_width - width) // 2, height, width]

    parts = tf.concat(
        [tf.stack([tops, lefts, heights, widths], axis=1), [middle]], axis=0
    )
    first = tf.argmax(tf.concat([fits, [True]], axis=0))
    return tf.unstack(parts[first])


def _places(draws, room):
    """Uniform integers from 0 to `room`, from draws in [0, 1)."""
    return tf.cast(draws * tf.cast(room + 1, tf.float32), tf.int32)


def cutout(size, color):
    """An augmentation that fills a square around a random pixel; the part outside the
    image is cut off.

    Args:
        size: Even integer, the side of the square in pixels.
        color: Floats, one for each channel: the mean of the data set, which becomes
            zero after normalisation.

    Source: DeVries, Taylor, "Improved Regularization of Convolutional Neural Networks
    with Cutout", 2017 (arXiv 1708.04552).
    """

    def augment(image, seed):
        shape = tf.shape(image)[:2]
        drawn = tf.random.stateless_uniform((2,), seed) * tf.cast(shape, tf.float32)
        row, column = tf.unstack(tf.cast(drawn, tf.int32))
        rows = _near(tf.range(shape[0]), row, size // 2)
        columns = _near(tf.range(shape[1]), column, size // 2)
        inside = rows[:, tf.newaxis, tf.newaxis] & columns[:, tf.newaxis]
        return tf.where(inside, tf.constant(color, image.dtype), image)

    return augment


def _near(positions, center, reach):
    return (positions >= center - reach) & (positions < center + reach)


def _cifar(data_set):
    """The authors' settings, which use the CIFAR-10 policy for CIFAR-100, too."""
    mean_pixel, _ = cifar.PIXELS[data_set]
    return compose(random_crop(4), random_flip, auto_augment, cutout(16, mean_pixel))


cifar10 = _cifar("cifar10")
cifar100 = _cifar("cifar100")
cifar10_dvs = compose(random_flip, random_roll(5))
fashion_mnist = compose(random_crop(2), random_flip)
fashion_mnist_cutout = compose(
    random_crop(2), random_flip, cutout(8, clothes.PIXELS[0])
)
imagenet = compose(random_resized_crop(224), random_flip)
