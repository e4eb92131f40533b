"""The augmentation for the training images of each data set, applied before normalisation, and what it is composed of."""

import tensorflow as tf

from recipes.augmentation.auto_augment import auto_augment
from recipes.augmentation.crops import random_crop, random_resized_crop
from recipes.data import cifar
from recipes.data.fashion_mnist import MEAN_PIXEL


def compose(*augmentations):
    """An augmentation that applies all `augmentations` in order, each with its own seed."""

    def augment(image, seed):
        seeds = tf.unstack(tf.random.split(seed, len(augmentations)))
        for augmentation, own_seed in zip(augmentations, seeds, strict=True):
            image = augmentation(image, own_seed)
        return image

    return augment


def random_flip(image, seed):
    """Flips an image horizontally with probability 1/2. All frames of a sequence are flipped together."""
    # `tf.image.stateless_random_flip_left_right` would draw for each frame.
    return tf.where(tf.random.stateless_uniform((), seed) < 0.5, tf.reverse(image, axis=[-2]), image)


def random_roll(pixels):
    """An augmentation that rolls an image by up to `pixels` along both axes, all frames of a sequence together."""

    def augment(image, seed):
        if image.shape.rank < 3:
            raise ValueError(f"Rolling is for images (..., height, width, channels), not for {image.shape}.")
        shifts = tf.random.stateless_uniform((2,), seed, minval=-pixels, maxval=pixels + 1, dtype=tf.int32)
        return tf.roll(image, shifts, axis=(-3, -2))

    return augment


def cutout(size, color):
    """An augmentation that fills a square around a random pixel; the part outside the image is cut off.

    Args:
        size: Even integer, the side of the square in pixels.
        color: Floats, one for each channel: the mean of the data set, which becomes zero after normalisation.

    Source: DeVries, Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout", 2017 (arXiv 1708.04552).
    """

    def augment(image, seed):
        shape = tf.shape(image)[:2]
        center = tf.cast(tf.random.stateless_uniform((2,), seed) * tf.cast(shape, tf.float32), tf.int32)
        rows, columns = (_near(tf.range(shape[axis]), center[axis], size // 2) for axis in (0, 1))
        return tf.where(rows[:, tf.newaxis, tf.newaxis] & columns[:, tf.newaxis], tf.constant(color, image.dtype), image)

    return augment


def _near(positions, center, reach):
    return (positions >= center - reach) & (positions < center + reach)


cifar10 = compose(random_crop(4), random_flip, auto_augment(), cutout(16, cifar.MEAN_COLORS["cifar10"]))
cifar100 = compose(random_crop(4), random_flip, auto_augment(), cutout(16, cifar.MEAN_COLORS["cifar100"]))
"""The authors' settings, which use the CIFAR-10 policy for CIFAR-100, too."""

cifar10_dvs = compose(random_flip, random_roll(5))
fashion_mnist = compose(random_crop(2), random_flip)
fashion_mnist_cutout = compose(random_crop(2), random_flip, cutout(8, (MEAN_PIXEL,)))
imagenet = compose(random_resized_crop(224), random_flip)
