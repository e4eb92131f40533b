"""What is collected forward in time of a firing rate's derivatives is what autodiff of a naive loop gives."""

import itertools

import keras
import numpy as np
import pytest
from dual_numbers import rate_derivative
from helpers import gradient_of, naive_lif, to_numpy
from keras import ops

from keras_ratesnn import layers
from keras_ratesnn.gradients import _eligibility

T = 7
CURRENTS = np.random.default_rng(0).normal(0.5, 0.8, (T, 4, 5))
RESETS = [
    {"reset": reset, "v_reset": v_reset, "detach_reset": detach}
    for (reset, v_reset), detach in itertools.product([("soft", 0.0), ("hard", 0.0), ("hard", -0.3)], [True, False])
]


@pytest.fixture(autouse=True)
def _double_precision():
    keras.config.set_dtype_policy("float64")
    if keras.backend.backend() == "jax":
        import jax

        jax.config.update("jax_enable_x64", True)
        yield
        jax.config.update("jax_enable_x64", False)
    else:
        yield


def double(array):
    return ops.convert_to_tensor(array, dtype="float64")


def traces_of(cell, currents):
    traces, state = _eligibility.start(cell), cell.initial_state(double(currents[0]))
    for current in currents:
        membrane, spikes, state = cell.step(double(current), state)
        traces = _eligibility.advance(cell, traces, membrane, spikes, state)
    return traces


@pytest.mark.parametrize("threshold", [0.5, 1.0, 1.7])
@pytest.mark.parametrize("reset", RESETS, ids=str)
def test_the_eligibility_is_the_derivative_by_a_shift_of_the_input(reset, threshold):
    cell = layers.LIFCell(decay=0.6, threshold=threshold, **reset)
    traces = traces_of(cell, CURRENTS)
    slope = np.broadcast_to(to_numpy(traces["slopes"][0]), CURRENTS.shape[1:]) / T
    expected = rate_derivative(CURRENTS, "input", 0.6, threshold, **reset)
    np.testing.assert_allclose(slope, expected, rtol=1e-12)
    spikes, _, _ = naive_lif(CURRENTS, 0.6, threshold, reset["reset"], reset["v_reset"])
    np.testing.assert_array_equal(to_numpy(traces["spikes"]), spikes.sum(axis=0))


@pytest.mark.parametrize("threshold", [0.5, 1.7])
@pytest.mark.parametrize("reset", RESETS, ids=str)
def test_a_learned_decay_and_threshold_get_the_exact_local_derivative(reset, threshold):
    cell = layers.ParametricLIFCell(decay=0.6, threshold=threshold, learn_threshold=True, **reset)
    cell.build(CURRENTS.shape[1:])
    traces = traces_of(cell, CURRENTS)
    for by, slope in zip(["input", "decay", "threshold"], traces["slopes"], strict=True):
        expected = rate_derivative(CURRENTS, by, 0.6, threshold, **reset)
        np.testing.assert_allclose(to_numpy(slope) / T, expected, rtol=1e-6, atol=1e-9, err_msg=by)


def test_an_integrator_without_a_leak_learns_its_threshold():
    cell = layers.IFCell(threshold=0.7, learn_threshold=True)
    cell.build(CURRENTS.shape[1:])
    traces = traces_of(cell, CURRENTS)
    expected = rate_derivative(CURRENTS, "threshold", 1.0, 0.7, "soft", 0.0, True)
    np.testing.assert_allclose(to_numpy(traces["slopes"][1]) / T, expected, rtol=1e-6, atol=1e-9)


def test_the_rate_has_the_time_mean_as_value_and_the_eligibility_as_derivative():
    cell = layers.LIFCell(decay=0.6)
    traces = traces_of(cell, CURRENTS)
    weights = np.random.default_rng(1).normal(size=CURRENTS.shape[1:])
    mean_input = CURRENTS.mean(axis=0)

    def weighted(c):
        return ops.sum(double(weights) * _eligibility.firing_rate(cell, _eligibility.means(traces, T), c))

    spikes, _, _ = naive_lif(CURRENTS, 0.6)
    np.testing.assert_allclose(to_numpy(weighted(double(mean_input))), (weights * spikes.mean(axis=0)).sum())
    (gradient,) = gradient_of(weighted, [mean_input])
    np.testing.assert_allclose(gradient, weights * rate_derivative(CURRENTS, "input", 0.6, 1.0, "soft", 0.0, True))


def test_a_parameter_of_many_neurons_gets_the_sum_of_their_derivatives():
    cell = layers.ParametricLIFCell(decay=0.6, per_channel=True)
    cell.build(CURRENTS.shape[1:])
    traces = traces_of(cell, CURRENTS)
    weights = np.random.default_rng(1).normal(size=CURRENTS.shape[1:])

    def weighted(decay):
        cell.rate_parameters = lambda: [decay]
        return ops.sum(double(weights) * _eligibility.firing_rate(cell, _eligibility.means(traces, T), double(CURRENTS[0])))

    (gradient,) = gradient_of(weighted, [np.full((1, 5), 0.6)])
    expected = weights * rate_derivative(CURRENTS, "decay", 0.6, 1.0, "soft", 0.0, True)
    np.testing.assert_allclose(gradient, expected.sum(axis=0, keepdims=True), rtol=1e-6)
