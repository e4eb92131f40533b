"""Weight-standardised layers: the kernel follows the formula, and they work like Keras'
own layers."""

import dataclasses

import keras
import numpy as np
import pytest
from helpers import (
    BACKEND,
    compiled,
    data,
    gradient_of,
    loss_and_gradients,
    saved_and_loaded,
    spiking,
    to_numpy,
)
from keras import layers, ops

import keras_ratesnn as rsnn
from keras_ratesnn.layer_kinds import kind_of
from keras_ratesnn.layers.weight_standardized import standardized

RANDOM = np.random.default_rng(0)


def naive(kernel, gain, epsilon=1e-4):
    """The formula, one output at a time, in float64."""
    used = np.zeros(kernel.shape)
    for output in range(kernel.shape[-1]):
        weights = kernel[..., output].astype("float64")
        scale = np.sqrt(weights.var(ddof=1) * weights.size + epsilon)
        used[..., output] = gain[output] * (weights - weights.mean()) / scale
    return used


CASES = {
    "plain": (
        lambda: rsnn.layers.WSConv2D(4, 3),
        lambda: layers.Conv2D(4, 3),
        (6, 6, 2),
    ),
    "groups": (
        lambda: rsnn.layers.WSConv2D(4, 3, groups=2, padding="same", activation="relu"),
        lambda: layers.Conv2D(4, 3, groups=2, padding="same", activation="relu"),
        (6, 6, 4),
    ),
    "strides": (
        lambda: rsnn.layers.WSConv2D(4, (3, 2), strides=2, use_bias=False),
        lambda: layers.Conv2D(4, (3, 2), strides=2, use_bias=False),
        (6, 6, 2),
    ),
    "dilation": (
        lambda: rsnn.layers.WSConv2D(4, 2, dilation_rate=2),
        lambda: layers.Conv2D(4, 2, dilation_rate=2),
        (6, 6, 2),
    ),
    "dense": (
        lambda: rsnn.layers.WSDense(4, activation="tanh"),
        lambda: layers.Dense(4, activation="tanh"),
        (3, 5),
    ),
    "epsilon": (
        lambda: rsnn.layers.WSDense(4, use_bias=False, epsilon=0.5),
        lambda: layers.Dense(4, use_bias=False),
        (5,),
    ),
}
if BACKEND != "tensorflow":  # It has no such convolutions on a CPU.
    CASES["channels_first"] = (
        lambda: rsnn.layers.WSConv2D(4, 3, data_format="channels_first"),
        lambda: layers.Conv2D(4, 3, data_format="channels_first"),
        (2, 6, 6),
    )


def with_random_weights(layer, shape):
    layer.build((None, *shape))
    for variable in layer.trainable_variables:
        variable.assign(RANDOM.normal(0.3, 1.0, variable.shape))
    return layer


@pytest.mark.parametrize("name", CASES)
def test_a_layer_equals_keras_own_with_a_standardised_kernel(name):
    make, make_plain, shape = CASES[name]
    layer, plain = with_random_weights(make(), shape), make_plain()
    plain.build((None, *shape))
    plain.kernel.assign(
        naive(to_numpy(layer.kernel), to_numpy(layer.gain), layer.epsilon)
    )
    if layer.use_bias:
        plain.bias.assign(layer.bias)
    x = RANDOM.normal(size=(3, *shape)).astype("float32")
    np.testing.assert_allclose(
        to_numpy(layer(x)), to_numpy(plain(x)), rtol=1e-4, atol=1e-5
    )


def test_gain_starts_at_one_and_outputs_with_the_variance_of_their_inputs():
    layer = rsnn.layers.WSConv2D(
        64, 3, kernel_initializer=keras.initializers.RandomNormal(0.7, 5.0)
    )
    x = RANDOM.normal(size=(8, 10, 10, 16)).astype("float32")
    np.testing.assert_allclose(to_numpy(layer(x)).var(), 1.0, atol=0.1)
    np.testing.assert_array_equal(to_numpy(layer.gain), np.ones(64))


def test_the_derivative_reaches_weights_and_gain():
    kernel, gain, weights = (
        RANDOM.normal(size=shape) for shape in ((3, 2, 4), (4,), (3, 2, 4))
    )
    found = gradient_of(
        lambda kernel, gain: ops.sum(
            standardized(kernel, gain) * ops.convert_to_tensor(weights, "float32")
        ),
        [kernel.astype("float32"), gain.astype("float32")],
    )
    for array, gradient in zip((kernel, gain), found, strict=True):
        for index in np.ndindex(array.shape):
            before, step = array[index], 1e-5
            array[index] = before + step
            above = (naive(kernel, gain) * weights).sum()
            array[index] = before - step
            expected = (above - (naive(kernel, gain) * weights).sum()) / (2 * step)
            array[index] = before
            np.testing.assert_allclose(gradient[index], expected, rtol=1e-3, atol=1e-4)


def test_facts_are_those_of_the_keras_layers_but_outputs_are_proportional_to_the_gain():
    for layer, plain in (
        (rsnn.layers.WSConv2D(4, 3), layers.Conv2D(4, 3)),
        (rsnn.layers.WSDense(4), layers.Dense(4)),
    ):
        own, expected = (
            dataclasses.replace(kind_of(each), output_factors=None, kernels=None)
            for each in (layer, plain)
        )
        assert own == expected
        assert kind_of(layer).output_factors(layer)[0] == "gain"
        assert kind_of(layer).affine
    assert not kind_of(rsnn.layers.WSConv2D(4, 3, activation="relu")).affine


# In a SpikingModel.
def network(plain=False):
    """A network with scaled spikes, as without batch normalisation; `plain` uses Keras'
    own layers."""
    convolution, dense = (
        (layers.Conv2D, layers.Dense)
        if plain
        else (rsnn.layers.WSConv2D, rsnn.layers.WSDense)
    )
    inputs = keras.Input((6, 6, 2))
    x = layers.Rescaling(2.74)(
        rsnn.layers.LIF(0.5)(convolution(8, 3, padding="same")(inputs))
    )
    shared = convolution(8, 3, padding="same")
    for _ in range(2):
        x = layers.Rescaling(2.74)(rsnn.layers.LIF(0.5)(shared(x)))
    x = layers.GlobalAveragePooling2D()(layers.AveragePooling2D(2)(x))
    return keras.Model(inputs, dense(3)(x))


def kernels_of(model):
    return [layer for layer in model.network.layers if hasattr(layer, "kernel")]


METHODS = [("rate", "multi"), ("bptt", "single"), ("ottt", "single")]


@pytest.mark.parametrize(("gradient", "step_mode"), METHODS)
def test_gradients_are_those_of_the_standardised_kernel(gradient, step_mode):
    """A network of Keras' own layers, given the kernels, has the same loss, and its
    gradient by them times their derivative."""
    x, y = data(6, (6, 6, 2))
    model, plain = (
        spiking(network(), 3, gradient, step_mode=step_mode),
        spiking(network(True), 3, gradient, step_mode=step_mode),
    )
    for layer, other in zip(kernels_of(model), kernels_of(plain), strict=True):
        layer.gain.assign(RANDOM.uniform(1.0, 2.0, layer.gain.shape))
        other.kernel.assign(standardized(layer.kernel, layer.gain))
    loss, gradients = loss_and_gradients(model, x, y)
    plain_loss, by_used = loss_and_gradients(plain, x, y)
    np.testing.assert_allclose(loss, plain_loss, rtol=1e-5)
    for layer, other in zip(kernels_of(model), kernels_of(plain), strict=True):
        upstream = ops.convert_to_tensor(by_used[other.kernel.path])
        expected = gradient_of(
            lambda kernel, gain, upstream=upstream: ops.sum(
                standardized(kernel, gain) * upstream
            ),
            [to_numpy(layer.kernel), to_numpy(layer.gain)],
        )
        for variable, exact in zip((layer.kernel, layer.gain), expected, strict=True):
            np.testing.assert_allclose(
                gradients[variable.path], exact, rtol=1e-3, atol=1e-6
            )
            assert np.abs(exact).max() > 0


@pytest.mark.parametrize(("gradient", "step_mode"), METHODS)
def test_kernels_are_computed_once_in_a_training_step(gradient, step_mode):
    computed = []

    def kernels(layer):
        computed.append(layer)
        return rsnn.layers.WSDense.layer_kind.kernels(layer)

    class Noted(rsnn.layers.WSDense):
        layer_kind = dataclasses.replace(
            rsnn.layers.WSDense.layer_kind, kernels=kernels
        )

    inputs, shared = keras.Input((6,)), Noted(6)
    x = rsnn.layers.LIF(0.5)(shared(rsnn.layers.LIF(0.5)(shared(inputs))))
    network = keras.Model(inputs, layers.Dense(3)(x))
    loss_and_gradients(spiking(network, 3, gradient, step_mode=step_mode), *data())
    assert computed == [shared]


class Anew(rsnn.layers.WSDense):
    """Standardises its kernel in each call."""

    layer_kind = dataclasses.replace(rsnn.layers.WSDense.layer_kind, kernels=None)


def test_in_half_precision_gradients_of_all_steps_add_up_in_full_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    x, y = RANDOM.normal(size=(8, 64, 6)).astype("float32"), np.zeros(8, int)
    gradients = []
    for make in (rsnn.layers.WSDense, Anew):
        keras.utils.set_random_seed(0)
        parts = [keras.Input((6,)), make(16), rsnn.layers.LIF(), layers.Dense(3)]
        model = spiking(keras.Sequential(parts), 64, "bptt", step_mode="single")
        gradients.append(loss_and_gradients(model, x, y)[1])
    once, anew = (
        next(values for values in found.values() if values.shape == (6, 16))
        for found in gradients
    )
    assert np.linalg.norm(once - anew) < 1e-3 * np.linalg.norm(anew)


def test_statistics_are_of_the_weights_in_full_precision():
    layer = with_random_weights(
        rsnn.layers.WSDense(4, use_bias=False, dtype="mixed_bfloat16"), (64,)
    )
    layer.kernel.assign(
        100.0 + 0.01 * RANDOM.normal(size=(64, 4))
    )  # All alike in bfloat16.
    expected = naive(to_numpy(layer.kernel), to_numpy(layer.gain))
    found = to_numpy(ops.cast(layer(np.eye(64, dtype="float32")), "float32"))
    np.testing.assert_allclose(found, expected, atol=0.02 * np.abs(expected).max())


def test_constraints_and_regularisers_are_of_the_weights_themselves():
    layer = rsnn.layers.WSDense(
        4, kernel_regularizer=keras.regularizers.L2(0.5), kernel_constraint="unit_norm"
    )
    model = compiled(
        spiking(
            keras.Sequential(
                [keras.Input((6,)), layer, rsnn.layers.LIF(), layers.Dense(3)]
            )
        )
    )
    kernel = to_numpy(layer.kernel)
    np.testing.assert_allclose(
        to_numpy(sum(layer.losses)), 0.5 * (kernel**2).sum(), rtol=1e-5
    )
    model.train_on_batch(*data())
    np.testing.assert_allclose(
        np.linalg.norm(to_numpy(layer.kernel), axis=0), 1.0, rtol=1e-5
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda **k: rsnn.layers.WSConv2D(4, 3, **k),
        lambda **k: rsnn.layers.WSDense(4, **k),
    ],
)
def test_low_rank_adaptation_is_of_the_weights_and_merged_when_saved(make):
    layer = make(lora_rank=2)
    shape = (6, 6, 2) if hasattr(layer, "filters") else (6,)
    model = keras.Sequential([keras.Input(shape), layer])
    for variable in layer.trainable_variables:
        variable.assign(RANDOM.normal(size=variable.shape))
    x = RANDOM.normal(size=(3, *shape)).astype("float32")
    outputs = to_numpy(model(x))
    merged = naive(to_numpy(layer.kernel), to_numpy(layer.gain))
    assert not np.allclose(merged, naive(to_numpy(layer._kernel), to_numpy(layer.gain)))
    np.testing.assert_allclose(
        to_numpy(saved_and_loaded(model)(x)), outputs, rtol=1e-4, atol=1e-4
    )


def test_unsupported_settings_are_errors():
    with pytest.raises(
        ValueError, match=r"at least two weights for each output.*\(1, 4\)"
    ):
        rsnn.layers.WSDense(4).build((None, 1))
    with pytest.raises(
        ValueError, match=r"`dtype` must not be a quantized policy.*int8_from_float32"
    ):
        rsnn.layers.WSDense(4, dtype="int8_from_float32")
    with pytest.raises(ValueError, match="`epsilon` must be > 0"):
        rsnn.layers.WSConv2D(4, 3, epsilon=0.0)
    layer = rsnn.layers.WSDense(4)
    layer.build((None, 6))
    with pytest.raises(NotImplementedError, match="WSDense"):
        layer.quantize("int8")
