"""The library agrees with the authors' program, tensor by tensor, in all reference cases."""

import keras
import numpy as np
import pytest
from helpers import to_numpy, training_results
from keras import ops
from reference_networks import CASES, Case, reference_name

import keras_ratesnn as rsnn

TOLERANCE = 1e-3


def relative_error(value, expected):
    return np.linalg.norm(value - expected) / np.linalg.norm(expected)


@pytest.fixture(params=CASES)
def case(request):
    return Case(request.param)


def test_all_cases_exist():
    assert len(CASES) == 24


class RememberingSGD(keras.optimizers.SGD):
    """Stores the gradients of its last step."""

    def build(self, variables):
        super().build(variables)
        self.gradients = [self.add_variable_from_reference(variable, "gradient") for variable in variables]

    def update_step(self, gradient, variable, learning_rate):
        self.assign(self.gradients[self._get_variable_index(variable)], gradient)
        super().update_step(gradient, variable, learning_rate)


class LastOutputs(keras.metrics.Metric):
    """Stores the outputs of the last batch, or their time mean, instead of a number."""

    def __init__(self, shape):
        super().__init__(name="last_outputs")
        self.outputs = self.add_variable(shape, "zeros", name="outputs")

    def update_state(self, y, outputs, sample_weight=None):
        self.outputs.assign(ops.mean(outputs, axis=1) if len(outputs.shape) == 3 else outputs)

    def result(self):
        return ops.max(self.outputs)


def test_logits_gradients_losses_and_moving_statistics_of_training_agree(case):
    model = case.model()
    optimizer, logits = RememberingSGD(case.settings["lr"]), LastOutputs(case.arrays["logits"].shape)
    model.compile(optimizer, case.loss, metrics=[logits])
    losses = []
    for step in range(case.settings["sgd_steps"]):
        losses.append(float(model.train_on_batch(case.x, case.y)[0]))
        if step == 0:
            assert relative_error(to_numpy(logits.outputs), case.arrays["logits"]) < TOLERANCE
            paths = [variable.path for variable in model.trainable_variables]
            assert_gradients_agree(case, model, dict(zip(paths, to_numpy(optimizer.gradients), strict=True)))
    np.testing.assert_allclose(losses, case.arrays["losses"], rtol=TOLERANCE)

    means = {name: value for name, value in case.expected("buffer").items() if name.endswith("running_mean")}
    moving = {reference_name(variable): ops.convert_to_numpy(variable) for variable in model.non_trainable_variables}
    for name, mean in means.items():
        assert relative_error(moving[name], mean) < TOLERANCE, name


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
