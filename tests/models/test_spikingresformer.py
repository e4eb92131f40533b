"""SpikingResformer, and the firing rates that its attention measures in training and
divides by."""

import helpers
import keras
import numpy as np
import pytest
from helpers import assert_close, both_step_modes, to_numpy, training_results
from keras import layers, ops
from numpy.testing import assert_allclose

import keras_ratesnn as rsnn
from keras_ratesnn import models
from keras_ratesnn.layers import LIF
from keras_ratesnn.layers.firing_rate_scale import FiringRateScale

pytestmark = pytest.mark.runs_once


T = 3


def spikes_of(seed):
    """Spikes of two heads: `(4, T, 2, 3, 5)`."""
    shares = np.array([0.3, 0.6])[:, None, None]
    spikes = np.random.default_rng(seed).random((4, T, 2, 3, 5)) < shares
    return spikes.astype("float32")


def scaled(momentum=0.75, **kwargs):
    """A network of neurons that pass spikes on, and sums of these, which a layer
    scales."""
    inputs = keras.Input((2, 3, 5))
    currents = layers.Dense(5, use_bias=False, kernel_initializer="identity")(inputs)
    spikes = LIF(decay=0.0, threshold=0.5)(currents)
    layer = FiringRateScale(momentum, name="scale")
    sums = ops.sum(spikes, axis=-1, keepdims=True)
    outputs = layers.Flatten()(layers.Multiply()([sums, layer(spikes)]))
    return rsnn.SpikingModel(keras.Model(inputs, outputs), T, **kwargs), layer


def outputs_of(model, x):
    """In training, their means over time."""
    outputs = training_results(model, x, x, lambda y, outputs: ops.sum(outputs))[2]
    return to_numpy(outputs)


def moved(before, spikes):
    """The rates of heads after some spikes `(rows, 2, 3, 5)`. Those that have not
    spiked have none yet."""
    rates = spikes.mean(axis=(0, 2, 3))
    return np.where(before == 0.0, rates, 0.75 * before + 0.25 * rates)


def scaled_sums(x, rates):
    """One without a rate stands for a rate of 1."""
    rates = np.where(rates == 0.0, 1.0, rates)
    return x.sum(axis=-1) / np.sqrt(5 * rates)[:, None]


@pytest.mark.parametrize(
    ("gradient", "step_mode"),
    [
        pytest.param("bptt", "multi", marks=pytest.mark.on_each_backend),
        pytest.param("rate", "multi", marks=pytest.mark.on_each_backend),
        ("rate", "single"),
        ("ottt", "single"),
    ],
)
def test_rates_move_once_a_batch_or_step_and_scale_it(gradient, step_mode):
    """Padding counts in none, and frozen ones stay."""
    model, layer = scaled(gradient=gradient, step_mode=step_mode, mask_value=-9.0)
    lengths = np.array([3, 1, 2, 0])
    mask = np.arange(T) < lengths[:, None]
    rates = np.zeros(2)
    for seed in (0, 1):
        x = spikes_of(seed)
        if seed == 0:
            x[:, :, 1] = 0.0
        expected = np.zeros((4, T, 2, 3))
        # One batch of all steps, or one for each step.
        batches = [slice(None)] if step_mode == "multi" else [[t] for t in range(T)]
        for steps in batches:
            rates = moved(rates, x[:, steps][mask[:, steps]])
            expected[:, steps] = scaled_sums(x[:, steps], rates)
        padded = np.where(mask[:, :, None, None, None], x, -9.0)
        outputs = outputs_of(model, padded)
        assert_allclose(to_numpy(layer.firing_rate), rates, rtol=1e-6)
        sums = np.sum(expected, axis=1, where=mask[:, :, None, None])
        means = sums / np.maximum(lengths, 1)[:, None, None]
        assert_allclose(outputs, means.reshape(4, 6), rtol=1e-5)
    x = spikes_of(2)
    layer.trainable = False
    for outputs in (outputs_of(model, x), model.predict(x, verbose=0)):
        means = scaled_sums(x.mean(axis=1), rates)
        assert_allclose(outputs, means.reshape(4, 6), rtol=1e-5)
    assert_allclose(to_numpy(layer.firing_rate), rates, rtol=1e-6)


@pytest.mark.on_each_backend
@both_step_modes
def test_the_rate_gradient_is_bptts_at_one_step(step_mode):
    x = spikes_of(0)[:, :1]
    network = scaled()[0].network
    results = []
    for gradient in ("rate", "bptt"):
        model = rsnn.SpikingModel(network, 1, gradient, step_mode)
        _, gradients, _ = training_results(
            model, x, x, lambda y, outputs: ops.sum(ops.square(outputs))
        )
        results.append(list(gradients.values()))
    assert all(gradient.any() for gradient in results[0])
    assert_close(*results, rtol=1e-5)


def test_the_stem_and_the_heads_depend_on_images_and_channels():
    with keras.StatelessScope(initialize_variables=False):
        model, large = models.SpikingResformer((32, 48, 3)), models.SpikingResformer()
    assert model.network.get_layer("stem_bn").output.shape == (None, 32, 48, 64)
    assert large.network.get_layer("stem_pool").output.shape == (None, 56, 56, 64)
    for stage, heads, tokens in ((1, 1, 1536), (2, 3, 384), (3, 6, 96)):
        layer = model.network.get_layer(f"stage{stage}_block1_attention_neuron")
        assert layer.output.shape[1:] == (heads, tokens, 96)
    assert not model.network.get_layer("classifier").use_bias


def test_all_products_of_attention_are_of_spikes():
    sizes = {"dims": (4, 8, 8), "blocks": (1, 1, 1), "heads": (1, 2, 2)}
    model = models.SpikingResformer((8, 8, 3), timesteps=2, group_size=4, **sizes)
    counted = rsnn.analysis.energy(model, helpers.data(4, (8, 8, 3))[0])
    assert counted.not_counted == ()
    assert len([name for name in counted.layers if "matmul" in name]) == 6
    assert counted.multiply_adds[1:-1].sum() == 0
