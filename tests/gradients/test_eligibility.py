"""Derivatives of a firing rate accumulated forward in time equal autodiff of a naive loop."""

import itertools

import keras
import numpy as np
import pytest
from dual_numbers import rate_derivative
from helpers import double_precision, gradient_of, naive_lif, to_numpy
from keras import ops

from keras_ratesnn import layers
from keras_ratesnn.gradients import _eligibility, _time_loop
from keras_ratesnn.gradients._windows import Windows
from keras_ratesnn.gradients.signals import Signal

T = 7
CURRENTS = np.random.default_rng(0).normal(0.5, 0.8, (T, 4, 5))
RESETS = [
    {"reset": reset, "v_reset": v_reset, "initial_membrane": initial, "detach_reset": detach}
    for (reset, v_reset, initial), detach in itertools.product(
        [("soft", 0.0, 0.0), ("soft", 0.0, 0.4), ("hard", 0.0, 0.0), ("hard", -0.3, -0.5)], [True, False]
    )
]
RESETS += [{**RESETS[index], "decay_input": True, "reset_delay": index != 7} for index in (2, 3, 6, 7)]
RESETS += [{**RESETS[7], "reset_delay": True}]


@pytest.fixture(autouse=True)
def _double_precision():
    with double_precision():
        yield


def double(array):
    return ops.convert_to_tensor(array, dtype="float64")


class ByForwardMode:
    """A mixin for cells: the written derivative belongs to the base's step and must not be used."""

    def step(self, inputs, state):
        return super().step(inputs, state)


class ForwardLIFCell(ByForwardMode, layers.LIFCell):
    pass


class ForwardIFCell(ByForwardMode, layers.IFCell):
    pass


class ForwardParametricLIFCell(ByForwardMode, layers.ParametricLIFCell):
    pass


WRITTEN = {"lif": layers.LIFCell, "if": layers.IFCell, "parametric": layers.ParametricLIFCell}
FORWARD = {"lif": ForwardLIFCell, "if": ForwardIFCell, "parametric": ForwardParametricLIFCell}
# Each with a threshold of its own.
every_reset = pytest.mark.parametrize(
    ("reset", "threshold"), [(reset, (0.5, 1.7)[index // 2 % 2 ^ index % 2]) for index, reset in enumerate(RESETS)], ids=str
)
every_way = pytest.mark.parametrize("cells", [WRITTEN, FORWARD], ids=["written", "forward mode"])


def test_a_written_derivative_applies_only_to_its_class():
    for name in WRITTEN:
        assert _eligibility.has_written_derivative(WRITTEN[name](reset_delay=True))
        assert not _eligibility.has_written_derivative(FORWARD[name]())


def means_of(cell, currents):
    """The firing rate of a cell for given currents, and its derivatives with respect to the input and the cell's weights."""
    steps = double(np.moveaxis(currents, 0, 1).reshape(-1, *currents.shape[2:]))
    _, (_, (means,)) = _time_loop.run(_eligibility.EligibilityPass(cell, "float64", (T,)), Signal(steps), T)
    return means


@every_reset
@every_way
def test_the_eligibility_is_the_derivative_with_respect_to_a_shift_of_the_input(cells, reset, threshold):
    cell = cells["lif"](decay=0.6, threshold=threshold, **reset)
    means = means_of(cell, CURRENTS)
    slope = np.broadcast_to(to_numpy(means["slopes"][0]), CURRENTS.shape[1:])
    expected = rate_derivative(CURRENTS, "input", 0.6, threshold, **reset)
    np.testing.assert_allclose(slope, expected, rtol=1e-12)
    spikes, _, _ = naive_lif(CURRENTS, 0.6, threshold, **{key: reset[key] for key in reset if key != "detach_reset"})
    np.testing.assert_allclose(to_numpy(means["rate"]), spikes.mean(axis=0), rtol=1e-15)


@every_reset
@every_way
def test_a_learned_decay_and_threshold_get_the_exact_local_derivative(cells, reset, threshold):
    cell = cells["parametric"](decay=0.6, threshold=threshold, learn_threshold=True, **reset)
    cell.build(CURRENTS.shape[1:])
    # The weights are the logit of the decay and the logarithm of the threshold, in the order in which they are made.
    by_weight = {"input": 1.0, "threshold": threshold, "decay": 0.6 * 0.4}
    for (by, inner), slope in zip(by_weight.items(), means_of(cell, CURRENTS)["slopes"], strict=True):
        expected = rate_derivative(CURRENTS, by, 0.6, threshold, **reset) * inner
        np.testing.assert_allclose(to_numpy(slope), expected, rtol=1e-6, atol=1e-9, err_msg=by)


@every_way
def test_an_integrator_without_a_leak_learns_its_threshold(cells):
    cell = cells["if"](threshold=0.7, learn_threshold=True)
    cell.build(CURRENTS.shape[1:])
    expected = rate_derivative(CURRENTS, "threshold", 1.0, 0.7, "soft", 0.0, True) * 0.7
    np.testing.assert_allclose(to_numpy(means_of(cell, CURRENTS)["slopes"][1]), expected, rtol=1e-6, atol=1e-9)


def test_the_rate_has_the_time_mean_as_value_and_the_eligibility_as_derivative():
    cell = layers.LIFCell(decay=0.6)
    means = means_of(cell, CURRENTS)
    weights = np.random.default_rng(1).normal(size=CURRENTS.shape[1:])
    mean_input = CURRENTS.mean(axis=0)

    def weighted(c):
        return ops.sum(double(weights) * _eligibility.firing_rate(cell, [means], c, Windows((T,))))

    spikes, _, _ = naive_lif(CURRENTS, 0.6)
    np.testing.assert_allclose(to_numpy(weighted(double(mean_input))), (weights * spikes.mean(axis=0)).sum())
    (gradient,) = gradient_of(weighted, [mean_input])
    np.testing.assert_allclose(gradient, weights * rate_derivative(CURRENTS, "input", 0.6, 1.0, "soft", 0.0, True))


def test_a_weight_of_many_neurons_gets_the_sum_of_their_derivatives():
    cell = layers.ParametricLIFCell(decay=0.6, per_channel=True)
    cell.build(CURRENTS.shape[1:])
    means = means_of(cell, CURRENTS)
    weights = np.random.default_rng(1).normal(size=CURRENTS.shape[1:])

    def weighted(decay_logit):
        with keras.StatelessScope([(cell.decay_logit, decay_logit)]):
            return ops.sum(double(weights) * _eligibility.firing_rate(cell, [means], double(CURRENTS[0]), Windows((T,))))

    (gradient,) = gradient_of(weighted, [np.full((1, 5), np.log(0.6 / 0.4))])
    expected = weights * rate_derivative(CURRENTS, "decay", 0.6, 1.0, "soft", 0.0, True) * 0.6 * 0.4
    np.testing.assert_allclose(gradient, expected.sum(axis=0, keepdims=True), rtol=1e-6)
