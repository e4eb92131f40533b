"""The library agrees with the authors' program, tensor by tensor, in every case that was run there."""

import keras
import numpy as np
import pytest
from helpers import training_results
from keras import ops
from reference_networks import CASES, Case, reference_name

import keras_ratesnn as rsnn

TOLERANCE = 1e-3


def relative_error(value, expected):
    return np.linalg.norm(value - expected) / np.linalg.norm(expected)


@pytest.fixture(params=CASES)
def case(request):
    return Case(request.param)


def test_the_cases_are_all_there():
    assert len(CASES) == 24


def test_logits_and_gradients_agree(case):
    model = case.model()
    _, gradients, logits = training_results(model, case.x, case.y, case.loss)
    logits = logits.mean(axis=1) if model.return_sequences else logits
    assert relative_error(logits, case.arrays["logits"]) < TOLERANCE
    assert_gradients_agree(case, model, gradients)


@pytest.mark.parametrize("name", [name for name in CASES if "bptt_m" in name])
def test_rate_with_a_window_for_each_step_is_bptt(name):
    case = Case(name)
    model = case.model()
    model.gradient = rsnn.gradients.Rate(windows=model.timesteps)
    _, gradients, _ = training_results(model, case.x, case.y)
    assert_gradients_agree(case, model, gradients)


def assert_gradients_agree(case, model, gradients):
    named = {reference_name(variable): gradients[variable.path] for variable in model.trainable_variables}
    expected = case.expected("grad")
    assert named.keys() == expected.keys()
    largest = max(np.linalg.norm(gradient) for gradient in expected.values())
    for name, gradient in named.items():
        # The gradient of a bias before a batch normalisation is zero but for rounding: it has no relative error.
        if np.linalg.norm(expected[name]) < 1e-5 * largest:
            assert np.linalg.norm(gradient) < 1e-5 * largest, name
        else:
            assert relative_error(gradient, expected[name]) < TOLERANCE, name


def test_losses_and_moving_statistics_of_training_agree(case):
    model = case.model()
    model.compile(keras.optimizers.SGD(case.settings["lr"]), case.loss)
    losses = [float(model.train_on_batch(case.x, case.y)) for _ in range(case.settings["sgd_steps"])]
    np.testing.assert_allclose(losses, case.arrays["losses"], rtol=TOLERANCE)

    means = {name: value for name, value in case.expected("buffer").items() if name.endswith("running_mean")}
    moving = {reference_name(variable): ops.convert_to_numpy(variable) for variable in model.non_trainable_variables}
    for name, mean in means.items():
        assert relative_error(moving[name], mean) < TOLERANCE, name
