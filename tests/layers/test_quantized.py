"""Layers with quantised kernels: calls use integers times scales, and the gradient goes
straight through."""

import dataclasses

import keras
import numpy as np
import pytest
from helpers import assert_close, gradient_of, to_numpy
from keras import layers, ops

import keras_ratesnn as rsnn
from keras_ratesnn.layer_kinds import kind_of
from keras_ratesnn.layers.quantized import QUANTIZED

RANDOM = np.random.default_rng(0)
LARGEST = {"int8": 127, "int4": 7, "ternary": 1}

# The arguments of each class, the shape of an input, and for each kernel the axes that
# share a scale.
CASES = {
    layers.Dense: ({"units": 4}, (5,), {"kernel": (0,)}),
    layers.Conv1D: (
        {"filters": 4, "kernel_size": 3, "padding": "causal"},
        (6, 2),
        {"kernel": (0, 1)},
    ),
    layers.Conv2D: (
        {"filters": 4, "kernel_size": 3, "groups": 2},
        (5, 5, 2),
        {"kernel": (0, 1, 2)},
    ),
    layers.Conv3D: (
        {"filters": 4, "kernel_size": 2, "use_bias": False},
        (3, 3, 3, 2),
        {"kernel": (0, 1, 2, 3)},
    ),
    layers.DepthwiseConv1D: (
        {"kernel_size": 3, "depth_multiplier": 2},
        (6, 2),
        {"kernel": (0,)},
    ),
    layers.DepthwiseConv2D: (
        {"kernel_size": 3, "depth_multiplier": 2},
        (5, 5, 2),
        {"kernel": (0, 1)},
    ),
    layers.Conv1DTranspose: (
        {"filters": 3, "kernel_size": 3},
        (6, 2),
        {"kernel": (0, 2)},
    ),
    layers.Conv2DTranspose: (
        {"filters": 3, "kernel_size": 3},
        (5, 5, 2),
        {"kernel": (0, 1, 3)},
    ),
    layers.Conv3DTranspose: (
        {"filters": 3, "kernel_size": 2},
        (3, 3, 3, 2),
        {"kernel": (0, 1, 2, 4)},
    ),
    layers.SeparableConv1D: (
        {"filters": 3, "kernel_size": 3, "depth_multiplier": 2},
        (6, 2),
        {"depthwise_kernel": (0,), "pointwise_kernel": (0, 1)},
    ),
    layers.SeparableConv2D: (
        {"filters": 3, "kernel_size": 3},
        (5, 5, 2),
        {"depthwise_kernel": (0, 1), "pointwise_kernel": (0, 1, 2)},
    ),
    rsnn.layers.WSConv2D: (
        {"filters": 4, "kernel_size": 3},
        (5, 5, 2),
        {"kernel": (0, 1, 2)},
    ),
    rsnn.layers.WSDense: ({"units": 4}, (5,), {"kernel": (0,)}),
}


def naive(kernel, weights, axis):
    """The kernel that calls use, one channel at a time, in float32."""
    used, moved = (
        np.zeros(kernel.shape, "float32"),
        [size for each, size in enumerate(kernel.shape) if each not in axis],
    )
    for channel in np.ndindex(*moved):
        remaining = iter(channel)
        place = tuple(
            slice(None) if each in axis else next(remaining)
            for each in range(kernel.ndim)
        )
        w = kernel[place]
        if weights == "ternary":
            kept = np.abs(w) > 0.7 * np.abs(w).mean()
            used[place] = np.sign(w) * kept * np.abs(w)[kept].mean()
        else:
            scale = np.abs(w).max() / np.float32(LARGEST[weights])
            used[place] = (
                np.clip(np.rint(w / scale), -LARGEST[weights], LARGEST[weights]) * scale
            )
    return used


def pair(base, **options):
    """A layer and a quantised one with the same weights, which are not those of a
    start."""
    arguments, shape, _ = CASES[base]
    layer, quantized = base(**arguments), QUANTIZED[base](**arguments, **options)
    for each in (layer, quantized):
        each.build((None, *shape))
    layer.set_weights(
        [RANDOM.normal(0.3, 1.0, weight.shape) for weight in layer.weights]
    )
    quantized.set_weights(layer.get_weights())
    return layer, quantized


def standardized(layer):
    return {"kernel": to_numpy(layer.standardized_kernel())}


@pytest.mark.parametrize("base", CASES, ids=lambda base: base.__name__)
def test_a_call_is_that_of_the_layer_with_integers_times_scales(base):
    _, shape, axes = CASES[base]
    x = RANDOM.normal(size=(2, *shape)).astype("float32")
    for weights in LARGEST:
        layer, quantized = pair(base, weight_type=weights)
        if base in (rsnn.layers.WSConv2D, rsnn.layers.WSDense):
            plain = (
                layers.Dense(4) if base is rsnn.layers.WSDense else layers.Conv2D(4, 3)
            )
            plain.build((None, *shape))
            plain.set_weights([standardized(layer)["kernel"], to_numpy(layer.bias)])
            layer, used = plain, standardized(quantized)
        else:
            used = {name: to_numpy(getattr(quantized, name)) for name in axes}
        assert [weight.name for weight in quantized.weights][-len(layer.weights) :] == [
            each.name for each in layer.weights
        ]
        expected = {
            name: naive(to_numpy(getattr(layer, name)), weights, axis)
            for name, axis in axes.items()
        }
        for name in axes:
            np.testing.assert_allclose(used[name], expected[name], rtol=1e-5)
        values = zip(
            [weight.name for weight in layer.weights], layer.get_weights(), strict=True
        )
        layer.set_weights([used.get(name, value) for name, value in values])
        np.testing.assert_allclose(
            to_numpy(quantized(x)), to_numpy(layer(x)), rtol=1e-4, atol=1e-5
        )


def test_a_kernel_is_exactly_its_integers_times_its_scales():
    """The sum w + (s · W − w) would not be."""
    for weights, largest in LARGEST.items():
        _, dense = pair(layers.Dense, weight_type=weights)
        kernel = np.concatenate(
            [RANDOM.normal(0.0, 10.0**power, (5, 1)) for power in (-6, -1, 0, 3)],
            axis=1,
        )
        dense.set_weights([kernel, np.zeros(4)])
        used = to_numpy(dense.kernel)
        kernel = kernel.astype("float32")
        scale = np.abs(used if weights == "ternary" else kernel).max(
            axis=0
        ) / np.float32(largest)
        integers = np.rint(used / scale)
        assert np.array_equal(np.abs(integers).max(axis=0), np.full(4, largest))
        np.testing.assert_array_equal(integers * scale, used)


def test_halves_are_rounded_to_even_and_a_channel_of_zeros_stays_zero():
    dense = QUANTIZED[layers.Dense](3, use_bias=False, weight_type="int4")
    dense.build((None, 4))
    dense.set_weights(
        [
            np.array(
                [[7, 0, -7], [0.5, 0, 1.5], [-2.5, 0, 2.5], [3.5, 0, -0.5]], "float32"
            )
        ]
    )
    np.testing.assert_array_equal(
        to_numpy(dense.kernel), [[7, 0, -7], [0, 0, 2], [-2, 0, 2], [4, 0, 0]]
    )
    for weights in ("int8", "ternary"):
        other = QUANTIZED[layers.Dense].from_config(
            {**dense.get_config(), "weight_type": weights}
        )
        other.build((None, 4))
        other.set_weights(dense.get_weights())
        np.testing.assert_array_equal(to_numpy(other.kernel)[:, 1], np.zeros(4))


@pytest.mark.parametrize(
    "base", [layers.Conv2D, layers.SeparableConv1D], ids=lambda base: base.__name__
)
def test_one_scale_is_for_the_whole_kernel(base):
    layer, quantized = pair(base, per_channel=False)
    for name in CASES[base][2]:
        kernel = to_numpy(getattr(layer, name))
        expected = naive(kernel, "int8", tuple(range(kernel.ndim)))
        np.testing.assert_allclose(
            to_numpy(getattr(quantized, name)), expected, rtol=1e-5
        )


def test_the_gradient_goes_straight_through():
    weights = RANDOM.normal(size=(5, 4)).astype("float32")
    for base in (layers.Dense, rsnn.layers.WSDense):
        layer, quantized = pair(base, weight_type="ternary")

        def gradient(of, kernel):
            def weighted(*values):
                trained, fixed = (
                    list(values),
                    [each.value for each in of.non_trainable_variables],
                )
                outputs, _ = of.stateless_call(
                    trained, fixed, ops.convert_to_tensor(np.eye(5, dtype="float32"))
                )
                return ops.sum(outputs * ops.convert_to_tensor(weights))

            return gradient_of(
                weighted, [to_numpy(each.value) for each in of.trainable_variables]
            )

        assert_close(
            gradient(quantized, weights), gradient(layer, weights), rtol=1e-5, atol=1e-6
        )


def test_facts_are_those_of_the_layer():
    for base, quantized in QUANTIZED.items():
        assert dataclasses.replace(
            quantized.layer_kind, kernels=None
        ) == dataclasses.replace(kind_of(base(**CASES[base][0])), kernels=None)
    assert CASES.keys() == QUANTIZED.keys()
    assert not kind_of(QUANTIZED[layers.Dense](3, activation="relu")).affine


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_kernels_are_quantised_in_float32_and_then_cast(policy):
    layer, quantized = pair(layers.Dense, dtype=policy)
    expected = naive(to_numpy(layer.kernel), "int8", (0,))
    dtype = policy.removeprefix("mixed_")
    used = quantized.kernel
    assert keras.backend.standardize_dtype(used.dtype) == dtype
    np.testing.assert_allclose(
        to_numpy(ops.cast(used, "float32")), expected, rtol=2.0**-8
    )
    assert (
        keras.backend.standardize_dtype(quantized(np.ones((2, 5), "float32")).dtype)
        == dtype
    )
