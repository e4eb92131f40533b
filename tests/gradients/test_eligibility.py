"""The derivatives of firing rates, by the input and by the weights of the neurons, are
those of a naive loop by autodiff."""

import itertools

import keras
import numpy as np
import pytest
from dual_numbers import rate_derivative
from helpers import double_precision, naive_lif, response, spiking

from keras_ratesnn import layers

T = 7
CURRENTS = np.random.default_rng(0).normal(0.5, 0.8, (T, 4, 5))
RESETS = [
    {
        "reset": reset,
        "v_reset": v_reset,
        "initial_membrane": initial,
        "detach_reset": detach,
    }
    for (reset, v_reset, initial), detach in itertools.product(
        [
            ("soft", 0.0, 0.0),
            ("soft", 0.0, 0.4),
            ("hard", 0.0, 0.0),
            ("hard", -0.3, -0.5),
        ],
        [True, False],
    )
]
RESETS += [
    {**RESETS[index], "decay_input": True, "reset_delay": index != 7}
    for index in (2, 3, 6, 7)
]
RESETS += [{**RESETS[7], "reset_delay": True}]


@pytest.fixture(autouse=True)
def _double_precision():
    with double_precision():
        yield


class ByForwardMode:
    """A mixin for cells: the written derivative belongs to the base's step and must not
    be used."""

    def step(self, inputs, state):
        return super().step(inputs, state)


class ForwardLIFCell(ByForwardMode, layers.LIFCell):
    pass


class ForwardIFCell(ByForwardMode, layers.IFCell):
    pass


class ForwardParametricLIFCell(ByForwardMode, layers.ParametricLIFCell):
    pass


WRITTEN = {
    "lif": layers.LIFCell,
    "if": layers.IFCell,
    "parametric": layers.ParametricLIFCell,
}
FORWARD = {
    "lif": ForwardLIFCell,
    "if": ForwardIFCell,
    "parametric": ForwardParametricLIFCell,
}
# Each with a threshold of its own.
CASES = [
    (reset, (0.5, 1.7)[index // 2 % 2 ^ index % 2])
    for index, reset in enumerate(RESETS)
]
every_way = pytest.mark.parametrize(
    "cells", [WRITTEN, FORWARD], ids=["written", "forward mode"]
)


def rates_of(cells, weights):
    """The `response` of the firing rates of neurons of each cell, given the same
    currents."""
    inputs = [keras.Input((5,), dtype="float64") for _ in cells]
    rates = [
        layers.Neuron(cell, name=f"neuron_{index}")(x)
        for index, (cell, x) in enumerate(zip(cells, inputs, strict=True))
    ]
    model = spiking(keras.Model(inputs, rates), T, "rate")
    return response(
        model, [np.moveaxis(CURRENTS, 0, 1) for _ in cells], [weights for _ in cells]
    )


@every_way
def test_the_rate_has_the_time_mean_as_value_and_the_derivative_of_a_shift_of_the_input(
    cells,
):
    made = [
        cells["lif"](decay=0.6, threshold=threshold, **reset)
        for reset, threshold in CASES
    ]
    rates, of_inputs, _ = rates_of(made, np.ones(CURRENTS.shape[1:]))
    for (reset, threshold), rate, of_input in zip(CASES, rates, of_inputs, strict=True):
        spikes, _, _ = naive_lif(
            CURRENTS,
            0.6,
            threshold,
            **{key: reset[key] for key in reset if key != "detach_reset"},
        )
        np.testing.assert_allclose(rate, spikes.mean(axis=0), rtol=1e-15, err_msg=reset)
        expected = rate_derivative(CURRENTS, "input", 0.6, threshold, **reset)
        np.testing.assert_allclose(
            of_input.sum(axis=1), expected, rtol=1e-12, err_msg=reset
        )
        # All steps have the same share in the mean input.
        np.testing.assert_allclose(
            of_input, np.repeat(of_input[:, :1], T, axis=1), rtol=1e-12
        )


@every_way
def test_a_learned_decay_and_threshold_get_the_exact_local_derivative(cells):
    made = [
        cells["parametric"](
            decay=0.6, threshold=threshold, learn_threshold=True, **reset
        )
        for reset, threshold in CASES
    ]
    weights = np.random.default_rng(1).normal(size=CURRENTS.shape[1:])
    _, of_inputs, of_variables = rates_of(made, weights)
    for index, ((reset, threshold), of_input) in enumerate(
        zip(CASES, of_inputs, strict=True)
    ):
        of_neuron = {
            path.split("/")[-1]: of
            for path, of in of_variables.items()
            if f"neuron_{index}/" in path
        }
        slopes = [
            rate_derivative(CURRENTS, by, 0.6, threshold, **reset) * weights
            for by in ("input", "decay", "threshold")
        ]
        np.testing.assert_allclose(
            of_input.sum(axis=1), slopes[0], rtol=1e-6, atol=1e-9, err_msg=reset
        )
        # The weights are the logit of the decay and the logarithm of the threshold.
        assert of_neuron["decay_logit"] == pytest.approx(
            slopes[1].sum() * 0.6 * 0.4, rel=1e-6, abs=1e-9
        ), reset
        assert of_neuron["log_threshold"] == pytest.approx(
            slopes[2].sum() * threshold, rel=1e-6, abs=1e-9
        ), reset


@every_way
def test_an_integrator_without_a_leak_learns_its_threshold(cells):
    weights = np.random.default_rng(1).normal(size=CURRENTS.shape[1:])
    _, _, of_variables = rates_of(
        [cells["if"](threshold=0.7, learn_threshold=True)], weights
    )
    expected = (
        rate_derivative(CURRENTS, "threshold", 1.0, 0.7, "soft", 0.0, True)
        * 0.7
        * weights
    )
    assert list(of_variables.values()) == [
        pytest.approx(expected.sum(), rel=1e-6, abs=1e-9)
    ]


@every_way
def test_a_weight_of_many_neurons_gets_the_sum_of_their_derivatives(cells):
    weights = np.random.default_rng(1).normal(size=CURRENTS.shape[1:])
    _, _, of_variables = rates_of(
        [cells["parametric"](decay=0.6, per_channel=True)], weights
    )
    expected = (
        weights
        * rate_derivative(CURRENTS, "decay", 0.6, 1.0, "soft", 0.0, True)
        * 0.6
        * 0.4
    )
    (gradient,) = of_variables.values()
    np.testing.assert_allclose(gradient, expected.sum(axis=0, keepdims=True), rtol=1e-6)


@every_way
def test_a_written_derivative_applies_only_to_its_class(cells, monkeypatch):
    """A subclass with a step of its own has the derivative of that step."""
    used = []

    def noting(written):
        return lambda cell, *args, **kwargs: (
            used.append(type(cell)) or written(cell, *args, **kwargs)
        )

    for owner in {
        next(base for base in cell.__mro__ if "step_derivative" in vars(base))
        for cell in WRITTEN.values()
    }:
        monkeypatch.setattr(owner, "step_derivative", noting(owner.step_derivative))
    made = [cells["lif"](reset_delay=True), cells["if"](), cells["parametric"]()]
    rates_of(made, np.ones(CURRENTS.shape[1:]))
    assert set(used) == (set(map(type, made)) if cells is WRITTEN else set())
