"""Neuron loops compiled by PyTorch: the same results as in eager mode, also if
compilation is not possible."""

import contextlib
import inspect
import itertools
import shutil
import threading
import types
from unittest import mock

import keras
import numpy as np
import pytest
from helpers import (
    BACKEND,
    assert_close,
    compiled,
    data,
    dyadic,
    loss_and_gradients,
    saved_and_loaded,
    spiking,
    to_numpy,
)
from keras import layers, ops

import keras_ratesnn as rsnn
from keras_ratesnn._core import backend

torch_only = pytest.mark.skipif(
    BACKEND != "torch", reason="other backends fuse by themselves"
)
needs_compiler = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")),
    reason="PyTorch's compiler needs a C++ compiler",
)
if BACKEND == "torch":
    from held_settings import HELD
    from recorded_calls import recording

    # For what differs on GPUs, which these tests have not.
    from keras_ratesnn._core.backend.torch import fusion as torch_fusion
    from keras_ratesnn._core.backend.torch.recorder.compiler import CompiledByLayout
else:
    HELD = {}


class Saturating(rsnn.layers.NeuronCell):
    """A custom cell with a state of two parts."""

    def initial_state(self, inputs):
        return {
            "membrane": super().initial_state(inputs),
            "steps": super().initial_state(inputs),
        }

    def step(self, inputs, state):
        membrane = 0.5 * ops.tanh(state["membrane"]) + ops.cast(
            inputs, state["membrane"].dtype
        )
        spikes = self.fire(membrane)
        after = membrane - self.threshold * ops.stop_gradient(spikes)
        return membrane, spikes, {"membrane": after, "steps": state["steps"] + 1.0}


NEURONS = {
    "soft": lambda: rsnn.layers.LIF(0.6, threshold=0.7),
    "hard, of each neuron": lambda: rsnn.layers.LIF(
        keras.initializers.RandomUniform(0.2, 0.8, seed=1),
        reset="hard",
        v_reset=keras.initializers.Constant(-0.2),
        axis=None,
        initial_membrane=0.5,
    ),
    "all that is learned": lambda: rsnn.layers.ParametricLIF(
        reset="hard", per_channel=True, learn_threshold=True
    ),
    "of one's own": lambda: rsnn.layers.Neuron(Saturating()),
}


def network(neuron=NEURONS["soft"], width=4):
    inputs = keras.Input((6, 6, 2))
    x = neuron()(layers.BatchNormalization()(layers.Conv2D(width, 3)(inputs)))
    x = neuron()(layers.BatchNormalization()(layers.Conv2D(width, 3, strides=2)(x)))
    return keras.Model(
        inputs, layers.Dense(3)(neuron()(layers.Dense(5)(layers.Flatten()(x))))
    )


def own(decay):
    """A network whose loops no other test has, so that nothing of them is compiled
    before."""
    return network(lambda: rsnn.layers.LIF(decay, threshold=0.7))


@contextlib.contextmanager
def fusion(compiler=None, least_elements=0):
    """Loops are compiled by a backend of `torch.compile`, as on a GPU, instead of
    written in C++.

    Yields the list of `recording`. What is compiled stays so: there is nothing of loops
    that were compiled in another context.
    """
    in_cpp = mock.patch.object(backend, "time_loop", return_value=None)
    with in_cpp, recording(99, compiler, least_elements=least_elements) as graphs:
        yield graphs


def assert_same(results, expected, rtol=1e-4, atol=1e-6):
    (loss, gradients), (expected_loss, expected_gradients) = results, expected
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert_close(gradients, expected_gradients, rtol=rtol, atol=atol)


@torch_only
@pytest.mark.parametrize(
    ("windows", "decay", "is_compiled"), [(8, 0.61, True), (9, 0.62, False)]
)
def test_loops_with_many_windows_are_not_compiled(windows, decay, is_compiled):
    model = spiking(own(decay), 9, rsnn.gradients.Rate(windows=windows))
    with fusion() as graphs:
        loss_and_gradients(model, *data(3, (6, 6, 2)))
    assert bool(graphs) == is_compiled


@torch_only
def test_all_steps_of_a_layer_share_a_program_in_single_step_mode():
    counts = []
    for decay, timesteps in ((0.63, 3), (0.64, 9)):
        with fusion() as graphs:
            loss_and_gradients(
                spiking(own(decay), timesteps, "bptt", step_mode="single"),
                *data(3, (6, 6, 2)),
            )
        counts.append(len(graphs))
    assert counts[0] == counts[1] > 0


class Cutting(rsnn.gradients.GradientMethod):
    """SLTT that stores its steps, with a function between steps that is new at each
    call."""

    def call(self, run):
        network = rsnn.gradients.Network(
            run, between=lambda carried: rsnn.gradients.stopped(carried)
        )
        return rsnn.gradients.in_time(network)


@torch_only
def test_loops_with_a_function_of_ones_own_between_steps_are_not_compiled():
    x, y = data(3, (6, 6, 2))
    shared = network()
    expected = loss_and_gradients(
        spiking(shared, 3, rsnn.gradients.SLTT(recompute=False)), x, y
    )
    model = spiking(shared, 3, Cutting())
    with fusion() as graphs:
        for _ in range(2):
            assert_same(loss_and_gradients(model, x, y), expected)
    assert not graphs


def counting(compiler, graphs):
    """A backend of `torch.compile` that adds each graph to a list."""
    import torch

    compile_graph = torch._dynamo.lookup_backend(compiler)
    return lambda graph, tensors: graphs.append(graph) or compile_graph(graph, tensors)


@torch_only
@needs_compiler
@pytest.mark.parametrize(
    ("gradient", "policy"),
    [
        ("bptt", "mixed_bfloat16"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (("rate", "mixed_bfloat16"), ("bptt", "float32"))
        ),
    ],
)
def test_compiled_loops_give_the_same_results_as_eager_ones(gradient, policy):
    keras.config.set_dtype_policy(policy)
    model = spiking(own(0.65), 4, gradient)
    x, y = data(5, (6, 6, 2))
    expected, graphs = loss_and_gradients(model, x, y), []
    with fusion(counting("inductor", graphs)):
        result = loss_and_gradients(model, x, y)
        # A kernel for the first layer, whose input is static, one for images and one
        # for rows, and as many for the derivatives.
        assert len(graphs) == (3 if gradient == "rate" else 6)
        # Sixteen images are another shape for the same kernels.
        bigger = loss_and_gradients(model, *data(16, (6, 6, 2)))
        assert len(graphs) == (3 if gradient == "rate" else 6)
    # Sums in another order; a membrane within that of the threshold would change much
    # more.
    tolerance = 1e-4 if policy == "float32" else 2e-2
    assert_same(result, expected, rtol=tolerance, atol=tolerance)
    assert np.isfinite(bigger[0])


OF_LIBRARY = {
    "IF": lambda: rsnn.layers.IF(0.5, initial_membrane=0.25),
    "LIF": lambda: rsnn.layers.LIF(0.5, 0.5, reset="hard", v_reset=-0.25),
    "LIF, delayed": lambda: rsnn.layers.LIF(
        0.5, 0.5, decay_input=True, reset_delay=True
    ),
    "ParametricLIF": lambda: rsnn.layers.ParametricLIF(
        0.5, 0.5, per_channel=True, learn_threshold=True
    ),
    "CuBaLIF": lambda: rsnn.layers.CuBaLIF(0.5, 0.5, synaptic_decay=0.5),
    "ALIF": lambda: rsnn.layers.ALIF(threshold=0.5, learn_threshold=True),
    "ILIF": lambda: rsnn.layers.ILIF(3, 0.5, 0.5, normalize=True, detach_reset=False),
    **NEURONS,
}
"""Neurons whose loops are compiled. Those of parallel and recurrent neurons are not."""

POLICIES = [
    "float32",
    "mixed_float16",
    "mixed_bfloat16",
    "float16",
    "bfloat16",
    "float64",
]


def with_and_without_compiled_loops(
    names, policy, compiler, timesteps, gradient, step_mode="multi"
):
    """What a training step gives, and inference after it, without and with compiled
    loops, and whether all are compiled."""
    keras.config.set_dtype_policy(policy)
    inputs = keras.Input((6,), dtype=keras.config.dtype_policy().compute_dtype)
    currents = layers.Dense(8)
    x = layers.Concatenate()([OF_LIBRARY[name]()(currents(inputs)) for name in names])
    model = spiking(
        keras.Model(inputs, layers.Dense(3)(x)),
        timesteps,
        gradient,
        step_mode=step_mode,
    )
    # Sums of multiples of 1/16 are exact in every policy, so that no rounding moves a
    # membrane over its threshold.
    currents.kernel.assign(dyadic((6, 8)))
    x, y = (
        dyadic((5, timesteps, 6), seed=1).astype("float32"),
        np.array([0, 1, 2, 0, 1]),
    )

    def results():
        return (
            *loss_and_gradients(model, x, y),
            to_numpy(ops.cast(model(x), "float32")),
        )

    expected = results()
    with fusion(compiler):
        return expected, results()


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
    (NEURONS, "float32", MODES_AND_STEPS[0]),
    (NEURONS, "float32", MODES_AND_STEPS[1]),
    (["of one's own"], "float32", ("bptt", "single", 3)),
]


@torch_only
@pytest.mark.parametrize(
    ("names", "policy", "mode"),
    [
        *FEW,
        *(
            pytest.param(OF_LIBRARY, *case, marks=pytest.mark.slow)
            for case in itertools.product(POLICIES, MODES_AND_STEPS)
        ),
    ],
    ids=lambda part: "every" if isinstance(part, dict) else str(part),
)
def test_traced_loops_of_every_neuron_are_the_same_to_the_bit_in_every_policy(
    names, policy, mode
):
    """Also for more steps than are traced as one function."""
    gradient, step_mode, timesteps = mode
    expected, found = with_and_without_compiled_loops(
        names, policy, None, timesteps, gradient, step_mode
    )
    assert found[0] == expected[0]
    assert_close(found[1], expected[1], rtol=0)
    np.testing.assert_array_equal(found[2], expected[2])


@torch_only
@needs_compiler
@pytest.mark.parametrize(
    ("name", "policy"),
    [
        ("CuBaLIF", "float16"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in itertools.product(OF_LIBRARY, POLICIES)
        ),
    ],
)
def test_compiled_loops_of_every_neuron_emit_the_same_spikes_in_every_policy(
    name, policy
):
    """Between the casts of a cell the compiler computes in float32 or wider, so that
    gradients are rounded otherwise."""
    graphs = []
    expected, found = with_and_without_compiled_loops(
        [name], policy, counting("inductor", graphs), 2, "bptt"
    )
    assert len(graphs) >= 2
    np.testing.assert_array_equal(found[2], expected[2])
    roundoff = {
        "float16": 2.0**-11,
        "bfloat16": 2.0**-8,
        "float32": 2.0**-24,
        "float64": 2.0**-53,
    }
    tolerance = 16 * roundoff[keras.config.dtype_policy().compute_dtype]
    assert_same(found[:2], expected[:2], rtol=tolerance, atol=tolerance)


@torch_only
def test_loops_of_more_layouts_than_are_compiled_one_by_one_are_right():
    """Images with other orders of their axes in memory, with axes of one element, which
    have no place in it, and with gaps."""
    import torch

    inputs = keras.Input((None, None, None))
    model = spiking(
        keras.Model(inputs, rsnn.layers.LIF(0.5, 0.5, reset_delay=True)(inputs)),
        2,
        "bptt",
        return_sequences=True,
    )
    frames = [
        torch.from_numpy(
            dyadic(tuple(np.argsort(order) + 2)).astype("float32")
        ).permute(*order)
        for order in itertools.permutations(range(4))
    ]
    x = frames[0]
    frames += [x[:, :1], x[..., :1], x[:1], x[:, ::2], x[:, :, ::3]]
    expected = [to_numpy(model(x)) for x in frames]
    with fusion() as graphs:
        for x, wanted in zip(frames, expected, strict=True):
            np.testing.assert_array_equal(to_numpy(model(x)), wanted)
    assert 2 < len(graphs) < len(frames)


@torch_only
def test_models_that_share_layers_share_what_they_learn_though_one_is_recorded():
    """The recorded calls of one, and the compiled loops of the other, follow the
    weights that either trains."""
    x, y = data(5)
    histories = []
    for recorded in (False, True):
        keras.utils.clear_session(free_memory=False)
        keras.utils.set_random_seed(0)
        inputs = keras.Input((6,))
        shared = keras.Model(
            inputs,
            layers.Dense(3)(NEURONS["all that is learned"]()(layers.Dense(8)(inputs))),
        )
        first = compiled(
            spiking(shared, 2, "bptt"), jit_compile="auto" if recorded else False
        )
        other = compiled(spiking(shared, 3, "rate"), jit_compile=recorded)
        calls = rsnn.engine_settings(eager_calls={"auto": 1, True: 99})
        with fusion() if recorded else contextlib.nullcontext(), calls:
            for _ in range(3):
                histories.append(
                    [
                        float(first.train_on_batch(x, y)),
                        float(other.train_on_batch(x, y)),
                    ]
                )
                histories[-1] += [to_numpy(model(x)) for model in (first, other)]
            assert (first.engine, other.engine) == (
                "recorded" if recorded else "eager",
                "eager",
            )
    for found, expected in zip(histories[3:], histories[:3], strict=True):
        assert_close(found, expected, rtol=1e-4, atol=1e-5)


@torch_only
def test_layers_with_the_same_configuration_share_a_kernel():
    inputs = x = keras.Input((6,))
    for width in (8, 8, 16, 32):
        x = rsnn.layers.LIF(0.66)(layers.Dense(width)(x))
    model = spiking(keras.Model(inputs, x), 4)
    with fusion() as graphs:
        loss_and_gradients(model, *data(5, (6,), classes=32))
    assert len(graphs) == 1 + 1  # The first layer's input is the same at every step.


@torch_only
def test_without_a_compiler_training_continues_after_one_warning():
    def broken(graph, inputs):
        raise RuntimeError("no compiler here\nand much more to say")

    model = spiking(own(0.67), 4, "bptt")
    x, y = data(5, (6, 6, 2))
    expected = loss_and_gradients(model, x, y)
    with fusion(broken), pytest.warns(UserWarning, match="jit_compile=False") as raised:
        results = [loss_and_gradients(model, x, y) for _ in range(2)]
    messages = [str(warning.message) for warning in raised]
    assert (
        len([message for message in messages if "jit_compile=False" in message]) == 1
    ), messages
    assert "no compiler here" in messages[0]
    for result in results:
        assert_same(result, expected)


@torch_only
def test_errors_in_a_custom_cell_are_raised():
    class Broken(rsnn.layers.LIFCell):
        def step(self, inputs, state):
            raise ArithmeticError("a mistake")

    with fusion(), pytest.raises(ArithmeticError, match="a mistake"):
        spiking(network(lambda: rsnn.layers.Neuron(Broken())), 4)(
            data(5, (6, 6, 2))[0], training=True
        )


@torch_only
@pytest.mark.parametrize(
    ("options", "decay"),
    [({"jit_compile": False}, 0.68), ({"run_eagerly": True}, 0.69)],
)
def test_compilation_can_be_turned_off(options, decay):
    model = compiled(spiking(own(decay), 4), **options)
    with fusion() as graphs:
        model.fit(*data(5, (6, 6, 2)), verbose=0)
        assert not graphs
        compiled(model).fit(*data(5, (6, 6, 2)), verbose=0)
        assert graphs


@torch_only
def test_small_layers_are_not_compiled():
    model = spiking(own(0.71), 4)
    with fusion(least_elements=5 * 4 * 4 * 4 * 4) as graphs:
        loss_and_gradients(model, *data(5, (6, 6, 2)))
        assert not graphs  # The first layer has an image a step less than that.
        loss_and_gradients(model, *data(20, (6, 6, 2)))
        assert len(graphs) == 1


WIDTHS: list[int] = []


class Noted(rsnn.layers.LIFCell):
    """Notes the width of the inputs of each step that Python runs."""

    def step(self, inputs, state):
        # An attribute would be a setting that changes.
        WIDTHS.append(inputs.shape[-1])
        return super().step(inputs, state)


@torch_only
def test_an_existing_kernel_is_used_for_small_layers():
    inputs = keras.Input((6,))
    x = rsnn.layers.Neuron(Noted(0.72))(layers.Dense(10)(inputs))
    for width in (64, 8):
        x = rsnn.layers.Neuron(Noted(0.72))(layers.Dense(width)(x))
    model = spiking(keras.Model(inputs, x), 4, "bptt")
    with fusion(least_elements=5 * 4 * 64) as graphs:
        loss_and_gradients(model, *data(5, (6,), classes=8))
        WIDTHS.clear()
        loss_and_gradients(model, *data(5, (6,), classes=8))
    assert len(graphs) == 2, "forward and backward"
    # The first layer, whose input is the same at every step, is another kind of loop.
    assert WIDTHS == [10] * 4


@torch_only
@pytest.mark.parametrize("step_mode", ["single", "multi"])
def test_changed_weights_do_not_cause_retracing(step_mode):
    WIDTHS.clear()
    model = compiled(
        spiking(
            network(lambda: rsnn.layers.Neuron(Noted(0.73))),
            4,
            "bptt",
            step_mode=step_mode,
        )
    )
    x, y = data(5, (6, 6, 2))
    with fusion():
        model.train_on_batch(x, y)
        assert WIDTHS
        WIDTHS.clear()
        model.train_on_batch(x, y)
        assert not WIDTHS


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
    """The outputs of a model of one neuron layer before and after each change of its
    cell."""
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
    expected = outputs_after_changes(
        Holding(make(), read), lambda cell: change(cell._held)
    )
    assert (expected[0] != expected[1]).any()
    with fusion():
        np.testing.assert_array_equal(
            outputs_after_changes(
                Holding(make(), read), lambda cell: change(cell._held)
            ),
            expected,
        )


@torch_only
def test_a_change_of_the_code_of_a_cell_or_of_a_default_of_keras_takes_effect():
    class Own(Holding):
        gain = 1.0

    def changed(cell):
        return outputs_after_changes(
            cell,
            lambda cell: setattr(Own, "gain", 3.0),
            lambda cell: setattr(
                Own,
                "step",
                lambda self, inputs, state: Holding.step(self, 0.5 * inputs, state),
            ),
            lambda cell: setattr(
                cell,
                "step",
                lambda inputs, state: Holding.step(cell, 3.0 * inputs, state),
            ),
            lambda cell: keras.config.set_epsilon(0.5),
        )

    results = []
    for least_elements in (2**60, 0):
        with fusion(least_elements=least_elements):
            Own.gain, Own.step = 1.0, Holding.step
            results.append(
                changed(
                    Own(None, lambda held: Own.gain * (1.0 - keras.config.epsilon()))
                )
            )
        keras.config.set_epsilon(1e-7)
    np.testing.assert_array_equal(*results)
    assert len({result.sum() for result in results[0]}) >= 4


@torch_only
def test_a_changed_cell_is_compiled_again_but_not_at_each_call_if_it_always_changes():
    class Counting(Holding):
        calls = 0

        def step(self, inputs, state):
            self.calls += 1
            return super().step(inputs, state)

    with fusion() as graphs:
        outputs_after_changes(
            Holding(0.74, lambda held: held),
            lambda cell: setattr(cell, "_held", 0.75),
            calls=3,
        )
        assert len(graphs) == 2
        # Four steps in each call, and few more that are traced.
        outputs_after_changes(cell := Counting(), calls=30)
        assert cell.calls <= (30 + 5) * 4


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
        with fusion(least_elements=least_elements):
            outputs = outputs_after_changes(
                cell, lambda cell: cell.elsewhere.variable.assign(3.0), training=True
            )
            results.append((*outputs, to_numpy(cell.total.value), len(cell.losses)))
    assert_close(*results, rtol=0)


class Renaming(rsnn.layers.NeuronCell):
    """Its state has other names, in another order, after the first step."""

    def initial_state(self, inputs):
        return ops.zeros_like(inputs), ops.ones_like(inputs)

    def step(self, inputs, state):
        membrane, gain = (
            state if isinstance(state, tuple) else (state["membrane"], state["gain"])
        )
        membrane = 0.5 * membrane + inputs * gain
        spikes = self.fire(membrane)
        return (
            membrane,
            spikes,
            {"gain": 0.9 * gain, "membrane": membrane - ops.stop_gradient(spikes)},
        )


@pytest.mark.parametrize(("step_mode", "timesteps"), [("single", 3), ("multi", 18)])
@pytest.mark.parametrize("jit_compile", [False, "auto"])
def test_a_state_of_another_structure_is_an_error_that_says_which(
    step_mode, timesteps, jit_compile
):
    x, y = data(5, (6,), classes=4)
    inputs = keras.Input((6,))
    outputs = layers.Dense(4)(rsnn.layers.Neuron(Renaming())(layers.Dense(8)(inputs)))
    model = compiled(
        spiking(keras.Model(inputs, outputs), timesteps, "bptt", step_mode=step_mode),
        jit_compile=jit_compile,
    )
    error = (
        r"Renaming must keep its structure.*'gain': \(5, 8\).*after "
        r"State\(cell=\(\(5, 8\), \(5, 8\)\)"
    )
    settings = {} if BACKEND == "jax" else {"least_elements": 0}
    with (
        fusion() if BACKEND == "torch" else rsnn.engine_settings(**settings),
        pytest.raises(TypeError, match=error),
    ):
        model.train_on_batch(x, y)


@torch_only
def test_attributes_that_change_before_the_backward_pass_are_an_error():
    cell = Holding(1.0, lambda held: held)
    inputs = keras.Input((6,))
    model = spiking(
        keras.Model(inputs, rsnn.layers.Neuron(cell)(layers.Dense(6)(inputs))),
        4,
        "bptt",
    )
    with fusion():
        loss = ops.sum(model(ops.ones((2, 6)), training=True))
        cell._held = 3.0
        with pytest.raises(
            RuntimeError, match="changed between a forward pass and its backward pass"
        ):
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
            return super().step(
                inputs + keras.random.normal(ops.shape(inputs), seed=self.generator),
                state,
            )

    inputs = keras.Input((6,))
    model = spiking(keras.Model(inputs, rsnn.layers.Neuron(Noisy())(inputs)), 4)
    with fusion() as graphs:
        outputs = [to_numpy(model(data(5, (6,))[0], training=True)) for _ in range(2)]
    assert not graphs
    assert (outputs[0] != outputs[1]).any()


@torch_only
def test_a_cell_that_draws_from_pytorchs_generator_has_the_gradient_of_what_it_drew():
    import torch

    class Noisy(rsnn.layers.LIFCell):
        def step(self, inputs, state):
            return super().step(inputs * torch.rand_like(inputs), state)

    (x, y), results = data(5, (6,)), []
    for least_elements in (2**60, 0):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((6,))
        outputs = layers.Dense(3, name="last")(
            rsnn.layers.Neuron(Noisy())(layers.Dense(4, name="first")(inputs))
        )
        model = spiking(keras.Model(inputs, outputs), 3, "bptt")
        with fusion(least_elements=least_elements):
            torch.manual_seed(1)
            results.append(loss_and_gradients(model, x, y))
    assert_same(*results)


@torch_only
def test_bptt_stores_only_the_input_of_a_neuron_layer():
    import torch

    inputs = keras.Input((50,))
    model = spiking(
        keras.Model(inputs, rsnn.layers.LIF()(layers.Dense(70)(inputs))), 4, "bptt"
    )
    x = ops.convert_to_tensor(np.random.default_rng(0).random((10, 4, 50)), "float32")

    def elements_kept():
        kept = {}
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: kept.setdefault(t.data_ptr(), t.numel()) and t, lambda t: t
        ):
            model(x, training=True)
        return sum(elements for elements in kept.values() if elements >= 10 * 70)

    with fusion():
        # What the dense layer was given, and what the neurons were.
        assert elements_kept() == 10 * 4 * 50 + 10 * 4 * 70
    assert elements_kept() >= 10 * 4 * 50 + 10 * 4 * 70


@pytest.mark.parametrize("asked", ["auto", False, None])
def test_jit_compile_is_saved_with_its_original_value(asked):
    model = compiled(spiking(), jit_compile=asked)
    loaded = saved_and_loaded(model)
    assert loaded.get_compile_config()["jit_compile"] == (
        "auto" if asked is None else asked
    )
    assert loaded.jit_compile == model.jit_compile
    loaded.fit(*data(), verbose=0)


@torch_only
def test_compiled_loops_follow_changes_of_trainable_weights():
    """The number of trainable weights stays the same, but compiled code for another
    weight must not be used."""
    shared = network(NEURONS["all that is learned"])
    cells = [layer.cell for layer in shared.layers if hasattr(layer, "cell")]
    x, y = data(5, (6, 6, 2))

    def gradients_of(name):
        for cell in cells:
            cell.log_threshold.trainable, cell.decay_logit.trainable = (
                name == "log_threshold",
                name == "decay_logit",
            )
        return loss_and_gradients(spiking(shared, 3), x, y)

    expected = gradients_of("decay_logit")
    with fusion():
        gradients_of("log_threshold")
        assert_same(gradients_of("decay_logit"), expected)


def doubling(on_gpu):
    """A graph `x -> 2 x` that is compiled by layout."""
    import torch

    graph = torch.fx.experimental.proxy_tensor.make_fx(lambda x: [x * 2])(
        torch.ones(2, 3)
    )
    return CompiledByLayout(graph, "a time loop", on_gpu)


@torch_only
def test_a_time_loop_is_compiled_for_each_layout_on_gpus_until_there_are_too_many():
    import torch

    run = doubling(on_gpu=True)
    with recording() as graphs:
        for x in (
            torch.ones(2, 3),
            torch.ones(2, 3),
            torch.ones(3, 2).T,
            *(torch.ones(size, 3) for size in range(3, 30)),
        ):
            np.testing.assert_array_equal(run(x)[0], 2 * x)
            assert len(graphs) < 20
        assert len(graphs) > 4


@torch_only
def test_a_time_loop_is_compiled_for_each_order_of_axes_on_cpus_whatever_the_sizes():
    import torch

    inputs = keras.Input((None,))
    model = spiking(keras.Model(inputs, rsnn.layers.LIF(0.76)(inputs)), 4, "bptt")
    with fusion() as graphs:
        for shape in ((2, 3), (4, 5), (1, 3), (1, 7), (9, 9)):
            model(torch.ones(shape))
    assert len(graphs) == 2, "of rows, and of one row"


@torch_only
def test_no_other_thread_records_or_compiles_while_one_compiles():
    """SymPy makes some of its symbols when they are first asked for, and fails where
    two threads ask at once."""
    import torch
    from torch._dynamo.convert_frame import compile_lock

    could_record = []

    def noticing(graph, tensors):
        another = threading.Thread(
            target=lambda: could_record.append(compile_lock.acquire(blocking=False))
        )
        another.start()
        another.join()
        return graph.forward

    with recording(compiler=noticing):
        for on_gpu, x in (
            (False, torch.ones(2, 3)),
            (False, torch.ones(3, 4)[:, ::2]),
            (True, torch.ones(2, 3)),
        ):
            doubling(on_gpu)(x)
    assert could_record == [False] * 3, "an order of axes, any layout, these sizes"


@torch_only
@needs_compiler
def test_a_time_loop_that_is_compiled_for_an_order_of_axes_is_right_for_all_sizes():
    import torch

    def function(x, weight):
        shifted = x * weight + x[:1]
        return [torch.stack([shifted, x], 1), (shifted * x).sum(0)]

    def images(batch, *size, channels):
        return torch.rand(batch, channels, *size).permute(0, 2, 3, 1)

    arguments = [
        (images(batch, *size, channels=channels), torch.rand(channels))
        for batch, size, channels in (
            (2, (4, 4), 3),
            (5, (2, 7), 4),
            (1, (3, 3), 2),
            (3, (5, 1), 1),
            (2, (4, 4), 1),
        )
    ]
    run = CompiledByLayout(
        torch.fx.experimental.proxy_tensor.make_fx(function)(*arguments[0]),
        "a loop",
        False,
    )
    with torch.no_grad():
        for tensors in arguments:
            assert_close(run(*tensors), function(*tensors), rtol=1e-5)


@torch_only
def test_pytorch_compiles_a_stack_of_steps_as_it_is_told_here():
    """On GPUs it would compute a stack of few tensors by one expression, which grows
    with the square of T."""
    import torch
    from torch._inductor import ir, lowering

    original, stacked = lowering.pointwise_cat, []

    def compiler(graph, tensors):
        stacked.append(lowering.pointwise_cat(["step", "step"], 0).data)
        return graph.forward

    with (
        recording(compiler=compiler),
        mock.patch.object(ir.ConcatKernel, "create", return_value="written in place"),
    ):
        doubling(on_gpu=True)(torch.ones(2, 3))
    assert stacked == ["written in place"]
    assert lowering.pointwise_cat is original
    assert "pointwise_cat(" in inspect.getsource(lowering.cat), (
        "PyTorch's lowering of `cat` has changed"
    )


@torch_only
def test_a_graph_compiler_gets_the_operations_of_time_loops_on_gpus_if_none_is_stored():
    import torch

    on_gpu, on_cpu = (
        [types.SimpleNamespace(is_cuda=is_cuda, requires_grad=True)]
        for is_cuda in (True, False)
    )
    with torch.no_grad():
        assert torch_fusion._fuse_with_others(on_gpu)
        assert not torch_fusion._fuse_with_others(on_cpu)
    assert not torch_fusion._fuse_with_others(on_gpu), (
        "a loop with a gradient would store all of its steps"
    )
