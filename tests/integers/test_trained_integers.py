"""Networks that were trained with quantised kernels: their integers are those of
training, and they see the same classes."""

import keras
import numpy as np
import pytest
from helpers import compiled, spiking, to_numpy
from keras import layers

import keras_ratesnn as rsnn
from keras_ratesnn.integers._compiler import integer_weights
from keras_ratesnn.layers.quantized import QUANTIZED

T = 4


def stripes(count, seed):
    """Images of 8-bit pixels with stripes in one of four directions, and noise."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 4, count)
    row, column = np.mgrid[:8, :8]
    patterns = np.stack([row, column, row + column, row - column])
    phase = random.integers(0, 4, (count, 1, 1))
    images = np.where((patterns[labels] + phase) % 4 < 2, 190.0, 60.0) + random.normal(
        0.0, 30.0, (count, 8, 8)
    )
    return np.clip(np.round(images), 0, 255).astype("uint8")[..., None], labels


def network():
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(8, 3, padding="same", use_bias=False)(
        layers.Rescaling(1 / 255)(inputs)
    )
    x = spikes = rsnn.layers.LIF(0.3)(layers.BatchNormalization(momentum=0.8)(x))
    x = layers.BatchNormalization(momentum=0.8)(
        layers.Conv2D(8, 3, padding="same", use_bias=False)(x)
    )
    x = layers.AveragePooling2D(2)(
        layers.Add()([rsnn.layers.ParametricLIF(0.6)(x), spikes])
    )
    x = layers.BatchNormalization(momentum=0.8)(layers.Conv2D(16, 3, use_bias=False)(x))
    return keras.Model(
        inputs, layers.Dense(4)(layers.Flatten()(rsnn.layers.LIF(0.5)(x)))
    )


@pytest.mark.parametrize("weights", ["int8", "int4", "ternary"])
def test_a_network_trained_for_20_steps_sees_the_same_classes_in_integers(weights):
    keras.utils.set_random_seed(0)
    images, labels = stripes(64 * 20, seed=0)
    model = compiled(
        rsnn.quantize_aware(spiking(network(), T), weights),
        keras.optimizers.Adam(3e-3),
        metrics=["accuracy"],
    )
    model.fit(images.astype("float32"), labels, batch_size=64, verbose=0)
    images, labels = stripes(400, seed=1)
    trained = model.predict(images.astype("float32"), batch_size=400, verbose=0).argmax(
        axis=-1
    )
    chip = rsnn.integer(model, verbose=False)
    found = to_numpy(chip.integer_logits(images)).argmax(axis=-1)
    assert np.mean(trained == labels) > 0.5
    assert np.mean(found != trained) <= 0.01
    kinds = [row.weights for row in chip.report.layers if row.weights]
    assert kinds == ["int8", weights, weights, "int8"]


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_the_integers_are_those_of_training(policy):
    random = np.random.default_rng(0)
    for weights in ("int8", "int4", "ternary"):
        dense = QUANTIZED[layers.Dense](16, weight_type=weights, dtype=policy)
        dense.build((None, 200))
        kernel = random.normal(size=(200, 16)).astype("float32")
        dense.set_weights([kernel, np.zeros(16)])
        integers, scale = integer_weights(kernel, weights, (0,))
        used = to_numpy(dense.used_kernel())
        np.testing.assert_allclose(used, integers * scale, rtol=1e-6)
        np.testing.assert_array_equal(integer_weights(used, weights, (0,))[0], integers)


@pytest.mark.parametrize(("bits", "k"), [(6, 8), (11, 11)])
def test_decays_keep_the_bits_of_training(bits, k):
    inputs = keras.Input((4,))
    x = rsnn.layers.LIF(0.30417)(layers.Dense(8)(inputs))
    model = rsnn.quantize_aware(
        spiking(keras.Model(inputs, layers.Dense(3)(x)), T), decay_bits=bits
    )
    (neurons,) = (
        layer.facts
        for layer in rsnn.integer(model, verbose=False).plan.layers
        if layer.kind == "neurons"
    )
    assert (neurons["decay_m"], neurons["decay_k"]) == (
        round(0.30417 * 2**bits) * 2 ** (k - bits),
        k,
    )
