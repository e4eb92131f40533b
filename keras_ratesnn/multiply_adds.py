"""How many multiply-adds a layer takes for one sample without spikes: its synapses, each counted once."""

import math

import keras

_CONVOLUTIONS = (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
)
_TRANSPOSED = (keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose, keras.layers.Conv3DTranspose)
_SEPARABLE = (keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)


def is_counted(operation):
    """Whether `multiply_adds` knows the operation: dense, einsum and convolution layers."""
    return isinstance(operation, (keras.layers.Dense, keras.layers.EinsumDense, *_CONVOLUTIONS, *_TRANSPOSED, *_SEPARABLE))


def multiply_adds(layer, input_shape, output_shape):
    """Multiply-adds of one sample, for an operation that `is_counted`; padding counts as input.

    >>> layer = keras.layers.Conv2D(8, 3, padding="same")
    >>> outputs = layer(np.zeros((1, 4, 4, 2)))
    >>> multiply_adds(layer, (1, 4, 4, 2), outputs.shape)
    2304

    Args:
        layer: A layer.
        input_shape: Tuple, the shape of its input `(batch, ...)`.
        output_shape: Tuple, the shape of its output.
    """
    if isinstance(layer, keras.layers.Dense):
        return math.prod(output_shape[1:-1]) * math.prod(layer.kernel.shape)
    if isinstance(layer, keras.layers.EinsumDense):
        return _of_einsum(layer.equation, input_shape, layer.kernel.shape)
    positions = _positions(layer, input_shape if isinstance(layer, _TRANSPOSED) else output_shape)
    if isinstance(layer, _SEPARABLE):
        return positions * (math.prod(layer.depthwise_kernel.shape) + math.prod(layer.pointwise_kernel.shape))
    return positions * math.prod(layer.kernel.shape)


def _positions(layer, shape):
    return math.prod(shape[2:] if layer.data_format == "channels_first" else shape[1:-1])


def _of_einsum(equation, input_shape, kernel_shape):
    """The product of the sizes of all letters, the batch's left out; an ellipsis stands for the axes that letters leave."""
    of_input, of_kernel = equation.split("->")[0].split(",")
    sizes = dict(zip(of_kernel, kernel_shape, strict=True))
    before, _, after = of_input.partition("...")
    sizes.update(zip(before, input_shape, strict=False))
    sizes.update(zip(reversed(after), reversed(input_shape), strict=False))
    elided = input_shape[len(before) : len(input_shape) - len(after)] if "..." in of_input else ()
    return math.prod(sizes.values()) * math.prod(elided) // input_shape[0]
