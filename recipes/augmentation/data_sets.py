"""The augmentation for the training images of each data set, applied before
normalisation, and what it is composed of."""

import tensorflow as tf

from recipes.augmentation.auto_augment import auto_augment
from recipes.data import cifar
from recipes.data import fashion_mnist as clothes

AREA = (0.08, 1.0)
"""The range of a random crop's fraction of the image area, as in torchvision."""

RATIO = (3 / 4, 4 / 3)
"""The range of the ratio of its width to its height, as in torchvision."""


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
    """An augmentation that resizes a random crop with antialiasing as in Pillow.

    torchvision's `RandomResizedCrop` draws the area of the crop uniformly, TensorFlow
    the height: its crops are a sixth smaller.

    Args:
        size: Integer, the height and width of the result.

    Returns:
        The augmentation.
    """

    def augment(image, seed):
        begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
            tf.shape(image),
            tf.zeros((1, 0, 4)),
            seed,
            min_object_covered=0.0,
            aspect_ratio_range=RATIO,
            area_range=AREA,
            use_image_if_no_bounding_boxes=True,
        )
        top, left, _ = tf.unstack(begin)
        height, width, _ = tf.unstack(extent)
        crop = image[top : top + height, left : left + width]
        return tf.image.resize(crop, (size, size), antialias=True)

    return augment


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
