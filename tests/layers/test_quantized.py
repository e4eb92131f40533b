"""Layers with quantised kernels: calls use integers times scales, and the gradient goes
straight through."""

import keras
import numpy as np
import pytest
from helpers import assert_close, gradient_of, to_numpy
from keras import layers, ops
from numpy.testing import assert_allclose, assert_array_equal

from keras_ratesnn.layers import WSConv2D, WSDense
from keras_ratesnn.layers.quantized import QUANTIZED

RANDOM = np.random.default_rng(0)
LARGEST = {"int8": 127, "int4": 7, "ternary": 1}

# The arguments of each class, the shape of an input, and for each kernel the axes that
# share a scale.
FILTERS = {"filters": 3, "kernel_size": 3}
DEPTHWISE = {"kernel_size": 3, "depth_multiplier": 2}
CASES = {
    layers.Dense: ({"units": 4}, (5,), {"kernel": (0,)}),
    layers.Conv1D: ({**FILTERS, "padding": "causal"}, (6, 2), {"kernel": (0, 1)}),
    layers.Conv2D: (
        {"filters": 4, "kernel_size": 3, "groups": 2},
        (5, 5, 2),
        {"kernel": (0, 1, 2)},
    ),
    layers.Conv3D: (
        {**FILTERS, "use_bias": False},
        (3, 3, 3, 2),
        {"kernel": (0, 1, 2, 3)},
    ),
    layers.DepthwiseConv1D: (DEPTHWISE, (6, 2), {"kernel": (0,)}),
    layers.DepthwiseConv2D: (DEPTHWISE, (5, 5, 2), {"kernel": (0, 1)}),
    layers.Conv1DTranspose: (FILTERS, (6, 2), {"kernel": (0, 2)}),
    layers.Conv2DTranspose: (FILTERS, (5, 5, 2), {"kernel": (0, 1, 3)}),
    layers.Conv3DTranspose: (FILTERS, (3, 3, 3, 2), {"kernel": (0, 1, 2, 4)}),
    layers.SeparableConv1D: (
        {**FILTERS, "depth_multiplier": 2},
        (6, 2),
        {"depthwise_kernel": (0,), "pointwise_kernel": (0, 1)},
    ),
    layers.SeparableConv2D: (
        FILTERS,
        (5, 5, 2),
        {"depthwise_kernel": (0, 1), "pointwise_kernel": (0, 1, 2)},
    ),
    WSConv2D: (FILTERS, (5, 5, 2), {"kernel": (0, 1, 2)}),
    WSDense: ({"units": 4}, (5,), {"kernel": (0,)}),
}
PLAIN = {WSConv2D: layers.Conv2D, WSDense: layers.Dense}


def naive(kernel, weight_type, axes):
    """The kernel that calls use, one scale at a time, in float32."""
    last = range(kernel.ndim - len(axes), kernel.ndim)
    columns = np.moveaxis(kernel, axes, last)
    used = np.zeros(columns.shape, "float32")
    for channel in np.ndindex(columns.shape[: last.start]):
        weights = columns[channel]
        if weight_type == "ternary":
            is_large = np.abs(weights) > 0.7 * np.abs(weights).mean()
            size = np.abs(weights)[is_large].mean()
            used[channel] = np.sign(weights) * is_large * size
        else:
            scale = np.abs(weights).max() / np.float32(LARGEST[weight_type])
            used[channel] = np.rint(weights / scale) * scale
    return np.moveaxis(used, last, axes)


def pair(base, **options):
    """A layer and a quantised one with the same weights, which are not those of a
    start."""
    arguments, shape, _ = CASES[base]
    layer, quantized = base(**arguments), QUANTIZED[base](**arguments, **options)
    layer.build((None, *shape))
    quantized.build((None, *shape))
    weights = [RANDOM.normal(0.3, 1.0, weight.shape) for weight in layer.weights]
    layer.set_weights(weights)
    quantized.set_weights(weights)
    return layer, quantized


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("base", CASES, ids=lambda base: base.__name__)
def test_a_call_is_that_of_the_layer_with_integers_times_scales(base, per_channel):
    arguments, shape, axes = CASES[base]
    x = RANDOM.normal(size=(2, *shape)).astype("float32")
    for weight_type in LARGEST:
        layer, quantized = pair(base, weight_type=weight_type, per_channel=per_channel)
        names = [weight.name for weight in layer.weights]
        assert [weight.name for weight in quantized.weights] == names
        if base in PLAIN:
            kernel = to_numpy(layer.standardized_kernel())
            used = {"kernel": to_numpy(quantized.standardized_kernel())}
            layer = PLAIN[base](**arguments)
            layer.build((None, *shape))
            layer.kernel.assign(kernel)
        else:
            used = {name: to_numpy(getattr(quantized, name)) for name in axes}
        for name, axis in axes.items():
            kernel = to_numpy(getattr(layer, name))
            axis = axis if per_channel else tuple(range(kernel.ndim))
            expected = naive(kernel, weight_type, axis)
            assert_allclose(used[name], expected, rtol=1e-5)
            getattr(layer, name).assign(used[name])
        if layer.use_bias:
            layer.bias.assign(quantized.bias)
        found, expected = to_numpy(quantized(x)), to_numpy(layer(x))
        assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("weight_type", LARGEST)
def test_a_kernel_is_exactly_its_integers_times_its_scales(weight_type):
    """The sum w + (s · W − w) would not be."""
    largest = LARGEST[weight_type]
    _, dense = pair(layers.Dense, weight_type=weight_type)
    sizes = 10.0 ** np.array([-6, -1, 0, 3])
    kernel = (RANDOM.normal(size=(5, 4)) * sizes).astype("float32")
    dense.set_weights([kernel, np.zeros(4)])
    used = to_numpy(dense.kernel)
    scaled = used if weight_type == "ternary" else kernel
    scale = np.abs(scaled).max(axis=0) / np.float32(largest)
    integers = np.rint(used / scale)
    assert_array_equal(np.abs(integers).max(axis=0), np.full(4, largest))
    assert_array_equal(integers * scale, used)


def test_halves_are_rounded_to_even_and_a_channel_of_zeros_stays_zero():
    kernel = [[7, 0, -7], [0.5, 0, 1.5], [-2.5, 0, 2.5], [3.5, 0, -0.5]]
    used = {}
    for weight_type in LARGEST:
        dense = QUANTIZED[layers.Dense](3, use_bias=False, weight_type=weight_type)
        dense.build((None, 4))
        dense.set_weights([np.array(kernel)])
        used[weight_type] = to_numpy(dense.kernel)
        assert_array_equal(used[weight_type][:, 1], np.zeros(4))
    expected = [[7, 0, -7], [0, 0, 2], [-2, 0, 2], [4, 0, 0]]
    assert_array_equal(used["int4"], expected)


@pytest.mark.parametrize("base", [layers.Dense, WSDense])
def test_the_gradient_goes_straight_through(base):
    weights = RANDOM.normal(size=(5, 4)).astype("float32")

    def gradient(layer):
        def weighted(*values):
            fixed = [variable.value for variable in layer.non_trainable_variables]
            rows = ops.convert_to_tensor(np.eye(5, dtype="float32"))
            outputs, _ = layer.stateless_call(list(values), fixed, rows)
            return ops.sum(outputs * ops.convert_to_tensor(weights))

        variables = [variable.value for variable in layer.trainable_variables]
        return gradient_of(weighted, to_numpy(variables))

    layer, quantized = pair(base, weight_type="ternary")
    assert_close(gradient(quantized), gradient(layer), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_kernels_are_quantised_in_float32_and_then_cast(dtype):
    layer, quantized = pair(layers.Dense, dtype=f"mixed_{dtype}")
    expected = naive(to_numpy(layer.kernel), "int8", (0,))
    used, outputs = quantized.kernel, quantized(np.ones((2, 5), "float32"))
    for tensor in (used, outputs):
        assert keras.backend.standardize_dtype(tensor.dtype) == dtype
    found = to_numpy(ops.cast(used, "float32"))
    assert_allclose(found, expected, rtol=2.0**-8)
