"""Networks that were trained with quantised kernels: their integers are those of
training, and they see the same classes."""

import keras
import numpy as np
import pytest
from helpers import compiled, spiking, to_numpy
from keras import layers

import keras_ratesnn as rsnn

T = 4


def stripes(count, seed):
    """Images of 8-bit pixels with stripes in one of four directions, and noise."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 4, count)
    row, column = np.mgrid[:8, :8]
    patterns = np.stack([row, column, row + column, row - column])
    phase = random.integers(0, 4, (count, 1, 1))
    images = np.where((patterns[labels] + phase) % 4 < 2, 190.0, 60.0)
    images += random.normal(0.0, 30.0, images.shape)
    return np.clip(np.round(images), 0, 255).astype("uint8")[..., None], labels


def normalized(x, filters, padding):
    convolution = layers.Conv2D(filters, 3, padding=padding, use_bias=False)
    return layers.BatchNormalization(momentum=0.8)(convolution(x))


def network():
    inputs = keras.Input((8, 8, 1))
    x = normalized(layers.Rescaling(1 / 255)(inputs), 8, "same")
    x = spikes = rsnn.layers.LIF(0.3)(x)
    x = rsnn.layers.ParametricLIF(0.6)(normalized(x, 8, "same"))
    x = layers.AveragePooling2D(2)(layers.Add()([x, spikes]))
    x = layers.Flatten()(rsnn.layers.LIF(0.5)(normalized(x, 16, "valid")))
    return keras.Model(inputs, layers.Dense(4)(x))


@pytest.mark.parametrize("weights", ["int8", "int4", "ternary"])
def test_a_network_trained_for_20_steps_sees_the_same_classes_in_integers(weights):
    keras.utils.set_random_seed(0)
    images, labels = stripes(64 * 20, seed=0)
    model = rsnn.quantize_aware(spiking(network(), T), weights)
    compiled(model, keras.optimizers.Adam(3e-3))
    model.fit(images.astype("float32"), labels, batch_size=64, verbose=0)
    images, labels = stripes(400, seed=1)
    outputs = model.predict(images.astype("float32"), batch_size=400, verbose=0)
    trained = outputs.argmax(axis=-1)
    chip = rsnn.integer(model, verbose=False)
    found = chip.integer_logits(images).argmax(axis=-1)
    assert np.mean(trained == labels) > 0.5
    assert np.mean(found != trained) <= 0.01
    kinds = [row.weights for row in chip.report.layers if row.weights]
    assert kinds == ["int8", weights, weights, "int8"]


def perceptron(decay=0.5):
    """The weights in the middle are neither the first nor the last ones."""
    middle = layers.Dense(16, name="middle")
    hidden = layers.Dense(200), rsnn.layers.LIF(decay), middle, rsnn.layers.LIF(decay)
    return spiking(keras.Sequential([keras.Input((4,)), *hidden, layers.Dense(3)]), T)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("weights", ["int8", "int4", "ternary"])
def test_the_integers_are_those_of_training(policy, weights):
    keras.config.set_dtype_policy(policy)
    model = perceptron()
    kernel = np.random.default_rng(0).normal(size=(200, 16)).astype("float32")
    model.network.get_layer("middle").kernel.assign(kernel)
    model = rsnn.quantize_aware(model, weights)
    used = to_numpy(model.network.get_layer("middle").used_kernel())
    integers = rsnn.integer(model, verbose=False).plan.constants["w/middle"]
    scales = np.abs(used).max(axis=0) / np.abs(integers).max(axis=0)
    np.testing.assert_allclose(used, integers * scales, rtol=1e-6)


@pytest.mark.parametrize(("bits", "k"), [(6, 8), (11, 11)])
def test_decays_keep_the_bits_of_training(bits, k):
    model = rsnn.quantize_aware(perceptron(0.30417), decay_bits=bits)
    plan, decay = rsnn.integer(model, verbose=False).plan, round(0.30417 * 2**bits)
    facts = [layer.facts for layer in plan.layers if layer.kind == "neurons"]
    expected = [(decay * 2 ** (k - bits), k)] * 2
    assert [(fact["decay_m"], fact["decay_k"]) for fact in facts] == expected
