"""Networks that were trained with quantised kernels: their integers are those of
training."""

import keras
import numpy as np
import pytest
from helpers import chain, spiking, to_numpy
from keras import layers

import keras_ratesnn as rsnn
from tests.integers.drawn import integers

T = 4


def perceptron(decay=0.5):
    """The weights in the middle are neither the first nor the last ones."""
    middle = layers.Dense(16, name="middle")
    hidden = layers.Dense(200), rsnn.layers.LIF(decay), middle, rsnn.layers.LIF(decay)
    return spiking(chain(*hidden, layers.Dense(3), shape=(4,)), T)


@pytest.mark.parametrize(
    ("policy", "weights"),
    [("float32", "int8"), ("float32", "int4"), ("mixed_bfloat16", "ternary")],
)
def test_the_integers_are_those_of_training(policy, weights):
    keras.config.set_dtype_policy(policy)
    model = perceptron()
    kernel = np.random.default_rng(0).normal(size=(200, 16)).astype("float32")
    model.network.get_layer("middle").kernel.assign(kernel)
    model = rsnn.deploy.quantize_aware(model, weights)
    used = to_numpy(model.network.get_layer("middle").used_kernel())
    stored = integers(model).plan.constants["w/middle"]
    scales = np.abs(used).max(axis=0) / np.abs(stored).max(axis=0)
    np.testing.assert_allclose(used, stored * scales, rtol=1e-6)


@pytest.mark.parametrize(("bits", "k"), [(6, 8), (11, 11)])
def test_decays_keep_the_bits_of_training(bits, k):
    model = rsnn.deploy.quantize_aware(perceptron(0.30417), decay_bits=bits)
    plan, decay = integers(model).plan, round(0.30417 * 2**bits)
    facts = [layer.facts for layer in plan.layers if layer.kind == "neurons"]
    expected = [(decay * 2 ** (k - bits), k)] * 2
    assert [(fact["decay_m"], fact["decay_k"]) for fact in facts] == expected
