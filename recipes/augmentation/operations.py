"""The operations of AutoAugment: those of Pillow on float32 tensors, with exactly the
same integer results.

Keras and KerasCV have layers for some of them, but none are seeded, and not all match
the operations used in the search for the policy. In Keras 3.15 `Equalization` has
another formula (off by 60 levels on photographs), `RandomSharpness` darkens the edges,
`RandomBrightness` adds instead of multiplying and `Solarization` has no argument for
the threshold. In KerasCV 0.9, which is no longer developed, `Equalization` has a
similar error, and sharpness and colour can be decreased but not increased. The matching
operations are only a line or two.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

LEVELS = 10
"""The number of strengths of an operation: 0 to 9."""


# Geometry. New pixels are black, as in torchvision.


def shear_y(image, slope):
    return _affine(image, [1.0, 0.0, 0.0], [slope, 1.0, 0.0])


def translate_x(image, share):
    pixels = tf.cast(tf.shape(image)[1], tf.float32) * share
    return _affine(image, [1.0, 0.0, -_toward_zero(pixels)], [0.0, 1.0, 0.0])


def translate_y(image, share):
    pixels = tf.cast(tf.shape(image)[0], tf.float32) * share
    return _affine(image, [1.0, 0.0, 0.0], [0.0, 1.0, -_toward_zero(pixels)])


def rotate(image, degrees):
    """Rotates the image counterclockwise about its centre."""
    cosine, sine = tf.cos(degrees * (math.pi / 180)), tf.sin(degrees * (math.pi / 180))
    y, x = tf.unstack(tf.cast(tf.shape(image)[:2], tf.float32) / 2)
    return _affine(
        image,
        [cosine, -sine, x - cosine * x + sine * y],
        [sine, cosine, y - sine * x - cosine * y],
    )


def _toward_zero(number):
    return tf.cast(tf.cast(number, tf.int32), tf.float32)


def _affine(image, x_row, y_row):
    """Each pixel (x, y) of the result is the pixel (a x + b y + c, d x + e y + f) of
    the image.

    Args:
        image: Tensor `(height, width, channels)`.
        x_row: a, b and c.
        y_row: d, e and f.

    Returns:
        Tensor of the same shape.
    """
    # The centre of the first pixel is at 0.5 in Pillow, which these numbers refer to,
    # and at 0 in TensorFlow.
    (a, b, c), (d, e, f) = x_row, y_row
    transform = tf.stack(
        [a, b, c + (a + b - 1) / 2, d, e, f + (d + e - 1) / 2, 0.0, 0.0]
    )
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=image[tf.newaxis],
        transforms=transform[tf.newaxis],
        output_shape=tf.shape(image)[:2],
        fill_value=0.0,
        interpolation="NEAREST",
    )[0]


# Enhancement: away from a degraded image with a factor above 1, towards it with a
# factor below 1.


def _enhance(image, poorer, factor):
    return tf.floor(tf.clip_by_value(poorer + factor * (image - poorer), 0, 255))


def _gray(image):
    """Luminance by ITU-R 601-2 in integer multiples of 1/65536; these sums are exact in
    float32."""
    return tf.floor(
        (tf.tensordot(image, [19595.0, 38470.0, 7471.0], 1)[..., tf.newaxis] + 32768)
        / 65536
    )


def _mean_gray(image):
    return tf.floor(tf.reduce_mean(_gray(image)) + 0.5)


def _smooth(image):
    """The mean over a pixel and its neighbours, with weight five for the pixel itself.
    Pixels at the edge are unchanged."""
    kernel = np.ones((3, 3, 1, 1), "float32")
    kernel[1, 1] = 5
    sums = tf.nn.depthwise_conv2d(
        image[tf.newaxis],
        np.tile(kernel, (1, 1, image.shape[-1], 1)),
        [1, 1, 1, 1],
        "VALID",
    )[0]
    inner = tf.pad(tf.floor(sums / 13 + 0.5), [(1, 1), (1, 1), (0, 0)])
    is_inner = tf.pad(tf.ones_like(sums, tf.bool), [(1, 1), (1, 1), (0, 0)])
    return tf.where(is_inner, inner, image)


# Levels: maps each value to another, independent of position.


def posterize(image, bits):
    """Keeps the first `bits` of the eight bits of each value."""
    step = 2 ** (8 - bits)
    return tf.floor(image / step) * step


def solarize(image, threshold):
    return tf.where(image < threshold, image, 255 - image)


def invert(image, _):
    return 255 - image


def auto_contrast(image, _):
    """Stretches each channel from its smallest and largest value to 0 and 255."""
    # Pillow computes in float64 and rounds down: in float32 an integer could become the
    # next lower one.
    values = tf.cast(image, tf.float64)
    low, high = tf.reduce_min(values, axis=(0, 1)), tf.reduce_max(values, axis=(0, 1))
    scale = 255 / tf.where(high > low, high - low, 1)
    stretched = tf.floor(tf.clip_by_value(values * scale - low * scale, 0, 255))
    return tf.where(high > low, tf.cast(stretched, tf.float32), image)


def equalize(image, _):
    """Equalises the histogram of each channel."""
    values = tf.cast(image, tf.int32)
    channels = image.shape[-1]
    # One row of 256 counts per channel; each pixel has one index into all of them.
    places = values + 256 * tf.range(channels)
    counts = tf.reshape(
        tf.math.unsorted_segment_sum(tf.ones_like(places), places, 256 * channels),
        (channels, 256),
    )
    of_largest = tf.gather(counts, tf.reduce_max(values, axis=(0, 1)), batch_dims=1)
    step = ((tf.reduce_sum(counts, axis=1) - of_largest) // 255)[:, tf.newaxis]
    divisor = tf.maximum(step, 1)
    levels = tf.minimum(
        (tf.cumsum(counts, axis=1, exclusive=True) + divisor // 2) // divisor, 255
    )
    equalized = tf.gather(tf.reshape(levels, (-1,)), places)
    return tf.where(step[:, 0] > 0, tf.cast(equalized, tf.float32), image)


@dataclasses.dataclass(frozen=True)
class Operation:
    """An operation and its strengths.

    Attributes:
        function: Function of an image and a strength.
        strengths: A row of `LEVELS` numbers, or two rows for the two directions, which
            are equally likely.
    """

    function: Callable
    strengths: Sequence = ((0.0,) * LEVELS,)


def _up_to(largest):
    return np.linspace(0, largest, LEVELS)


def _to_either_side(middle, farthest):
    return middle + _up_to(farthest), middle - _up_to(farthest)


OPERATIONS = {
    "ShearY": Operation(shear_y, _to_either_side(0, 0.3)),
    "TranslateX": Operation(translate_x, _to_either_side(0, 150 / 331)),
    "TranslateY": Operation(translate_y, _to_either_side(0, 150 / 331)),
    "Rotate": Operation(rotate, _to_either_side(0, 30)),
    "Color": Operation(
        lambda image, factor: _enhance(image, _gray(image), factor),
        _to_either_side(1, 0.9),
    ),
    "Contrast": Operation(
        lambda image, factor: _enhance(image, _mean_gray(image), factor),
        _to_either_side(1, 0.9),
    ),
    "Brightness": Operation(
        lambda image, factor: _enhance(image, 0.0, factor), _to_either_side(1, 0.9)
    ),
    "Sharpness": Operation(
        lambda image, factor: _enhance(image, _smooth(image), factor),
        _to_either_side(1, 0.9),
    ),
    "Posterize": Operation(posterize, [8 - np.round(_up_to(4))]),
    # torchvision now uses 255, because a uint8 tensor cannot be compared with 256.
    "Solarize": Operation(solarize, [256 - _up_to(256)]),
    "Invert": Operation(invert),
    "AutoContrast": Operation(auto_contrast),
    "Equalize": Operation(equalize),
}
"""The operations by their names in the paper, with torchvision's strengths. No CIFAR-10
sub-policy uses ShearX."""
