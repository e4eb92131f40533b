"""Promises of other files hold for recorded calls: on PyTorch, where every call here is
recorded, and replayed or compiled."""

import functools
import importlib
import shutil

import keras
import numpy as np
import pytest
from helpers import BACKEND
from reference_networks import CASES, Case

if BACKEND != "torch":
    pytest.skip(
        "other backends compile whole functions themselves", allow_module_level=True
    )

from keras_ratesnn._core.backend.torch.recorder import call_graphs
from keras_ratesnn._core.backend.torch.recorder.compiler import Compiled
from keras_ratesnn._core.backend.torch.recorder.graph_passes import draws
from tests.model.test_layer_losses import AddsMean, AddsMeanInTime

PROMISES = {
    "gradients.test_reference": [
        "test_logits_gradients_losses_and_moving_statistics_of_training_agree"
    ],
    "model.test_keras_workflows": [
        "test_a_frozen_batch_normalization_keeps_and_uses_its_statistics",
        "test_a_neuron_used_twice_keeps_a_membrane_for_each_use",
        "test_a_saved_model_predicts_the_same_and_continues_training",
        "test_a_shared_layer_gets_the_sum_of_its_gradients",
        "test_a_spiking_model_is_a_layer_of_a_bigger_model",
        "test_a_static_and_a_temporal_input_in_one_model",
        "test_fit_adds_the_regularisation_to_the_loss",
        "test_fit_moves_all_weights_of_a_network",
        "test_frozen_layers_do_not_move",
        "test_gradients_are_accumulated_over_steps",
        "test_moving_statistics_are_updated_once_per_batch_and_only_in_training",
        "test_several_outputs_with_several_losses",
        "test_timesteps_can_be_changed_after_training",
    ],
    "model.test_layer_losses": [
        "test_a_loss_that_a_layer_adds_to_steps_counts_once_with_its_gradient",
        "test_activity_regularisation_weights_windows_by_their_size",
    ],
    "gradients.test_masked_normalization": [
        "test_moving_averages_follow_the_rows_that_are_not_masked",
        "test_the_rate_gradient_is_that_of_bptt_where_all_steps_are_alike",
    ],
    "graph.test_masks": [
        "test_the_rate_gradient_with_masks_is_that_of_bptt_where_each_step_has_its_rate"
    ],
    "gradients.test_online": ["test_gradients_are_those_of_a_loop_over_steps"],
    "graph.test_output_masks": [
        "test_padding_counts_in_no_loss",
        "test_what_follows_a_time_mean_sees_the_mask",
    ],
    "model.test_precision": [
        "test_channels_first_is_channels_last",
        "test_half_precision_trains_like_single",
        "test_spikes_are_exact_and_membranes_are_wide_in_half_precision",
    ],
    "layers.test_integer": ["test_training_agrees_with_the_authors_programs"],
    "layers.test_random_layers": [
        "test_all_steps_of_a_sample_see_the_same_numbers_and_each_batch_others"
    ],
    "model.test_training_variants": [
        "method",
        "test_a_custom_train_step_trains_the_model",
        "test_a_custom_train_step_works_with_the_model",
        "test_low_rank_adaptation_trains_only_its_factors",
    ],
}
"""Names of tests and their fixtures, by folder and module."""

IN_SINGLE_PRECISION = {
    "test_activity_regularisation_weights_windows_by_their_size",
    "test_a_loss_that_a_layer_adds_to_steps_counts_once_with_its_gradient",
    "test_fit_adds_the_regularisation_to_the_loss",
    "test_moving_averages_follow_the_rows_that_are_not_masked",
    "test_moving_statistics_are_updated_once_per_batch_and_only_in_training",
    "test_the_rate_gradient_is_that_of_bptt_where_all_steps_are_alike",
    "test_the_rate_gradient_with_masks_is_that_of_bptt_where_each_step_has_its_rate",
    # They choose a precision themselves.
    *PROMISES["model.test_precision"],
    *PROMISES["gradients.test_reference"],
    *PROMISES["layers.test_integer"],
}
"""Names of the tests whose bounds are too tight for half precision."""

# Recording does not depend on the method: `test_call_graphs.py` compares recorded steps
# of each with eager ones.
CHOSEN = {
    "test_a_neuron_used_twice_keeps_a_membrane_for_each_use": ("gradient", ["bptt"]),
    "test_a_saved_model_predicts_the_same_and_continues_training": (
        "gradient",
        ["rate"],
    ),
    "test_a_shared_layer_gets_the_sum_of_its_gradients": ("gradient", ["bptt"]),
    "test_a_spiking_model_is_a_layer_of_a_bigger_model": ("gradient", ["rate"]),
    "test_a_static_and_a_temporal_input_in_one_model": ("gradient", ["rate"]),
    "test_fit_adds_the_regularisation_to_the_loss": ("gradient", ["bptt"]),
    "test_frozen_layers_do_not_move": ("gradient", ["rate"]),
    "test_timesteps_can_be_changed_after_training": ("gradient", ["bptt"]),
    "test_a_loss_that_a_layer_adds_to_steps_counts_once_with_its_gradient": (
        "make, step_mode",
        [
            (AddsMean, "multi"),
            (AddsMeanInTime, "single"),
            (functools.partial(AddsMean, draws=True), "single"),
        ],
    ),
}
"""The parameters of tests, and the values that are tried here: each at least once, but
not each with each."""

OF_EACH_METHOD = (
    "mlp_rate_s",
    "res_rate_m",
    "res_rate_m_temporal",
    "sew_rate_m",
    "res_bptt_s",
    "sltt_vgg",
    "ottt_vgg_ws",
)


@pytest.fixture(
    params=[
        pytest.param(name, marks=[] if name in OF_EACH_METHOD else pytest.mark.slow)
        for name in CASES
    ]
)
def case(request):
    return Case(request.param)


def _promise(module, name):
    """A test of another file, or a fixture, with the chosen values of its
    parameters."""
    function = getattr(importlib.import_module(f"tests.{module}"), name)
    if name not in CHOSEN:
        return function

    @functools.wraps(function)
    def promise(**arguments):
        function(**arguments)

    parameters, values = CHOSEN[name]
    others = [
        mark
        for mark in function.pytestmark
        if mark.name != "parametrize" or mark.args[0] not in parameters
    ]
    promise.pytestmark = [*others, pytest.mark.parametrize(parameters, values).mark]
    return promise


for module, names in PROMISES.items():
    globals().update({name: _promise(module, name) for name in names})


pytestmark = pytest.mark.filterwarnings("ignore:.*does not support masking")
HAS_COMPILER = shutil.which("g++") or shutil.which("clang++")
COMPILED = pytest.param(
    True,
    marks=[
        pytest.mark.slow,
        pytest.mark.skipif(
            not HAS_COMPILER, reason="PyTorch's compiler needs a C++ compiler"
        ),
    ],
    id="compiled",
)


def pytest_generate_tests(metafunc):
    # What holds in half precision is not tried in single precision as well.
    half = ["mixed_bfloat16", _slow("mixed_float16"), _slow("float32")]
    policies = (
        ["float32"] if metafunc.function.__name__ in IN_SINGLE_PRECISION else half
    )
    metafunc.parametrize("_precision", policies, indirect=True)


def _slow(policy):
    return pytest.param(policy, marks=pytest.mark.slow)


@pytest.fixture(autouse=True)
def _precision(request):
    keras.config.set_dtype_policy(request.param)


@pytest.fixture(
    scope="module", autouse=True, params=[pytest.param(False, id="replayed"), COMPILED]
)
def _recorded_at_once(request):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(call_graphs, "EAGER_CALLS", {"auto": 0, True: 0})
        patch.setattr(call_graphs, "_Recorded", _ReplayedAtOnce)
        patch.setattr(_ReplayedAtOnce, "compiled", request.param)
        yield


class _ReplayedAtOnce(call_graphs._Recorded):
    """The results of the call that is recorded are those of the graph, too."""

    compiled = False
    replays = 0

    def __init__(self, function, model, tensors, variables):
        self.variables = variables
        super().__init__(function, model, tensors, variables)

    def record(self, tensors, settings, compiled, places):
        super().record(tensors, settings, self.compiled, places)
        self.tensors = tensors

    def first_results(self):
        return (
            super().first_results() if self.graph is None else self.replay(self.tensors)
        )

    def replay(self, tensors):
        _ReplayedAtOnce.replays += 1
        before = [
            (variable, variable.numpy())
            for variable in self.variables
            if variable.trainable
        ]
        outputs = super().replay(tensors)
        for variable, value in before:
            np.testing.assert_array_equal(
                variable.numpy(), value, err_msg=variable.path
            )
        assert not self.compiled or _is_compiled(self.graph.forward)
        return outputs


def _is_compiled(forward):
    """Whether a graph is compiled, as it must be if it draws no random numbers."""
    if isinstance(forward, Compiled):
        return forward.is_compiled
    return any(map(draws, forward.__self__.graph.nodes))


@pytest.fixture(autouse=True)
def _recorded_at_all():
    """Fails if no call was replayed, so that no fallback passes for it."""
    before = _ReplayedAtOnce.replays
    yield
    assert _ReplayedAtOnce.replays > before
