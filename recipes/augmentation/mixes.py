"""Mixes pairs of images of a batch, and their one-hot labels.

Each image is mixed with the image at the same position in a shuffled batch, with its own uniform weight in [0, 1]. (Keras has
layers for this, but they draw from a generator instead of a seed, so a resumed run would see other mixes.)
"""

import tensorflow as tf


def mixup(images, labels, seed):
    """Weighted sums of pairs of images.

    Zhang, Cisse, Dauphin, Lopez-Paz, "mixup: Beyond Empirical Risk Minimization", ICLR 2018 (arXiv 1710.09412), with α = 1.

    Args:
        images: Tensor `(batch, height, width, channels)`, or with time after the batch.
        labels: Tensor `(batch, classes)`, one-hot.
        seed: Pair of integers.

    Returns:
        Tensors of float32 of the same shapes: `w · image + (1 - w) · other`, and the labels likewise.
    """
    images = tf.cast(images, tf.float32)
    order, draws = _pairs(images, 1, seed)
    weights = draws[:, 0]
    return _blend(images, order, weights), _blend(labels, order, weights)


def cutmix(images, labels, seed):
    """Images with a box from another image.

    Yun, Han, Oh, Chun, Choe, Yoo, "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features",
    ICCV 2019 (arXiv 1905.04899), with α = 1.

    The box has the aspect ratio of the image and a uniformly drawn fraction of its area. Its centre is anywhere in the image,
    and the part outside the image is cut off.

    Args:
        images: Tensor `(batch, height, width, channels)`, or with time after the batch: one box for all frames.
        labels: Tensor `(batch, classes)`, one-hot.
        seed: Pair of integers.

    Returns:
        Tensors of float32 of the same shapes. A label is weighted by the fraction of pixels of its image.
    """
    images = tf.cast(images, tf.float32)
    order, draws = _pairs(images, 3, seed)
    height, width = tf.shape(images)[-3], tf.shape(images)[-2]
    # The sides of the box as fractions of the image's, from its fraction of the area.
    length = tf.sqrt(draws[:, 0])
    rows, columns = _interval(draws[:, 1], length, height), _interval(draws[:, 2], length, width)
    in_box = rows[:, :, tf.newaxis] & columns[:, tf.newaxis, :]
    weights = 1 - tf.reduce_mean(tf.cast(in_box, labels.dtype), axis=(1, 2))
    box = tf.reshape(in_box, [-1, *[1] * (len(images.shape) - 4), height, width, 1])
    return tf.where(box, tf.gather(images, order), images), _blend(labels, order, weights)


def _pairs(images, numbers, seed):
    """A shuffled order of the batch, and `numbers` uniform numbers for each image."""
    batch = tf.shape(images)[0]
    order_seed, draws_seed = tf.unstack(tf.random.split(seed, 2))
    order = tf.random.experimental.stateless_shuffle(tf.range(batch), order_seed)
    return order, tf.random.stateless_uniform((batch, numbers), draws_seed)


def _blend(values, order, weights):
    weights = tf.reshape(weights, [-1, *[1] * (len(values.shape) - 1)])
    return weights * values + (1 - weights) * tf.gather(values, order)


def _interval(center, length, size):
    """Which of `size` pixels are within `length / 2` of `center`, both as fractions of `size`, for each image of a batch."""
    positions, size = tf.range(size), tf.cast(size, tf.float32)
    pixel = tf.cast(center * size, tf.int32)[:, tf.newaxis]
    reach = tf.cast(length * size / 2, tf.int32)[:, tf.newaxis]
    return (positions >= pixel - reach) & (positions < pixel + reach)
