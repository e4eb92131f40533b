"""SpikingResformer, and the firing rates that its attention measures in training and
divides by."""

import helpers
import keras
import numpy as np
import pytest
from helpers import BACKEND, assert_close, to_numpy, training_results
from keras import layers, ops

import keras_ratesnn as rsnn
from keras_ratesnn import models
from keras_ratesnn.layers import LIF
from keras_ratesnn.layers.firing_rate_scale import FiringRateScale

pytestmark = pytest.mark.runs_once


T = 3


def spikes_of(samples=4, seed=0):
    """Spikes of two heads, of which the second is silent in some: `(samples, T, 2, 3,
    5)`."""
    random = np.random.default_rng(seed)
    return (
        random.random((samples, T, 2, 3, 5)) < np.array([0.3, 0.6])[:, None, None]
    ).astype("float32")


def scaled(momentum=0.75, **kwargs):
    """A network of neurons that pass spikes on, and sums of these, which a layer
    scales."""
    inputs = keras.Input((2, 3, 5))
    currents = layers.Dense(5, use_bias=False, kernel_initializer="identity")(inputs)
    spikes = LIF(decay=0.0, threshold=0.5)(currents)
    scale = FiringRateScale(momentum, name="scale")(spikes)
    currents = layers.Multiply()([ops.sum(spikes, axis=-1, keepdims=True), scale])
    model = rsnn.SpikingModel(
        keras.Model(inputs, layers.Flatten()(currents)), T, **kwargs
    )
    return model, model.network.get_layer("scale")


def outputs_of(model, x):
    """In training, of each step."""
    return to_numpy(
        training_results(model, x, x, lambda y, outputs: ops.sum(outputs))[2]
    )


@pytest.mark.on_each_backend
@pytest.mark.parametrize("gradient", ["bptt", "rate"])
def test_rates_of_all_steps_move_once_a_batch_and_then_scale_it(gradient):
    model, layer = scaled(gradient=gradient)
    first, second = spikes_of(), spikes_of(seed=1)
    first[:, :, 1] = 0.0
    means = [x.mean(axis=(0, 1, 3, 4)) for x in (first, second)]
    outputs = outputs_of(model, first)
    # The second head has not spiked: its rate stands for 1.
    np.testing.assert_allclose(
        to_numpy(layer.firing_rate), [means[0][0], 0.0], rtol=1e-6
    )
    expected = (
        first.sum(axis=-1).mean(axis=1)
        / np.sqrt(5 * np.array([means[0][0], 1.0]))[:, None]
    )
    np.testing.assert_allclose(outputs, expected.reshape(4, 6), rtol=1e-5)
    outputs = outputs_of(model, second)
    rates = [0.75 * means[0][0] + 0.25 * means[1][0], means[1][1]]
    np.testing.assert_allclose(to_numpy(layer.firing_rate), rates, rtol=1e-6)
    expected = second.sum(axis=-1).mean(axis=1) / np.sqrt(5 * np.array(rates))[:, None]
    np.testing.assert_allclose(outputs, expected.reshape(4, 6), rtol=1e-5)
    np.testing.assert_allclose(model.predict(second, verbose=0), outputs, rtol=1e-5)
    np.testing.assert_allclose(to_numpy(layer.firing_rate), rates, rtol=1e-6)


@pytest.mark.parametrize("gradient", ["bptt", "rate", "sltt", "ottt"])
def test_rates_of_each_step_move_in_single_step_mode(gradient):
    model, layer = scaled(gradient=gradient, step_mode="single")
    x, rate, expected = spikes_of(), None, 0.0
    for t in range(T):
        mean = x[:, t].mean(axis=(0, 2, 3))
        rate = mean if rate is None else 0.75 * rate + 0.25 * mean
        expected = expected + x[:, t].sum(axis=-1) / np.sqrt(5 * rate)[:, None] / T
    np.testing.assert_allclose(outputs_of(model, x), expected.reshape(4, 6), rtol=1e-5)
    np.testing.assert_allclose(to_numpy(layer.firing_rate), rate, rtol=1e-6)


@pytest.mark.parametrize("step_mode", ["multi", "single"])
def test_padding_counts_in_no_rate_and_frozen_rates_stay(step_mode):
    x, lengths = spikes_of(), np.array([3, 1, 2, 0])
    mask = np.arange(T) < lengths[:, None]
    for gradient in ("bptt", "rate"):
        model, layer = scaled(gradient=gradient, step_mode=step_mode, mask_value=-9.0)
        outputs_of(model, np.where(mask[:, :, None, None, None], x, -9.0))
        by_step = [x[mask[:, t], t].mean(axis=(0, 2, 3)) for t in range(T)]
        expected = x[mask].mean(axis=(0, 2, 3))
        if step_mode == "single":
            expected = (
                0.75 * (0.75 * by_step[0] + 0.25 * by_step[1]) + 0.25 * by_step[2]
            )
        np.testing.assert_allclose(to_numpy(layer.firing_rate), expected, rtol=1e-6)
        layer.trainable = False
        outputs_of(model, x)
        np.testing.assert_allclose(to_numpy(layer.firing_rate), expected, rtol=1e-6)


@pytest.mark.on_each_backend
@pytest.mark.parametrize("step_mode", ["multi", "single"])
def test_the_rate_gradient_is_bptts_at_one_step_also_compiled_and_in_half_precision(
    step_mode,
):
    x, found = spikes_of()[:, :1], []
    for gradient in ("rate", "bptt"):
        model = rsnn.SpikingModel(scaled()[0].network, 1, gradient, step_mode)
        _, gradients, outputs = training_results(
            model, x, x, lambda y, outputs: ops.sum(ops.square(outputs))
        )
        found.append([*gradients.values(), outputs])
    assert found[0][0].any()
    assert_close(*found, rtol=1e-5)
    keras.config.set_dtype_policy("mixed_bfloat16")
    model, layer = scaled(step_mode=step_mode)
    model.compile("sgd", "mse", jit_compile=BACKEND != "torch")
    assert np.isfinite(
        model.fit(spikes_of(), np.zeros((4, 6)), verbose=0).history["loss"]
    ).all()
    assert to_numpy(layer.firing_rate) == pytest.approx([0.3, 0.6], rel=0.2)


def test_the_stem_and_the_heads_depend_on_images_and_channels():
    with keras.StatelessScope(initialize_variables=False):
        model, large = models.SpikingResformer((32, 48, 3)), models.SpikingResformer()
    assert model.network.get_layer("stem_bn").output.shape == (None, 32, 48, 64)
    assert large.network.get_layer("stem_pool").output.shape == (None, 56, 56, 64)
    maps = [f"stage{stage}_block1_attention_neuron" for stage in (1, 2, 3)]
    shapes = [model.network.get_layer(name).output.shape[1:] for name in maps]
    assert shapes == [(1, 1536, 96), (3, 384, 96), (6, 96, 96)]
    shapes = [large.network.get_layer(name).output.shape[1:] for name in maps]
    assert shapes == [(1, 3136, 196), (3, 784, 196), (6, 196, 196)]
    assert not model.network.get_layer("classifier").use_bias


def test_all_products_of_attention_are_of_spikes():
    sizes = {"dims": (4, 8, 8), "blocks": (1, 1, 1), "heads": (1, 2, 2)}
    model = models.SpikingResformer((8, 8, 3), timesteps=2, group_size=4, **sizes)
    counted = rsnn.analysis.energy(model, helpers.data(4, (8, 8, 3))[0])
    assert counted.not_counted == ()
    assert len([name for name in counted.layers if "matmul" in name]) == 6
    assert counted.multiply_adds[1:-1].sum() == 0
