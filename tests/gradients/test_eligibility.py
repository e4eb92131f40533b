"""The derivatives of firing rates, by the input and by the weights of the neurons, are
those of a naive loop by autodiff: by rate, with written derivatives and in forward
mode, and by BPTT, which for one layer has the same."""

import itertools

import keras
import numpy as np
import pytest
from dual_numbers import rate_derivative
from helpers import assert_same, double_precision, naive_lif, response, spiking

from keras_ratesnn import layers
from keras_ratesnn.layers.parameters import LOG, Parameter

T = 7
CURRENTS = np.random.default_rng(0).normal(0.5, 0.8, (T, 4, 5))
WEIGHTS = np.random.default_rng(1).normal(size=CURRENTS.shape[1:])
KINDS = [
    ("soft", 0.0, 0.0),
    ("soft", 0.0, 0.4),
    ("hard", 0.0, 0.0),
    ("hard", -0.3, -0.5),
]
RESETS = [
    {
        "reset": reset,
        "v_reset": v_reset,
        "initial_membrane": initial,
        "detach_reset": detach,
    }
    for (reset, v_reset, initial), detach in itertools.product(KINDS, [True, False])
]
RESETS += [
    {**RESETS[index], "decay_input": True, "reset_delay": index != 7}
    for index in (2, 3, 6, 7)
]
RESETS += [{**RESETS[7], "reset_delay": True}]
# Each with a threshold of its own.
CASES = [
    (reset, (0.5, 1.7)[index // 2 % 2 ^ index % 2])
    for index, reset in enumerate(RESETS)
]


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


WRITTEN = layers.LIFCell, layers.IFCell, layers.ParametricLIFCell
FORWARD = ForwardLIFCell, ForwardIFCell, ForwardParametricLIFCell
every_way = pytest.mark.parametrize(
    ("cells", "gradient"),
    [(WRITTEN, "rate"), (FORWARD, "rate"), (WRITTEN, "bptt")],
    ids=["written", "forward mode", "bptt"],
)


def rates_of(cells, weights, gradient="rate"):
    """The `response` of the firing rates of neurons of each cell, given the same
    currents."""
    inputs = [keras.Input((5,), dtype="float64") for _ in cells]
    rates = [
        layers.Neuron(cell, name=f"neuron_{index}")(x)
        for index, (cell, x) in enumerate(zip(cells, inputs, strict=True))
    ]
    model = spiking(keras.Model(inputs, rates), T, gradient)
    currents = np.moveaxis(CURRENTS, 0, 1)
    return response(model, [currents for _ in cells], [weights for _ in cells])


@every_way
def test_the_rate_has_the_time_mean_as_value_and_the_derivative_of_a_shift_of_the_input(
    cells, gradient
):
    made = [cells[0](0.6, threshold, **reset) for reset, threshold in CASES]
    found = rates_of(made, np.ones(CURRENTS.shape[1:]), gradient)
    rates, of_inputs, _ = found
    for (reset, threshold), rate, of_input in zip(CASES, rates, of_inputs, strict=True):
        values = {key: reset[key] for key in reset if key != "detach_reset"}
        spikes, _, _ = naive_lif(CURRENTS, 0.6, threshold, **values)
        np.testing.assert_allclose(rate, spikes.mean(axis=0), rtol=1e-15, err_msg=reset)
        expected = rate_derivative(CURRENTS, "input", 0.6, threshold, **reset)
        shift = of_input.sum(axis=1)
        np.testing.assert_allclose(
            shift, expected, rtol=1e-12, atol=1e-13, err_msg=reset
        )
        if gradient == "rate":
            # All steps have the same share in the mean input.
            shares = np.repeat(of_input[:, :1], T, axis=1)
            np.testing.assert_allclose(of_input, shares, rtol=1e-12)


@every_way
def test_a_learned_decay_and_threshold_get_the_exact_local_derivative(cells, gradient):
    """The weights are the logit of the decay and the logarithm of the threshold."""
    made = [
        cells[2](0.6, threshold, learn_threshold=True, **reset)
        for reset, threshold in CASES
    ]
    _, _, of_variables = rates_of(made, WEIGHTS, gradient)
    for index, (reset, threshold) in enumerate(CASES):
        of_neuron = {
            path.split("/")[-1]: value
            for path, value in of_variables.items()
            if f"neuron_{index}/" in path
        }
        for name, by, factor in (
            ("decay_logit", "decay", 0.6 * 0.4),
            ("log_threshold", "threshold", threshold),
        ):
            slopes = rate_derivative(CURRENTS, by, 0.6, threshold, **reset)
            expected = np.sum(WEIGHTS * slopes) * factor
            assert of_neuron[name] == pytest.approx(expected, rel=1e-6, abs=1e-9), reset


class LearnedResetCell(layers.LIFCell):
    v_reset = Parameter(LOG)
    learn_v_reset = True


class LearnedStartCell(layers.IFCell):
    initial_membrane = Parameter(LOG)
    learn_initial_membrane = True


class LearnedThresholdCell(layers.ILIFCell):
    threshold = Parameter(LOG)
    learn_threshold = True


def test_a_subclass_learns_one_more_parameter_by_the_gradient_of_its_step():
    """The written derivative does not know the weight."""

    def of_variables(gradient):
        cells = [
            LearnedResetCell(0.6, reset="hard", v_reset=0.3, detach_reset=False),
            LearnedStartCell(initial_membrane=0.3, learn_threshold=True),
            LearnedThresholdCell(3, 0.6, learn_decay=True),
        ]
        _, _, gradients = rates_of(cells, WEIGHTS, gradient)
        assert all(map(np.any, gradients.values()))
        return list(gradients.values())

    assert_same(of_variables("rate"), of_variables("bptt"), rtol=1e-9)


@pytest.mark.parametrize("cells", [WRITTEN, FORWARD], ids=["written", "forward mode"])
def test_a_written_derivative_applies_only_to_its_class(cells, monkeypatch):
    """A subclass with a step of its own has the derivative of that step."""
    used = []

    def noting(written):
        def noted(cell, *args, **kwargs):
            used.append(type(cell))
            return written(cell, *args, **kwargs)

        return noted

    owners = {
        next(base for base in cell.__mro__ if "step_derivative" in vars(base))
        for cell in WRITTEN
    }
    for owner in owners:
        monkeypatch.setattr(owner, "step_derivative", noting(owner.step_derivative))
    made = [cells[0](reset_delay=True), cells[1](), cells[2]()]
    rates_of(made, np.ones(CURRENTS.shape[1:]))
    assert set(used) == (set(cells) if cells is WRITTEN else set())
