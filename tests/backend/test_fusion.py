"""Neuron loops compiled by PyTorch: the same results as in eager mode, also if compilation is not possible."""

import contextlib
import inspect
import itertools
import shutil
import threading
import types
import warnings
from unittest import mock

import keras
import numpy as np
import pytest
from helpers import BACKEND, assert_close, compiled, data, dyadic, loss_and_gradients, saved_and_loaded, spiking, to_numpy
from keras import layers, ops

import keras_ratesnn as rsnn

torch_only = pytest.mark.skipif(BACKEND != "torch", reason="other backends fuse by themselves")
if BACKEND == "torch":
    from held_settings import HELD

    from keras_ratesnn._core.backend.torch import fusion as torch_fusion
    from keras_ratesnn._core.backend.torch.recorder import compiler as torch_compiler
else:
    HELD = {}

MODES = [("rate", "multi"), ("rate", "single"), ("bptt", "multi"), ("bptt", "single")]


class Saturating(rsnn.layers.NeuronCell):
    """A custom cell with a state of two parts."""

    def initial_state(self, inputs):
        return {"membrane": super().initial_state(inputs), "steps": super().initial_state(inputs)}

    def step(self, inputs, state):
        membrane = 0.5 * ops.tanh(state["membrane"]) + ops.cast(inputs, state["membrane"].dtype)
        spikes = self.fire(membrane)
        after = membrane - self.threshold * ops.stop_gradient(spikes)
        return membrane, spikes, {"membrane": after, "steps": state["steps"] + 1.0}


NEURONS = {
    "soft": lambda: rsnn.layers.LIF(0.6, threshold=0.7),
    "soft, not detached": lambda: rsnn.layers.LIF(0.6, detach_reset=False, surrogate="atan"),
    "hard, of each neuron": lambda: rsnn.layers.LIF(
        keras.initializers.RandomUniform(0.2, 0.8, seed=1),
        reset="hard",
        v_reset=keras.initializers.Constant(-0.2),
        axis=None,
        initial_membrane=0.5,
    ),
    "integrate and fire": rsnn.layers.IF,
    "delayed": lambda: rsnn.layers.LIF(0.6, 0.5, decay_input=True, reset_delay=True),
    "all that is learned": lambda: rsnn.layers.ParametricLIF(reset="hard", per_channel=True, learn_threshold=True),
    "of one's own": lambda: rsnn.layers.Neuron(Saturating()),
    "integer": lambda: rsnn.layers.ILIF(3, normalize=True, detach_reset=False),
}


def network(neuron=NEURONS["soft"], width=4):
    inputs = keras.Input((6, 6, 2))
    x = neuron()(layers.BatchNormalization()(layers.Conv2D(width, 3)(inputs)))
    x = neuron()(layers.BatchNormalization()(layers.Conv2D(width, 3, strides=2)(x)))
    return keras.Model(inputs, layers.Dense(3)(neuron()(layers.Dense(5)(layers.Flatten()(x)))))


@contextlib.contextmanager
def fusion(compiler, least_elements=0, by_dynamo=False):
    """Loops are compiled by a backend of `torch.compile`.

    "eager" compiles nothing: tensors with gaps, too, get the graph as it is, unless `torch.compile` is to read it first
    (`by_dynamo`), which takes seconds for each.
    """
    with pytest.MonkeyPatch.context() as patch:
        if compiler == "eager" and not by_dynamo:
            patch.setattr(torch_compiler, "for_all_shapes", lambda graph, tensors: graph.forward)
        patch.setattr(torch_compiler, "COMPILER", compiler)
        patch.setattr(torch_fusion, "LEAST_ELEMENTS", least_elements)
        # For loops without a gradient that have no program in C++: of half precision, or of cells of one's own.
        patch.setattr(torch_fusion, "_can_loop", lambda tensors: False)
        patch.setattr(torch_fusion, "_kernels", [])
        patch.setattr(torch_fusion, "_numbers", {})
        patch.setattr(torch_fusion, "_kinds", set())
        patch.setattr(torch_compiler, "_warned_of", set())
        yield torch_fusion


def programs_of(model):
    """The compiled functions of each neuron layer with its present settings, a list of dictionaries."""
    cells = [layer.cell for layer in model.network.layers if isinstance(layer, rsnn.layers.Neuron)]
    kept = [model._graphs.loops.get(id(cell)) for cell in cells]
    return [latest.kept[-1]._programs if latest else {} for latest in kept]


def assert_same(results, expected, rtol=1e-4, atol=1e-6):
    (loss, gradients), (expected_loss, expected_gradients) = results, expected
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert_close(gradients, expected_gradients, rtol=rtol, atol=atol)


def cases():
    """The learned neurons in all modes, the others in one of them."""
    for mode in MODES:
        yield "all that is learned", *mode, 3
    for mode in (("rate", "multi"), ("bptt", "multi")):
        # Longer than a pass.
        yield "all that is learned", *mode, 18
    others = [name for name in NEURONS if name != "all that is learned"]
    for index, name in enumerate(others):
        # The rate pass of a cell without a written derivative is not compiled.
        yield name, *(("bptt", "single") if name == "of one's own" else MODES[index % 4]), 3


@torch_only
@pytest.mark.parametrize(("windows", "is_compiled"), [(8, True), (9, False)])
def test_loops_with_many_windows_are_not_compiled(windows, is_compiled):
    model = spiking(network(), 9, rsnn.gradients.Rate(windows=windows))
    with fusion("eager") as state:
        loss_and_gradients(model, *data(3, (6, 6, 2)))
        assert bool(state._kernels) == is_compiled


@torch_only
def test_all_steps_of_a_layer_share_a_program_in_single_step_mode():
    model = spiking(network(), 4, "bptt", step_mode="single")
    with fusion("eager"):
        loss_and_gradients(model, *data(3, (6, 6, 2)))
        assert [len(programs) for programs in programs_of(model)] == [1, 1, 1]


class Cutting(rsnn.gradients.GradientMethod):
    """SLTT that stores its steps, with a function between steps that is new at each call."""

    def call(self, run):
        network = rsnn.gradients.Network(run, between=lambda carried: rsnn.gradients.stopped(carried))
        return rsnn.gradients.in_time(network)


@torch_only
def test_loops_with_a_function_of_ones_own_between_steps_are_not_compiled():
    x, y = data(3, (6, 6, 2))
    shared = network()
    expected = loss_and_gradients(spiking(shared, 3, rsnn.gradients.SLTT(recompute=False)), x, y)
    model = spiking(shared, 3, Cutting())
    with fusion("eager"):
        for _ in range(2):
            assert_same(loss_and_gradients(model, x, y), expected)
        assert not any(programs_of(model))


@torch_only
@pytest.mark.parametrize(("name", "gradient", "step_mode", "timesteps"), list(cases()))
def test_traced_loops_give_the_same_results_as_eager_ones(name, gradient, step_mode, timesteps):
    model = spiking(network(NEURONS[name]), timesteps, gradient, step_mode=step_mode)
    x, y = data(5, (6, 6, 2))
    expected = loss_and_gradients(model, x, y)
    with fusion("eager") as state:
        results = [loss_and_gradients(model, x, y) for _ in range(2)]
        outputs = to_numpy(model(x))
        # However many steps: a first one, one of the others, and inference, for images and rows, and derivatives.
        assert 2 <= len(state._kernels) <= 15
        assert all(kernel.is_compiled for kernel in state._kernels)
    for result in results:
        assert_same(result, expected)
    np.testing.assert_allclose(outputs, to_numpy(model(x)), rtol=1e-5, atol=1e-6)


@torch_only
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="PyTorch's compiler needs a C++ compiler")
@pytest.mark.parametrize(("gradient", "policy"), [("rate", "mixed_bfloat16"), ("bptt", "float32"), ("bptt", "mixed_bfloat16")])
def test_compiled_loops_give_the_same_results_as_eager_ones(gradient, policy):
    keras.config.set_dtype_policy(policy)
    model = spiking(network(), 4, gradient)
    x, y = data(5, (6, 6, 2))
    expected = loss_and_gradients(model, x, y)
    with fusion("inductor") as state:
        result = loss_and_gradients(model, x, y)
        # Sixteen images are another shape for the same kernels.
        bigger = loss_and_gradients(model, *data(16, (6, 6, 2)))
        # A kernel for the first layer, whose input is static, one for images and one for rows, and as many for the derivatives.
        assert len(state._kernels) == (3 if gradient == "rate" else 6)
        assert all(kernel.is_compiled for kernel in state._kernels)
    # Sums in another order; a membrane within that of the threshold would change much more.
    tolerance = 1e-4 if policy == "float32" else 2e-2
    assert_same(result, expected, rtol=tolerance, atol=tolerance)
    assert np.isfinite(bigger[0])


OF_LIBRARY = {
    "IF": lambda: rsnn.layers.IF(0.5, initial_membrane=0.25),
    "LIF": lambda: rsnn.layers.LIF(0.5, 0.5, reset="hard", v_reset=-0.25),
    "LIF, delayed": lambda: rsnn.layers.LIF(0.5, 0.5, decay_input=True, reset_delay=True),
    "ParametricLIF": lambda: rsnn.layers.ParametricLIF(0.5, 0.5, per_channel=True, learn_threshold=True),
    "CuBaLIF": lambda: rsnn.layers.CuBaLIF(0.5, 0.5, synaptic_decay=0.5),
    "ALIF": lambda: rsnn.layers.ALIF(threshold=0.5, learn_threshold=True),
    "ILIF": lambda: rsnn.layers.ILIF(3, 0.5, 0.5, normalize=True, detach_reset=False),
}
"""Neurons whose loops are compiled. Those of parallel and recurrent neurons are not."""

POLICIES = ["float32", "mixed_float16", "mixed_bfloat16", "float16", "bfloat16", "float64"]


def with_and_without_compiled_loops(names, policy, compiler, timesteps, gradient, step_mode="multi"):
    """What a training step gives, and inference after it, without and with compiled loops, and whether all are compiled."""
    keras.config.set_dtype_policy(policy)
    inputs = keras.Input((6,), dtype=keras.config.dtype_policy().compute_dtype)
    currents = layers.Dense(8)
    x = layers.Concatenate()([OF_LIBRARY[name]()(currents(inputs)) for name in names])
    model = spiking(keras.Model(inputs, layers.Dense(3)(x)), timesteps, gradient, step_mode=step_mode)
    # Sums of multiples of 1/16 are exact in every policy, so that no rounding moves a membrane over its threshold.
    currents.kernel.assign(dyadic((6, 8)))
    x, y = dyadic((5, timesteps, 6), seed=1).astype("float32"), np.array([0, 1, 2, 0, 1])

    def results():
        return (*loss_and_gradients(model, x, y), to_numpy(ops.cast(model(x), "float32")))

    expected = results()
    with fusion(compiler) as state:
        found = results()
        assert all(kernel.is_compiled for kernel in state._kernels)
        return expected, found, len(state._kernels)


MODES_AND_STEPS = [
    ("bptt", "multi", 3),
    ("rate", "multi", 17),
    ("bptt", "multi", 31),
    ("rate", "single", 3),
    ("rate", "multi", 16),
]
# A few neurons, each in another policy and mode.
FEW = [
    (["ALIF"], "mixed_float16", MODES_AND_STEPS[0]),
    (["CuBaLIF"], "bfloat16", MODES_AND_STEPS[2]),
    (["ParametricLIF"], "float16", MODES_AND_STEPS[1]),
    (["ILIF"], "float64", MODES_AND_STEPS[3]),
]


@torch_only
@pytest.mark.parametrize(
    ("names", "policy", "mode"),
    [*FEW, *(pytest.param(OF_LIBRARY, *case, marks=pytest.mark.slow) for case in itertools.product(POLICIES, MODES_AND_STEPS))],
    ids=str,
)
def test_traced_loops_of_every_neuron_are_the_same_to_the_bit_in_every_policy(names, policy, mode):
    """Also for more steps than are traced as one function."""
    gradient, step_mode, timesteps = mode
    expected, found, kernels = with_and_without_compiled_loops(names, policy, "eager", timesteps, gradient, step_mode)
    assert kernels >= min(len(names), 5)
    assert found[0] == expected[0]
    assert_close(found[1], expected[1], rtol=0)
    np.testing.assert_array_equal(found[2], expected[2])


@torch_only
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="PyTorch's compiler needs a C++ compiler")
@pytest.mark.parametrize(
    "policy", ["float16", *(pytest.param(of, marks=pytest.mark.slow) for of in POLICIES if of != "float16")]
)
@pytest.mark.parametrize(
    "name", ["CuBaLIF", *(pytest.param(of, marks=pytest.mark.slow) for of in OF_LIBRARY if of != "CuBaLIF")]
)
def test_compiled_loops_of_every_neuron_emit_the_same_spikes_in_every_policy(name, policy):
    """Between the casts of a cell the compiler computes in float32 or wider, so that gradients are rounded otherwise."""
    expected, found, kernels = with_and_without_compiled_loops([name], policy, "inductor", 2, "bptt")
    assert kernels >= 2
    np.testing.assert_array_equal(found[2], expected[2])
    roundoff = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24, "float64": 2.0**-53}
    tolerance = 16 * roundoff[keras.config.dtype_policy().compute_dtype]
    assert_same(found[:2], expected[:2], rtol=tolerance, atol=tolerance)


@torch_only
def test_loops_of_more_layouts_than_are_compiled_one_by_one_are_right(monkeypatch):
    """Images with other orders of their axes in memory, with axes of one element, which have no place in it, and with gaps."""
    import torch

    inputs = keras.Input((None, None, None))
    model = spiking(keras.Model(inputs, rsnn.layers.LIF(0.5, 0.5, reset_delay=True)(inputs)), 2, "bptt", return_sequences=True)
    monkeypatch.setattr(torch_compiler, "MOST_LAYOUTS", 2)
    x = torch.from_numpy(dyadic((2, 3, 4, 5)).astype("float32"))
    frames = [x, x.permute(0, 1, 3, 2), x.permute(3, 2, 1, 0), x[:, :1], x[..., :1], x[:1], x[:, ::2], x[:, :, ::3]]
    expected = [to_numpy(model(x)) for x in frames]
    with fusion("eager", by_dynamo=True) as state:
        for x, wanted in zip(frames, expected, strict=True):
            np.testing.assert_array_equal(to_numpy(model(x)), wanted)
        (kernel,) = state._kernels
        assert len(kernel._compiled) == 2
        assert kernel._others.is_compiled


@torch_only
def test_models_that_share_layers_share_what_they_learn_though_one_is_recorded():
    """The recorded calls of one, and the compiled loops of the other, follow the weights that either trains."""
    from recorded_calls import call_graphs, graphs_of, recording

    x, y = data(5)
    histories = []
    for recorded in (False, True):
        keras.utils.clear_session(free_memory=False)
        keras.utils.set_random_seed(0)
        inputs = keras.Input((6,))
        shared = keras.Model(inputs, layers.Dense(3)(NEURONS["all that is learned"]()(layers.Dense(8)(inputs))))
        first = compiled(spiking(shared, 2, "bptt"), jit_compile="auto" if recorded else False)
        other = compiled(spiking(shared, 3, "rate"), jit_compile=recorded)
        with fusion("eager") if recorded else contextlib.nullcontext() as state, recording():
            call_graphs.EAGER_CALLS[True] = 99
            for _ in range(3):
                histories.append([float(first.train_on_batch(x, y)), float(other.train_on_batch(x, y))])
                histories[-1] += [to_numpy(model(x)) for model in (first, other)]
            assert not recorded or (state._kernels and graphs_of(first) and not graphs_of(other))
    for found, expected in zip(histories[3:], histories[:3], strict=True):
        assert_close(found, expected, rtol=1e-4, atol=1e-5)


@torch_only
def test_layers_with_the_same_configuration_share_a_kernel():
    inputs = x = keras.Input((6,))
    for width in (8, 8, 16, 32):
        x = rsnn.layers.LIF()(layers.Dense(width)(x))
    model = spiking(keras.Model(inputs, x), 4)
    with fusion("eager") as state:
        loss_and_gradients(model, *data(5, (6,), classes=32))
        assert len(state._kernels) == 1 + 1  # The first layer's input is the same at every step.


@torch_only
@pytest.mark.parametrize("gradient", ["rate", "bptt"])
def test_without_a_compiler_training_continues_after_one_warning(gradient):
    def broken(graph, inputs):
        raise RuntimeError("no compiler here\nand much more to say")

    model = spiking(network(), 4, gradient)
    x, y = data(5, (6, 6, 2))
    expected = loss_and_gradients(model, x, y)
    with fusion(broken), pytest.warns(UserWarning, match="jit_compile=False") as raised:
        results = [loss_and_gradients(model, x, y) for _ in range(2)]
    messages = [str(warning.message) for warning in raised]
    assert len([message for message in messages if "jit_compile=False" in message]) == 1, messages
    assert "no compiler here" in messages[0]
    for result in results:
        assert_same(result, expected)


@torch_only
def test_errors_in_a_custom_cell_are_raised():
    class Broken(rsnn.layers.LIFCell):
        def step(self, inputs, state):
            raise ArithmeticError("a mistake")

    with fusion("eager"), warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ArithmeticError, match="a mistake"):
            spiking(network(lambda: rsnn.layers.Neuron(Broken())), 4)(data(5, (6, 6, 2))[0], training=True)


@torch_only
@pytest.mark.parametrize("options", [{"jit_compile": False}, {"run_eagerly": True}])
def test_compilation_can_be_turned_off(options):
    model = compiled(spiking(network(), 4), **options)
    with fusion("eager") as state:
        model.fit(*data(5, (6, 6, 2)), verbose=0)
        assert not state._kernels
        compiled(model).fit(*data(5, (6, 6, 2)), verbose=0)
        assert state._kernels


@torch_only
def test_small_layers_are_not_compiled():
    model = spiking(network(), 4)
    with fusion("eager", least_elements=5 * 4 * 4 * 4 * 4) as state:
        loss_and_gradients(model, *data(5, (6, 6, 2)))
        assert not state._kernels  # The first layer has an image a step less than that.
        loss_and_gradients(model, *data(20, (6, 6, 2)))
        assert len(state._kernels) == 1


@torch_only
def test_an_existing_kernel_is_used_for_small_layers():
    inputs = keras.Input((6,))
    x = rsnn.layers.LIF()(layers.Dense(8)(inputs))
    for width in (64, 8):
        x = rsnn.layers.LIF()(layers.Dense(width)(x))
    model = spiking(keras.Model(inputs, x), 4)
    with fusion("eager", least_elements=5 * 4 * 64) as state:
        loss_and_gradients(model, *data(5, (6,), classes=8))
        assert len(state._kernels) == 1
        assert list(map(len, programs_of(model))) == [0, 1, 1]


@torch_only
@pytest.mark.parametrize(("gradient", "step_mode"), [("rate", "single"), ("bptt", "multi")])
def test_changed_weights_do_not_cause_retracing(gradient, step_mode):
    model = compiled(spiking(network(NEURONS["all that is learned"]), 4, gradient, step_mode=step_mode))
    x, y = data(5, (6, 6, 2))
    with fusion("eager"):

        def programs():
            model.train_on_batch(x, y)
            return [list(programs) for programs in programs_of(model)]

        first = programs()
        assert all(first)
        assert programs() == first


@torch_only
def test_changed_settings_of_a_custom_cell_take_effect():
    class Scaling(rsnn.layers.LIFCell):
        scale = 1.0

        def step(self, inputs, state):
            return super().step(self.scale * inputs, state)

    x, _ = data(5, (6,))
    neuron = rsnn.layers.Neuron(Scaling())
    inputs = keras.Input((6,))
    model = spiking(keras.Model(inputs, neuron(inputs)), 4)
    with fusion("eager"):
        before = to_numpy(model(x))
        neuron.cell.scale = 3.0
        after = to_numpy(model(x))
    assert after.sum() > before.sum()
    np.testing.assert_allclose(after, to_numpy(model(x)))


class Holding(rsnn.layers.NeuronCell):
    """Its gain depends on an object, through a function."""

    def __init__(self, held=None, read=lambda held: 1.0):
        super().__init__()
        self._held, self.read = held, read

    def step(self, inputs, state):
        membrane = 0.5 * state + ops.cast(inputs * self.read(self._held), state.dtype)
        spikes = self.fire(membrane)
        return membrane, spikes, membrane - ops.stop_gradient(spikes)


def outputs_after_changes(cell, *changes, calls=1, training=False):
    """The outputs of a model of one neuron layer before and after each change of its cell."""
    inputs = keras.Input((6,))
    model = spiking(keras.Model(inputs, rsnn.layers.Neuron(cell)(inputs)), 4, "bptt")
    x = ops.convert_to_tensor(np.linspace(0.1, 0.9, 30, dtype="float32").reshape(5, 6))
    results = []
    for change in (lambda _: None, *changes):
        change(cell)
        results += [to_numpy(model(x, training=training)) for _ in range(calls)]
    return results


@torch_only
@pytest.mark.parametrize("kind", HELD)
def test_no_change_of_what_a_cell_holds_goes_unnoticed(kind):
    """It is either compiled again, or not compiled."""
    make, read, change = HELD[kind]
    expected = outputs_after_changes(Holding(make(), read), lambda cell: change(cell._held))
    assert (expected[0] != expected[1]).any()
    with fusion("eager"):
        np.testing.assert_array_equal(outputs_after_changes(Holding(make(), read), lambda cell: change(cell._held)), expected)


@torch_only
def test_a_change_of_the_code_of_a_cell_or_of_a_default_of_keras_takes_effect():
    class Own(Holding):
        gain = 1.0

    def changed(cell):
        return outputs_after_changes(
            cell,
            lambda cell: setattr(Own, "gain", 3.0),
            lambda cell: setattr(Own, "step", lambda self, inputs, state: Holding.step(self, 0.5 * inputs, state)),
            lambda cell: setattr(cell, "step", lambda inputs, state: Holding.step(cell, 3.0 * inputs, state)),
            lambda cell: keras.config.set_epsilon(0.5),
        )

    results = []
    for least_elements in (2**60, 0):
        with fusion("eager", least_elements) as state:
            Own.gain, Own.step = 1.0, Holding.step
            results.append(changed(Own(None, lambda held: Own.gain * (1.0 - keras.config.epsilon()))))
            assert bool(state._kernels) == (least_elements == 0)
        keras.config.set_epsilon(1e-7)
    np.testing.assert_array_equal(*results)
    assert len({result.sum() for result in results[0]}) >= 4


@torch_only
def test_a_cell_is_compiled_again_when_it_has_changed_and_not_at_each_call_if_it_always_changes():
    class Counting(Holding):
        calls = 0

        def step(self, inputs, state):
            self.calls += 1
            return super().step(inputs, state)

    with fusion("eager") as state, mock.patch.object(state, "_compile", wraps=state._compile) as compiled_:
        cell = Holding(1.0, lambda held: held)
        outputs_after_changes(cell, lambda cell: setattr(cell, "_held", 2.0), calls=3)
        assert compiled_.call_count == 2
        compiled_.reset_mock()
        outputs_after_changes(Counting(), calls=30)
        assert compiled_.call_count <= 5


class Effects(Holding):
    """Its steps do more than to compute from tensors."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        # Keras does not find it there, so it is no weight of the cell.
        self.elsewhere = types.SimpleNamespace(variable=keras.Variable(1.0))

    def build(self, input_shape):
        self.total = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def step(self, inputs, state):
        if self.kind == "assigns":
            self.total.assign_add(1.0)
        elif self.kind == "adds a loss":
            self.add_loss(ops.mean(inputs))
        else:
            inputs = inputs * self.elsewhere.variable
        return super().step(inputs, state)


@torch_only
@pytest.mark.parametrize("kind", ["assigns", "adds a loss", "reads another variable"])
def test_a_cell_with_effects_that_a_compiled_loop_would_not_have_is_not_compiled(kind):
    results = []
    for least_elements in (2**60, 0):
        cell = Effects(kind)
        with fusion("eager", least_elements):
            outputs = outputs_after_changes(cell, lambda cell: cell.elsewhere.variable.assign(3.0), training=True)
            results.append((*outputs, to_numpy(cell.total.value), len(cell.losses)))
    assert_close(*results, rtol=0)


class Renaming(rsnn.layers.NeuronCell):
    """Its state has other names, in another order, after the first step."""

    def initial_state(self, inputs):
        return ops.zeros_like(inputs), ops.ones_like(inputs)

    def step(self, inputs, state):
        membrane, gain = state if isinstance(state, tuple) else (state["membrane"], state["gain"])
        membrane = 0.5 * membrane + inputs * gain
        spikes = self.fire(membrane)
        return membrane, spikes, {"gain": 0.9 * gain, "membrane": membrane - ops.stop_gradient(spikes)}


@pytest.mark.parametrize(("step_mode", "timesteps"), [("single", 3), ("multi", 18)])
@pytest.mark.parametrize("jit_compile", [False, "auto"])
def test_a_state_of_another_structure_is_an_error_that_says_which(step_mode, timesteps, jit_compile, monkeypatch):
    if BACKEND == "tensorflow":
        monkeypatch.setattr("keras_ratesnn._core.backend.tensorflow.fusion.LEAST_ELEMENTS", 0)
    x, y = data(5, (6,), classes=4)
    inputs = keras.Input((6,))
    outputs = layers.Dense(4)(rsnn.layers.Neuron(Renaming())(layers.Dense(8)(inputs)))
    model = compiled(spiking(keras.Model(inputs, outputs), timesteps, "bptt", step_mode=step_mode), jit_compile=jit_compile)
    error = r"Renaming must keep its structure.*'gain': \(5, 8\).*after State\(cell=\(\(5, 8\), \(5, 8\)\)"
    with fusion("eager") if BACKEND == "torch" else contextlib.nullcontext(), pytest.raises(TypeError, match=error):
        model.train_on_batch(x, y)


@torch_only
def test_attributes_that_change_before_the_backward_pass_are_an_error():
    cell = Holding(1.0, lambda held: held)
    inputs = keras.Input((6,))
    model = spiking(keras.Model(inputs, rsnn.layers.Neuron(cell)(layers.Dense(6)(inputs))), 4, "bptt")
    with fusion("eager"):
        loss = ops.sum(model(ops.ones((2, 6)), training=True))
        cell._held = 3.0
        with pytest.raises(RuntimeError, match="changed between a forward pass and its backward pass"):
            loss.backward()
        cell._held = 1.0
        ops.sum(model(ops.ones((2, 6)), training=True)).backward()


@torch_only
def test_a_cell_with_a_random_generator_is_not_compiled():
    class Noisy(rsnn.layers.LIFCell):
        def __init__(self):
            super().__init__()
            self.generator = keras.random.SeedGenerator(3)

        def step(self, inputs, state):
            return super().step(inputs + keras.random.normal(ops.shape(inputs), seed=self.generator), state)

    inputs = keras.Input((6,))
    model = spiking(keras.Model(inputs, rsnn.layers.Neuron(Noisy())(inputs)), 4)
    with fusion("eager") as state:
        outputs = [to_numpy(model(data(5, (6,))[0], training=True)) for _ in range(2)]
        assert not state._kernels
    assert (outputs[0] != outputs[1]).any()


@torch_only
def test_a_cell_that_draws_from_the_generator_of_pytorch_has_the_gradient_of_what_it_drew():
    import torch

    class Noisy(rsnn.layers.LIFCell):
        def step(self, inputs, state):
            return super().step(inputs * torch.rand_like(inputs), state)

    (x, y), results = data(5, (6,)), []
    for least_elements in (2**60, 0):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((6,))
        outputs = layers.Dense(3, name="last")(rsnn.layers.Neuron(Noisy())(layers.Dense(4, name="first")(inputs)))
        model = spiking(keras.Model(inputs, outputs), 3, "bptt")
        with fusion("eager", least_elements):
            torch.manual_seed(1)
            results.append(loss_and_gradients(model, x, y))
    assert_same(*results)


@torch_only
def test_bptt_stores_only_the_input_of_a_neuron_layer():
    import torch

    inputs = keras.Input((50,))
    model = spiking(keras.Model(inputs, rsnn.layers.LIF()(layers.Dense(70)(inputs))), 4, "bptt")
    x = ops.convert_to_tensor(np.random.default_rng(0).random((10, 4, 50)), "float32")

    def elements_kept():
        kept = {}
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.setdefault(t.data_ptr(), t.numel()) and t, lambda t: t):
            model(x, training=True)
        return sum(elements for elements in kept.values() if elements >= 10 * 70)

    with fusion("eager"):
        # What the dense layer was given, and what the neurons were.
        assert elements_kept() == 10 * 4 * 50 + 10 * 4 * 70
    assert elements_kept() >= 10 * 4 * 50 + 10 * 4 * 70


@pytest.mark.parametrize("asked", ["auto", False, None])
def test_jit_compile_is_saved_with_its_original_value(asked):
    model = compiled(spiking(), jit_compile=asked)
    loaded = saved_and_loaded(model)
    assert loaded.get_compile_config()["jit_compile"] == ("auto" if asked is None else asked)
    assert loaded.jit_compile == model.jit_compile
    loaded.fit(*data(), verbose=0)


@torch_only
def test_compiled_loops_follow_changes_of_trainable_weights():
    """The number of trainable weights stays the same, but compiled code for another weight must not be used."""
    shared = network(NEURONS["all that is learned"])
    cells = [layer.cell for layer in shared.layers if hasattr(layer, "cell")]
    x, y = data(5, (6, 6, 2))

    def gradients_of(name):
        for cell in cells:
            cell.log_threshold.trainable, cell.decay_logit.trainable = name == "log_threshold", name == "decay_logit"
        return loss_and_gradients(spiking(shared, 3), x, y)

    expected = gradients_of("decay_logit")
    with fusion("eager"):
        gradients_of("log_threshold")
        assert_same(gradients_of("decay_logit"), expected)


def doubling_by_layout(monkeypatch, on_gpu):
    """A graph `x -> 2 x` that is compiled by layout, and the list that grows by an element with each compilation."""
    import torch

    compilations = []

    def compiler(graph, tensors):
        compilations.append(tensors)
        return graph.forward

    graph = torch.fx.experimental.proxy_tensor.make_fx(lambda x: [x * 2])(torch.ones(2, 3))
    monkeypatch.setattr(torch_compiler, "COMPILER", compiler)
    monkeypatch.setattr(torch_compiler, "MOST_LAYOUTS", 2)
    return torch_compiler.CompiledByLayout(graph, "a time loop", on_gpu), compilations


@torch_only
def test_a_time_loop_is_compiled_once_for_each_layout_on_gpus_and_for_any_layout_after_too_many(monkeypatch):
    import torch

    run, compilations = doubling_by_layout(monkeypatch, on_gpu=True)
    for x in (torch.ones(2, 3), torch.ones(2, 3), torch.ones(3, 2).T, torch.ones(4, 3), torch.ones(5, 3), torch.ones(2, 3)):
        np.testing.assert_array_equal(run(x)[0], 2 * x)
    assert len(compilations) == 3, "two layouts, and one for the others"


@torch_only
def test_a_time_loop_is_compiled_once_for_each_order_of_axes_on_cpus_whatever_the_sizes(monkeypatch):
    import torch

    run, compilations = doubling_by_layout(monkeypatch, on_gpu=False)
    for x in (torch.ones(2, 3), torch.ones(4, 5, requires_grad=True), torch.ones(1, 3), torch.ones(1, 7), torch.ones(9, 9)):
        with torch.no_grad():
            np.testing.assert_array_equal(run(x)[0], 2 * x.detach())
    assert len(compilations) == 2, "of rows, and of one row"
    assert all(isinstance(size, torch.SymInt) for size in compilations[0][0].shape)
    for x in (torch.ones(3, 2).T, torch.ones(3, 4)[:, ::2], torch.ones(0, 3)):
        np.testing.assert_array_equal(run(x)[0], 2 * x)


@torch_only
def test_no_other_thread_records_or_compiles_while_one_compiles(monkeypatch):
    """SymPy makes some of its symbols when they are first asked for, and fails where two threads ask at once."""
    import torch

    could_record = []

    def noticing(made):
        def notice(*args, **kwargs):
            another = threading.Thread(target=lambda: could_record.append(torch_compiler.lock().acquire(blocking=False)))
            another.start()
            another.join()
            return made(*args, **kwargs)

        return notice

    run, _ = doubling_by_layout(monkeypatch, on_gpu=False)
    monkeypatch.setattr(torch_compiler, "COMPILER", noticing(torch_compiler.COMPILER))
    monkeypatch.setattr(torch_compiler, "ShapeEnv", noticing(torch_compiler.ShapeEnv))
    with torch.no_grad():
        for x in (torch.ones(2, 3), torch.ones(3, 4)[:, ::2]):
            np.testing.assert_array_equal(run(x)[0], 2 * x)
    assert could_record == [False] * 3, "sizes, an order of axes, any layout"


@torch_only
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="PyTorch's compiler needs a C++ compiler")
def test_a_time_loop_that_is_compiled_for_an_order_of_axes_is_right_for_all_sizes():
    import torch

    def function(x, weight):
        shifted = x * weight + x[:1]
        return [torch.stack([shifted, x], 1), (shifted * x).sum(0)]

    def images(batch, *size, channels):
        return torch.rand(batch, channels, *size).permute(0, 2, 3, 1)

    arguments = [
        (images(batch, *size, channels=channels), torch.rand(channels))
        for batch, size, channels in ((2, (4, 4), 3), (5, (2, 7), 4), (1, (3, 3), 2), (3, (5, 1), 1), (2, (4, 4), 1))
    ]
    run = torch_compiler.CompiledByLayout(torch.fx.experimental.proxy_tensor.make_fx(function)(*arguments[0]), "a loop", False)
    with torch.no_grad():
        for tensors in arguments:
            assert_close(run(*tensors), function(*tensors), rtol=1e-5)
    assert run.is_compiled


@torch_only
def test_pytorch_compiles_a_stack_of_steps_as_it_is_told_here():
    """On GPUs it would compute a stack of few tensors by one expression, which grows with the square of T."""
    from torch._inductor import ir, lowering

    original = lowering.pointwise_cat
    with mock.patch.object(ir.ConcatKernel, "create", return_value="written in place"), torch_compiler._computing_steps_once():
        assert lowering.pointwise_cat is not original
        assert lowering.pointwise_cat(["step", "step"], 0).data == "written in place"
    assert lowering.pointwise_cat is original
    assert "pointwise_cat(" in inspect.getsource(lowering.cat), "PyTorch's lowering of `cat` has changed"


@torch_only
def test_a_compiler_of_a_whole_graph_gets_the_operations_of_time_loops_on_gpus_where_nothing_is_stored():
    import torch

    on_gpu, on_cpu = ([types.SimpleNamespace(is_cuda=is_cuda, requires_grad=True)] for is_cuda in (True, False))
    with torch.no_grad():
        assert torch_fusion._fuse_with_others(on_gpu)
        assert not torch_fusion._fuse_with_others(on_cpu)
    assert not torch_fusion._fuse_with_others(on_gpu), "a loop with a gradient would store all of its steps"
