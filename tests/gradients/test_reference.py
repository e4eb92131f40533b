"""The library agrees with the authors' program, tensor by tensor, in all reference cases."""

import pytest
from helpers import training_results
from reference_networks import CASES, Case, reference_name

import keras_ratesnn as rsnn
from recipes.benchmark.evidence import reference
from recipes.benchmark.evidence.results import gradient_errors, largest, relative_error


@pytest.fixture(params=CASES)
def case(request):
    return Case(request.param)


def test_all_cases_exist():
    assert len(CASES) == 29


def test_logits_gradients_losses_and_moving_statistics_of_training_agree(case):
    results, _ = reference.trained(case, jit_compile="auto")
    errors = reference.errors_of(case, results)
    assert largest(errors) < reference.TOLERANCE, errors


@pytest.mark.parametrize(
    "name",
    # `test_windows.py` has it exactly, of a network with all that windows meet.
    ["res_bptt_m", *(pytest.param(name, marks=pytest.mark.slow) for name in CASES if "bptt_m" in name and "res_b" not in name)],
)
def test_rate_with_a_window_for_each_step_is_bptt(name):
    case = Case(name)
    model = case.model()
    model.gradient = rsnn.gradients.Rate(windows=model.timesteps)
    _, gradients, _ = training_results(model, case.x, case.y)
    assert_gradients_agree(case, model, gradients)


@pytest.mark.parametrize(
    ("name", "gradient"),
    [("ssa_block_t1", "rate"), ("espikeformer_block", "rate"), ("ssa_block", rsnn.gradients.Rate(windows=4))],
)
def test_rate_is_bptt_for_attention_with_a_window_for_each_step(name, gradient):
    case = Case(name)
    model = case.model(gradient=gradient)
    _, gradients, outputs = training_results(model, case.x, case.y)
    assert_gradients_agree(case, model, gradients)
    assert relative_error(outputs, case.arrays["logits"]) < reference.TOLERANCE


def assert_gradients_agree(case, model, gradients):
    named = {reference_name(variable.path): gradients[variable.path] for variable in model.trainable_variables}
    errors = gradient_errors(named, case.expected("grad"))
    assert largest(errors) < reference.TOLERANCE, errors
