"""tdBN and TEBN against a few lines of NumPy, in both step modes."""

import keras
import numpy as np
import pytest
from helpers import (
    assert_close,
    both_step_modes,
    chain,
    spiking,
    to_numpy,
    training_results,
)
from keras import layers, ops
from numpy.testing import assert_allclose

from keras_ratesnn.layer_kinds import kind_of
from keras_ratesnn.layers import LIF
from keras_ratesnn.layers import TemporalEffectiveBatchNormalization as TEBN
from keras_ratesnn.layers import ThresholdDependentBatchNormalization as TDBN

T = 4
FACTORS = np.array([1.0, -0.5, 2.0, 0.7])


def test_the_scale_starts_at_alpha_times_threshold_in_a_batch_normalisation():
    settings = {"momentum": 0.9, "epsilon": 1e-5}
    layer, plain = TDBN(0.5, 0.7, **settings), layers.BatchNormalization(**settings)
    x = np.random.default_rng(0).normal(size=(8, 5, 3)).astype("float32")
    found, expected = (to_numpy(one(x, training=True)) for one in (layer, plain))
    assert_allclose(to_numpy(layer.gamma), 0.35)
    assert_allclose(found, 0.35 * expected, rtol=1e-4, atol=1e-6)
    assert kind_of(layer) == kind_of(plain)
    again = TDBN.from_config(layer.get_config())
    assert (again.threshold, again.alpha, again.momentum) == (0.5, 0.7, 0.9)


def normalized(x, step_mode, moving=None):
    """x̂ of inputs `(batch, T, ..., channels)`, and the means and variances by which it
    was computed: of all steps, of each step, or `moving`."""
    axes = tuple(range(x.ndim - 1))
    steps = [x] if step_mode == "multi" else np.split(x, T, axis=1)
    outputs, statistics = [], []
    for part in steps:
        mean, variance = moving or (part.mean(axes), part.var(axes))
        outputs.append((part - mean) / np.sqrt(variance + 1e-3))
        statistics.append((mean, variance))
    return np.concatenate(outputs, axis=1), statistics


def with_neurons(layer, shape, gradient, step_mode="multi", **kwargs):
    """A model whose first output is that of the layer, after a product."""
    inputs = keras.Input(shape, dtype=keras.config.floatx())
    # Not a Dense layer: on PyTorch, Keras computes those in float32, whatever their
    # dtype.
    product = layers.Conv1D(3, 1, use_bias=False)(inputs)
    outputs = layer(product)
    network = keras.Model(inputs, [outputs, LIF()(outputs), product])
    if isinstance(layer, TEBN):
        layer.step_factors.assign(FACTORS)
    return spiking(network, T, gradient, step_mode=step_mode, **kwargs)


def frames(*shape):
    random = np.random.default_rng(0)
    return random.normal(2.0, 3.0, (5, T, *shape)).astype(keras.config.floatx())


def weighted(weights, outputs):
    return ops.sum(weights * outputs[0])


@both_step_modes
def test_outputs_and_moving_averages_are_those_of_the_formula(step_mode):
    """p_t (γ x̂_t + β)."""
    layer = TEBN(T, momentum=0.75)
    model = with_neurons(
        layer, (3, 3), "bptt", step_mode=step_mode, return_sequences=True
    )
    gamma, beta = np.random.default_rng(1).normal(size=(2, 3))
    layer.gamma.assign(gamma)
    layer.beta.assign(beta)

    def compared(training, moving=None):
        outputs, _, products = to_numpy(model(frames(3, 3), training=training))
        expected, statistics = normalized(products, step_mode, moving)
        expected = FACTORS[:, None, None] * (gamma * expected + beta)
        assert_allclose(outputs, expected, rtol=1e-3, atol=1e-4)
        return statistics

    moving = np.zeros(3), np.ones(3)
    for statistics in compared(training=True):
        moving = [
            0.75 * before + 0.25 * of_batch
            for before, of_batch in zip(moving, statistics, strict=True)
        ]
    found = layer.moving_mean, layer.moving_variance
    assert_close(found, moving, rtol=1e-4, atol=1e-6)
    compared(training=False, moving=moving)


@both_step_modes
def test_the_rate_derivative_is_that_of_the_mean_of_the_scaled_rate(step_mode):
    """For a loss that is linear in the mean: p̄ for the input, and the normalised rate
    over T for each factor."""
    weights = np.random.default_rng(1).normal(size=(5, 2, 3)).astype("float32")
    results = []
    for make in (TEBN, layers.BatchNormalization):
        keras.utils.set_random_seed(0)
        layer = make(T) if make is TEBN else make()
        model = with_neurons(layer, (2, 3), "rate", step_mode)
        results.append(training_results(model, frames(2, 3), weights, weighted))
    (loss, found, _), (_, of_plain, _) = results
    model.return_sequences = True
    products = to_numpy(model(frames(2, 3)))[2]
    scaled, statistics = normalized(products, step_mode)
    scaled = FACTORS[:, None, None] * scaled
    assert loss == pytest.approx(np.sum(weights * scaled.mean(1)), rel=1e-4)
    mean = np.mean([mean for mean, _ in statistics], axis=0)
    precision = np.mean([1 / (variance + 1e-3) for _, variance in statistics], axis=0)
    of_rate = (products.mean(1) - mean) * np.sqrt(precision)
    expected = np.full(T, np.sum(weights * of_rate) / T)
    *of_others, of_factors = found.values()
    assert_allclose(of_factors, expected, rtol=1e-3)
    plain = [FACTORS.mean() * gradient for gradient in of_plain.values()]
    assert_close(of_others, plain, rtol=1e-3, atol=1e-5)


def test_more_steps_than_factors_are_refused_before_anything_runs():
    network = chain(chain(TEBN(T, name="tebn")), LIF())
    message = r"`timesteps` must be at most 4.*layer 'tebn'.*timesteps=5"
    with pytest.raises(ValueError, match=message):
        spiking(network, 5)
    model = spiking(network, 4)
    with pytest.raises(ValueError, match=message):
        model.timesteps = 5
    assert model.timesteps == 4
