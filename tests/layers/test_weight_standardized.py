"""Weight-standardised layers: the kernel follows the formula, and they work like Keras'
own layers. Quantised ones are in test_quantized.py."""

import dataclasses

import keras
import numpy as np
import pytest
from helpers import (
    BACKEND,
    assert_close,
    chain,
    data,
    loss_and_gradients,
    saved_and_loaded,
    spiking,
    to_numpy,
)
from keras import layers, ops
from numpy.testing import assert_allclose, assert_array_equal

from keras_ratesnn.layer_kinds import kind_of
from keras_ratesnn.layers import LIF, WSConv2D, WSDense

RANDOM = np.random.default_rng(0)


def naive(layer):
    """The formula, one output at a time, in float64."""
    kernel = to_numpy(layer.kernel).astype("float64")
    used = np.zeros(kernel.shape)
    for output in range(kernel.shape[-1]):
        weights = kernel[..., output]
        scale = np.sqrt(weights.var(ddof=1) * weights.size + layer.epsilon)
        used[..., output] = (weights - weights.mean()) / scale
    return used * to_numpy(layer.gain)


PLAIN = {WSConv2D: layers.Conv2D, WSDense: layers.Dense}
# Layers, their arguments, and the shape of an input.
CONVOLUTION = {"filters": 4, "kernel_size": (3, 2)}
GROUPED = {**CONVOLUTION, "groups": 2, "strides": 2, "padding": "same"}
CASES = [
    (WSConv2D, {**GROUPED, "use_bias": False}, (6, 6, 4)),
    (WSDense, {"units": 4, "activation": "tanh"}, (3, 5)),
]
every_case = pytest.mark.parametrize(("kind", "arguments", "shape"), CASES)
if BACKEND != "tensorflow":  # It has no such convolutions on a CPU.
    arguments = {**CONVOLUTION, "data_format": "channels_first"}
    CASES.append((WSConv2D, arguments, (2, 6, 6)))


@every_case
def test_a_layer_equals_keras_own_with_a_standardised_kernel(kind, arguments, shape):
    layer = kind(epsilon=0.5, **arguments)
    layer.build((None, *shape))
    assert_array_equal(to_numpy(layer.gain), 1.0)
    for variable in layer.trainable_variables:
        variable.assign(RANDOM.normal(0.3, 1.0, variable.shape))
    plain = PLAIN[kind](**arguments)
    plain.build((None, *shape))
    plain.kernel.assign(naive(layer))
    if layer.use_bias:
        plain.bias.assign(layer.bias)
    x = RANDOM.normal(size=(3, *shape)).astype("float32")
    found, expected = to_numpy(layer(x)), to_numpy(plain(x))
    assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@every_case
def test_facts_are_those_of_the_keras_layers_but_outputs_are_proportional_to_the_gain(
    kind, arguments, shape
):
    layer = kind(**arguments)
    found, expected = (
        dataclasses.replace(kind_of(one), output_factors=None, kernels=None)
        for one in (layer, PLAIN[kind](**arguments))
    )
    assert found == expected
    assert kind_of(layer).output_factors(layer)[0] == "gain"
    assert kind_of(layer).affine == ("activation" not in arguments)


class Anew(WSDense):
    """Standardises its kernel in each call."""

    layer_kind = dataclasses.replace(WSDense.layer_kind, kernels=None)


METHODS = [("rate", "multi"), ("bptt", "single"), ("ottt", "single")]


def gradients_of(make, x, *arguments, **options):
    """Of the first layer's kernel and gain, and of those of a layer that is called
    twice."""
    keras.utils.set_random_seed(0)
    first, shared, neurons = make(6), make(6), LIF(0.5, 0.3)
    parts = [first, neurons, shared, neurons, shared, neurons]
    network = chain(*parts, layers.Dense(3))
    for layer in (first, shared):
        layer.gain.assign(np.linspace(1.0, 2.0, 6))
    model = spiking(network, *arguments, **options)
    _, gradients = loss_and_gradients(model, x, np.arange(len(x)) % 3)
    weights = first.kernel, first.gain, shared.kernel, shared.gain
    return [gradients[weight.path] for weight in weights]


@pytest.mark.parametrize(("gradient", "step_mode"), METHODS)
def test_gradients_are_those_of_a_kernel_that_each_call_standardises(
    gradient, step_mode
):
    found, expected = (
        gradients_of(make, data(6)[0], 3, gradient, step_mode=step_mode)
        for make in (WSDense, Anew)
    )
    assert all(map(np.any, expected))
    assert_close(found, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("gradient", "step_mode"), METHODS)
def test_kernels_are_computed_once_in_a_training_step(gradient, step_mode):
    computed = []

    def kernels(layer):
        computed.append(layer)
        return WSDense.layer_kind.kernels(layer)

    class Noted(WSDense):
        layer_kind = dataclasses.replace(WSDense.layer_kind, kernels=kernels)

    shared, neurons = Noted(6), LIF(0.5)
    network = chain(shared, neurons, shared, neurons, layers.Dense(3))
    loss_and_gradients(spiking(network, 3, gradient, step_mode=step_mode), *data())
    assert computed == [shared]


def test_statistics_are_of_the_weights_in_full_precision():
    layer = WSDense(4, use_bias=False, dtype="mixed_bfloat16")
    layer.build((None, 64))
    # All alike in bfloat16.
    layer.kernel.assign(100.0 + 0.01 * RANDOM.normal(size=(64, 4)))
    expected = naive(layer)
    found = to_numpy(ops.cast(layer(np.eye(64, dtype="float32")), "float32"))
    assert_allclose(found, expected, atol=0.02 * np.abs(expected).max())


@every_case
def test_low_rank_adaptation_is_of_the_weights_and_merged_when_saved(
    kind, arguments, shape
):
    layer = kind(lora_rank=2, **arguments)
    model = chain(layer, shape=shape)
    before = naive(layer)
    for variable in layer.trainable_variables:
        if "lora" in variable.name:
            variable.assign(RANDOM.normal(size=variable.shape))
    assert not np.allclose(naive(layer), before)
    x = RANDOM.normal(size=(3, *shape)).astype("float32")
    loaded = saved_and_loaded(model)
    assert_allclose(to_numpy(loaded(x)), to_numpy(model(x)), rtol=1e-4, atol=1e-4)
