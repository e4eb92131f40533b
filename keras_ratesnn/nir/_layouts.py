"""Channels first, as NIR has them: axes of signals and kernels, the order of flattened
features, padding.

Shapes are those of one sample, without the batch axis.
"""

import numpy as np

from keras_ratesnn._core.convolutions import without_dilation

CHANNELS_FIRST, CHANNELS_LAST = "channels_first", "channels_last"


def format_of(shape, spatial, images):
    """How a network has a signal of this shape. Export and import must agree on it,
    because a file does not say it.

    Args:
        shape: Tuple, the shape of the signal.
        spatial: String, the `data_format` of the network's convolutions and pooling;
            `None` if there are none.
        images: String, how the network has images where no layer says it.

    Returns:
        String: `spatial` if it is given. Otherwise three axes are an image, and others
        are in the order that NIR has.
    """
    if spatial is not None:
        return spatial
    return images if len(shape) == 3 else CHANNELS_FIRST


def from_nir(array, data_format):
    """An array with the shape of a signal in NIR, as Keras has it."""
    return np.moveaxis(array, 0, -1) if data_format == CHANNELS_LAST else array


def shape_from_nir(shape, data_format):
    """The shape of a signal in NIR, as Keras has it."""
    return (*shape[1:], shape[0]) if data_format == CHANNELS_LAST else tuple(shape)


def order_of_flattened(shape, data_format):
    """Where each feature of a flattened signal is in NIR's order.

    Args:
        shape: Tuple, the shape of the signal in NIR, channels first.
        data_format: String, how Keras has the signal.

    Returns:
        Integer array `(features,)`; `None` if the order is the same.
    """
    indices = from_nir(
        np.arange(np.prod(shape, dtype="int64")).reshape(shape), data_format
    )
    order = indices.ravel()
    return None if np.array_equal(order, np.arange(order.size)) else order


def kernel_from_nir(kernel):
    """A convolution kernel of NIR, `(outputs, inputs, *size)`, as Keras has it,
    `(*size, inputs, outputs)`."""
    return np.moveaxis(kernel, (0, 1), (-1, -2))


def with_equal_padding(kernel, padding, dilation):
    """The convolution with as many zeros before each axis as after it, as NIR wants it:
    the kernel gets weights of zero.

    With b zeros before an axis and a > b after it, as with `padding="same"` and a
    stride of 2, the same outputs come from a zeros on both sides and a kernel that
    begins with a − b weights of zero.

    Args:
        kernel: Array `(outputs, inputs, *size)`.
        padding: List of `(before, after)`, one for each axis.
        dilation: Tuple of integers.

    Returns:
        `(kernel, padding, dilation)`, with one number for the padding of each axis. A
        dilation that does not divide the difference becomes a part of the kernel.
    """
    dilation = list(dilation)
    for axis, (before, after) in enumerate(padding):
        if (after - before) % dilation[axis]:
            kernel = without_dilation(kernel, axis + 2, dilation[axis])
            dilation[axis] = 1
        most = max(before, after)
        zeros = [(0, 0)] * kernel.ndim
        zeros[axis + 2] = (
            (most - before) // dilation[axis],
            (most - after) // dilation[axis],
        )
        kernel = np.pad(kernel, zeros)
    return kernel, tuple(max(pair) for pair in padding), tuple(dilation)


def without_equal_padding(kernel, padding, size, dilation):
    """The inverse of `with_equal_padding`: the kernel of this size; `None` if that
    would not give this one.

    Args:
        kernel: Array `(outputs, inputs, *size)`.
        padding: List of `(before, after)`, one for each axis.
        size: Tuple, the size of the kernel wanted.
        dilation: Tuple of integers.
    """
    part = [slice(None), slice(None)]
    for (before, after), whole, taps, step in zip(
        padding, kernel.shape[2:], size, dilation, strict=True
    ):
        most = max(before, after)
        front, back = (most - before) // step, (most - after) // step
        if front + taps + back != whole or (after - before) % step:
            return None
        part.append(slice(front, front + taps))
    inner = kernel[tuple(part)]
    return inner if np.count_nonzero(inner) == np.count_nonzero(kernel) else None
