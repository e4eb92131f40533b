"""The library agrees with the authors' program, tensor by tensor, in all reference
cases."""

import numpy as np
import pytest
from helpers import training_results
from reference_networks import CASES, TOLERANCE, Case

import keras_ratesnn as rsnn


@pytest.fixture(params=CASES)
def case(request):
    return Case(request.param)


def test_all_cases_exist():
    assert len(CASES) == 29


def test_logits_gradients_losses_and_moving_statistics_of_training_agree(case):
    case.assert_training_agrees(jit_compile="auto")


@pytest.mark.parametrize(
    ("name", "gradient"),
    [
        ("ssa_block_t1", "rate"),
        ("espikeformer_block", "rate"),
        ("ssa_block", rsnn.gradients.Rate(windows=4)),
    ],
)
def test_rate_is_bptt_for_attention_with_a_window_for_each_step(name, gradient):
    case = Case(name)
    _, gradients, outputs = training_results(
        case.model(gradient=gradient), case.x, case.y
    )
    case.assert_gradients_agree(gradients)
    logits = case.arrays["logits"]
    assert np.linalg.norm(outputs - logits) < TOLERANCE * np.linalg.norm(logits)
