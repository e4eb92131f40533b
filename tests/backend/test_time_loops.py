"""Time loops of small layers in C++, on PyTorch: the same results as operation by
operation, in fewer operations."""

import contextlib
import shutil
import warnings

import keras
import numpy as np
import pytest
from helpers import (
    BACKEND,
    assert_close,
    compiled,
    dyadic,
    loss_and_gradients,
    spiking,
    to_numpy,
)
from keras import layers, ops

import keras_ratesnn as rsnn

if BACKEND != "torch":
    pytest.skip("other backends compile loops by themselves", allow_module_level=True)

import torch
from counted_operations import Counter
from recorded_calls import operations, recording

from keras_ratesnn._core.backend.torch import fusion, time_loops
from keras_ratesnn._core.backend.torch.time_loops import TimeLoop, programs, text

pytestmark = pytest.mark.runs_once
needs_compiler = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")), reason="needs a C++ compiler"
)

NEURONS = {
    "IF": lambda: rsnn.layers.IF(0.5, initial_membrane=0.25, surrogate="atan"),
    "LIF": lambda: rsnn.layers.LIF(
        0.5, 0.5, reset="hard", v_reset=-0.25, surrogate="triangle"
    ),
    "LIF, delayed": lambda: rsnn.layers.LIF(
        0.5, 0.5, decay_input=True, reset_delay=True
    ),
    "ParametricLIF": lambda: rsnn.layers.ParametricLIF(
        0.5, 0.5, per_channel=True, learn_threshold=True, detach_reset=False
    ),
    "ParametricLIF, per channel": lambda: rsnn.layers.ParametricLIF(
        0.5, 0.5, per_channel=True
    ),
    "CuBaLIF": lambda: rsnn.layers.CuBaLIF(
        0.5, 0.5, synaptic_decay=0.5, surrogate="gaussian"
    ),
    "ALIF": lambda: rsnn.layers.ALIF(
        threshold=0.5, learn_threshold=True, surrogate="rectangular"
    ),
    "ILIF": lambda: rsnn.layers.ILIF(3, 0.5, 0.5, normalize=True, detach_reset=False),
}
PARALLEL = {"SlidingPSN": lambda: rsnn.layers.SlidingPSN(3, 0.5, surrogate="triangle")}
TIMESTEPS = 5


@pytest.fixture
def early(monkeypatch):
    """Loops are written at the third call."""
    monkeypatch.setattr(fusion, "CALLS_BEFORE_LOOPS", 3)


def network(names, features=(6,)):
    inputs = keras.Input(features, dtype=keras.config.dtype_policy().compute_dtype)
    currents = layers.Dense(8, name="currents")(inputs)
    neurons = [(NEURONS | PARALLEL)[name]() for name in names]
    x = layers.Concatenate()([neuron(currents) for neuron in neurons])
    if len(features) > 1:
        x = layers.Flatten()(x)
    return keras.Model(inputs, layers.Dense(3)(x))


def sequences(features=(6,)):
    """A batch that no rounding moves over a threshold: sums of multiples of 1/16 are
    exact in every policy."""
    return dyadic((5, TIMESTEPS, *features), seed=1).astype("float32"), np.array(
        [0, 1, 2, 0, 1]
    )


@pytest.fixture
def loops(monkeypatch):
    """The loops that are written, a list that grows."""
    made = []
    monkeypatch.setattr(
        time_loops, "TimeLoop", lambda *args: made.append(TimeLoop(*args)) or made[-1]
    )
    return made


LENGTHS = 5, 3, 1, 4, 2
WINDOWS, UNEQUAL = rsnn.gradients.Rate(windows=2), rsnn.gradients.Rate(windows=(1, 4))


@needs_compiler
@pytest.mark.parametrize(
    ("names", "gradient", "policy", "lengths", "features"),
    [
        (list(NEURONS), "rate", "float32", LENGTHS, (6,)),
        (["IF"], WINDOWS, "mixed_bfloat16", LENGTHS, (6,)),
        (["ParametricLIF", "LIF"], "rate", "float64", None, (2, 3, 6)),
        (list(NEURONS), "bptt", "float32", LENGTHS, (6,)),
        (["LIF", "ILIF"], "bptt", "mixed_bfloat16", None, (2, 3, 6)),
        (["SlidingPSN", "LIF"], UNEQUAL, "float32", None, (6,)),
        (["SlidingPSN"], "rate", "mixed_bfloat16", None, (2, 3, 6)),
        (["SlidingPSN"], "bptt", "float64", None, (2, 3, 6)),
    ],
)
def test_loops_give_the_same_results_as_operations(
    early, loops, names, gradient, policy, lengths, features
):
    keras.config.set_dtype_policy(policy)
    model = spiking(
        network(names, features), TIMESTEPS, gradient, mask_value=lengths and 0.0
    )
    model.network.get_layer("currents").kernel.assign(dyadic((6, 8)))
    x, y = sequences(features)
    for sample, length in zip(x, lengths or (), strict=False):
        sample[length:] = 0.0

    def results():
        with torch.no_grad():
            outputs = to_numpy(ops.cast(model(x), "float32"))
        return *loss_and_gradients(model, x, y), outputs

    tolerance = 1e-12 if policy == "float64" else 1e-5
    loss, gradients, outputs = results()
    assert not loops
    for _ in range(2):
        again, found, outputs_again = results()
        assert again == pytest.approx(loss, rel=1e-6)
        np.testing.assert_array_equal(outputs_again, outputs)
        assert_close(found, gradients, rtol=tolerance, atol=tolerance / 10)
    # One for each layer in inference, and in training, with any windows, but for those
    # without written derivatives.
    without = {"CuBaLIF", "ALIF"} if gradient != "bptt" else set()
    assert len(loops) == len(names) + len(set(names) - without)


@needs_compiler
@pytest.mark.parametrize("gradient", ["rate", "bptt"])
@pytest.mark.parametrize(("units", "batch"), [(3, 3), (3, 5), (1, 3)])
def test_weights_of_lags_are_not_taken_for_those_of_neurons(
    early, gradient, units, batch
):
    """There are as many lags as neurons, or samples, or one neuron."""
    inputs = keras.Input((4,))
    x = rsnn.layers.SlidingPSN(3, threshold=0.5)(
        layers.Dense(units, kernel_initializer=keras.initializers.Constant(0.5))(inputs)
    )
    model = spiking(keras.Model(inputs, layers.Dense(3)(x)), TIMESTEPS, gradient)
    x, y = dyadic((batch, TIMESTEPS, 4), seed=1).astype("float32"), np.arange(batch) % 3
    loss, gradients = loss_and_gradients(model, x, y)
    for _ in range(2):
        again, found = loss_and_gradients(model, x, y)
        assert again == pytest.approx(loss, rel=1e-6)
        for path, of_weight in gradients.items():
            np.testing.assert_allclose(
                found[path], of_weight, rtol=1e-5, atol=1e-6, err_msg=path
            )


@needs_compiler
@pytest.mark.parametrize("features", [(2, 4), (1,)])
def test_gradients_of_last_states_weights_and_constant_inputs_flow_through_a_loop(
    features,
):
    def step(decay, membrane, x, weight):
        membrane = decay * membrane + x * weight
        return [membrane], [membrane.square()]

    generator = torch.Generator().manual_seed(0)
    shapes = (3, TIMESTEPS, *features), (3, *features)
    x, weight = (
        torch.randn(shape, generator=generator, requires_grad=True) for shape in shapes
    )
    decay, first = torch.tensor(0.75, requires_grad=True), torch.zeros(3, *features)
    inputs = [x[:, 0].detach(), weight.detach()]
    loop = TimeLoop(
        [step],
        lambda *_: [0.0],
        None,
        [decay],
        [first],
        inputs,
        [],
        [True],
        [True, True],
        [False, True],
    )
    for of_state in (False, True):
        membrane, outputs = first, []
        for t in range(TIMESTEPS):
            (membrane,), (output,) = step(decay, membrane, x[:, t], weight)
            outputs.append(output)
        found = loop([decay], [], [x, weight], [], [TIMESTEPS])
        losses = [
            output.sin().sum() + of_state * state.cos().sum()
            for (state,), (output,) in (([membrane], [torch.stack(outputs, 1)]), found)
        ]
        expected, gradients = (
            torch.autograd.grad(loss, [x, weight, decay]) for loss in losses
        )
        for gradient, of_input in zip(gradients, expected, strict=True):
            torch.testing.assert_close(gradient, of_input, rtol=1e-5, atol=1e-6)


def drawn_neurons(random):
    surrogate = str(
        random.choice(["atan", "sigmoid", "triangle", "rectangular", "gaussian"])
    )
    decay, threshold = (
        float(random.choice([0.25, 0.5, 0.9])),
        float(random.choice([0.3, 0.5, 1.0])),
    )
    yes, also = (bool(random.integers(2)) for _ in range(2))
    kinds = [
        lambda: rsnn.layers.IF(
            threshold,
            surrogate=surrogate,
            detach_reset=yes,
            initial_membrane=0.25 * also,
        ),
        lambda: rsnn.layers.LIF(
            decay,
            threshold,
            surrogate=surrogate,
            reset="hard" if yes else "soft",
            detach_reset=also,
        ),
        lambda: rsnn.layers.LIF(
            decay, threshold, surrogate=surrogate, decay_input=True, reset_delay=True
        ),
        lambda: rsnn.layers.LIF(decay, threshold, learn_threshold=True),
        lambda: rsnn.layers.ParametricLIF(
            decay, threshold, surrogate=surrogate, per_channel=yes, learn_threshold=also
        ),
        lambda: rsnn.layers.CuBaLIF(
            decay, threshold, synaptic_decay=0.5, surrogate=surrogate
        ),
        lambda: rsnn.layers.ALIF(threshold=threshold, surrogate=surrogate),
        lambda: rsnn.layers.ILIF(3, decay, threshold, normalize=yes, detach_reset=also),
    ]
    return kinds[random.integers(len(kinds))]()


def drawn_network(random, data_format):
    x = inputs = keras.Input((6, 6, 2) if data_format == "channels_last" else (2, 6, 6))
    for _ in range(random.integers(1, 3)):
        convolution = layers.Conv2D(
            4, 3, int(random.integers(1, 3)), "same", data_format
        )
        current = convolution(x)
        if random.integers(2):
            current = layers.BatchNormalization(
                axis=-1 if data_format == "channels_last" else 1
            )(current)
        spikes = drawn_neurons(random)(current)
        x = layers.Add()([spikes, current]) if random.integers(2) else spikes
    currents = layers.Dense(int(random.choice([1, 5])))(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(3)(drawn_neurons(random)(currents)))


SIZES = 5, 5, 5, 3, 3, 3
"""Of batches: each is recorded after a call in eager mode."""


def drawn_gradient(random, timesteps):
    windows = [1, min(2, timesteps), (1, timesteps - 1) if timesteps > 1 else 1]
    if random.integers(2):
        return "bptt"
    return rsnn.gradients.Rate(windows=windows[random.integers(3)])


@needs_compiler
@pytest.mark.parametrize(
    ("seed", "engine"),
    [
        *((seed, "eager") for seed in range(4)),
        *((seed, engine) for seed in (5, 10) for engine in ("recorded", "compiled")),
        *(pytest.param(seed, "eager", marks=pytest.mark.slow) for seed in range(4, 40)),
    ],
)
def test_loops_of_drawn_networks_train_them_as_operations_do(loops, seed, engine):
    """Large layers have loops from their first call."""
    keras.config.set_dtype_policy("float64")
    random = np.random.default_rng(seed)
    timesteps, is_same, is_padded = (
        int(random.choice([1, 2, 5, 17])),
        random.integers(3) == 0,
        random.integers(2) == 0,
    )
    gradient = drawn_gradient(random, timesteps)
    data_format, drawn = (
        str(random.choice(["channels_last", "channels_first"])),
        int(random.integers(2**31)),
    )
    shape = (6, 6, 2) if data_format == "channels_last" else (2, 6, 6)
    x, y = (
        1.5 * random.normal(size=(5, *shape) if is_same else (5, timesteps, *shape)),
        np.array([0, 1, 2, 0, 1]),
    )
    if is_padded and not is_same:
        for sample, length in zip(x, random.integers(1, timesteps + 1, 5), strict=True):
            sample[length:] = 0.0

    def trained(least_elements, jit_compile):
        keras.utils.set_random_seed(seed)
        network = drawn_network(np.random.default_rng(drawn), data_format)
        mask_value = 0.0 if is_padded and not is_same else None
        model = spiking(network, timesteps, gradient, mask_value=mask_value)
        compiled(model, jit_compile=jit_compile)
        eager_calls = 99 if engine == "eager" else 1
        with recording(eager_calls, least_elements=least_elements) as graphs:
            losses = [model.train_on_batch(x[:size], y[:size]) for size in SIZES]
            outputs = to_numpy(model.predict(x, verbose=0))
        weights = [to_numpy(weight) for weight in model.weights]
        return model, graphs, (losses, weights, outputs)

    with threads(2), warnings.catch_warnings():
        # An axis may be as long as T.
        warnings.simplefilter("ignore")
        _, _, expected = trained(2**60, False)
        assert not loops
        model, graphs, found = trained(0, True if engine == "compiled" else "auto")
    assert loops
    assert model.engine == engine
    keras.tree.map_structure(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10),
        found,
        expected,
    )
    # Those of the forward passes: derivatives by rate have no loops.
    with_loops = [
        "keras_ratesnn.time_loop.default" in operations(graph) for graph in graphs
    ]
    assert all(with_loops if gradient == "bptt" else with_loops[::2])


@contextlib.contextmanager
def threads(number):
    """A context in which loops run in this many threads, however small they are."""
    before = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(programs, "_ELEMENTS_OF_A_THREAD", 1)
        torch.set_num_threads(number)
        yield
        torch.set_num_threads(before)


@needs_compiler
def test_large_layers_in_half_precision_are_compiled_by_pytorch(loops):
    keras.config.set_dtype_policy("mixed_bfloat16")
    # Nothing of it is compiled before.
    neuron = rsnn.layers.LIF(0.51)
    inputs = keras.Input((6,), dtype="bfloat16")
    model = spiking(
        keras.Model(inputs, layers.Dense(3)(neuron(layers.Dense(8)(inputs)))),
        TIMESTEPS,
        "rate",
    )
    with recording(99, least_elements=0) as graphs:
        loss_and_gradients(model, *sequences())
    assert graphs
    assert not loops


@needs_compiler
def test_a_recorded_step_of_small_layers_has_as_many_operations_at_any_T(early):
    counts = []
    for timesteps in (4, 29):
        model = compiled(spiking(network(["LIF", "ParametricLIF"]), timesteps, "rate"))
        x, y = np.ones((5, timesteps, 6), "float32"), np.array([0, 1, 2, 0, 1])
        with recording(eager_calls=3):
            for _ in range(5):
                model.train_on_batch(x, y)
            assert model.engine == "recorded"
            with Counter() as counter:
                model.train_on_batch(x, y)
        counts.append(counter.operations)
    assert counts[0] == counts[1]


@needs_compiler
def test_loops_follow_settings_weights_and_sizes_of_batches(early, loops):
    model = spiking(network(["ParametricLIF"]), TIMESTEPS, "rate")
    (neurons,) = (
        layer for layer in model.network.layers if isinstance(layer, rsnn.layers.Neuron)
    )
    x, y = sequences()

    def another_setting():
        neurons.cell.setting = 2.0

    changes = lambda: None, lambda: neurons.cell.set_threshold(0.25), another_setting
    for change in changes:
        change()
        first, *_, last = (loss_and_gradients(model, x, y) for _ in range(4))
        assert last[0] == pytest.approx(first[0], rel=1e-6)
        assert_close(last[1], first[1], rtol=1e-5, atol=1e-6)
    assert len(loops) == 2
    with torch.no_grad():
        outputs = [to_numpy(model(x[:size])) for size in (5, 5, 5, 2, 1)]
    for of_part in outputs:
        np.testing.assert_allclose(of_part, outputs[0][: len(of_part)], rtol=1e-6)


@needs_compiler
def test_a_loop_serves_any_number_of_steps_and_equal_layers(early, loops):
    x, _ = sequences()

    def outputs(timesteps):
        model.timesteps = timesteps
        return to_numpy(model(x[:, :timesteps]))

    with torch.no_grad():
        for _ in range(2):
            model = spiking(network(["LIF"]), TIMESTEPS, "rate")
            expected = [outputs(steps) for steps in (1, 3, 5)]
            found = [outputs(steps) for steps in (1, 3, 5)]
            np.testing.assert_array_equal(found, expected)
    one, other = loops
    assert one._program._number == other._program._number


class Noisy(rsnn.layers.NeuronCell):
    """One random number a step, of PyTorch's own generator, for all neurons."""

    def step(self, inputs, state):
        membrane = (
            0.5 * state
            + ops.cast(inputs, state.dtype)
            + torch.rand((), dtype=state.dtype)
        )
        return membrane, self.fire(membrane), membrane


class Rounding(rsnn.layers.NeuronCell):
    """Its membrane is rounded to half precision after each step."""

    def initial_state(self, inputs):
        return ops.zeros_like(inputs)

    def step(self, inputs, state):
        membrane = ops.cast(state, "float32") + ops.cast(inputs, "float32")
        return membrane, self.fire(membrane), ops.cast(membrane, state.dtype)


class Gated(rsnn.layers.NeuronCell):
    """Compares in half precision, in which 0.1 is the number nearest to it."""

    def step(self, inputs, state):
        membrane = state + ops.where(inputs > 0.1, 1.0, 0.0)
        return membrane, self.fire(membrane), membrane


@needs_compiler
@pytest.mark.parametrize(
    ("cell", "policy", "steps"),
    [
        (Noisy, "float32", [0.25] * TIMESTEPS),
        (Rounding, "mixed_bfloat16", [0.75, 2**-9, 2**-9, 0.0, 0.0]),
        (Gated, "mixed_bfloat16", [0.1] * TIMESTEPS),
    ],
)
def test_what_a_program_would_not_repeat_runs_operation_by_operation(
    early, loops, cell, policy, steps
):
    keras.config.set_dtype_policy(policy)
    inputs = keras.Input((2,), dtype=keras.config.dtype_policy().compute_dtype)
    network = keras.Model(inputs, rsnn.layers.Neuron(cell(threshold=0.7525))(inputs))
    model = spiking(network, TIMESTEPS, "bptt", return_sequences=True)
    x, found = np.tile(np.array(steps, "float32")[:, None], (8, 1, 2)), []
    with torch.no_grad():
        for _ in range(5):
            torch.manual_seed(0)
            found.append(to_numpy(ops.cast(model(x), "float32")))
    for again in found:
        np.testing.assert_array_equal(again, found[0])
    assert not loops


@pytest.mark.parametrize(
    ("module", "name"),
    [(programs, "_compiled"), (text, "operation_text")],
    ids=["no compiler", "operations without a text"],
)
def test_without_a_program_operations_run_one_by_one_and_only_the_log_says_why(
    early, monkeypatch, caplog, module, name
):
    caplog.set_level("DEBUG", "keras_ratesnn")
    asked = []

    def fail(*args):
        asked.append(args)
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(module, name, fail)
    model, (x, _) = spiking(network(["IF"]), TIMESTEPS, "rate"), sequences()
    before = len(programs._programs)
    with torch.no_grad():
        first, *_, last = (to_numpy(model(x)) for _ in range(6))
    np.testing.assert_array_equal(last, first)
    # It is tried once.
    assert len(asked) == 1
    assert [record.message for record in caplog.records] == [
        "The time loop of IFCell is not written in C++: no compiler here"
    ]
    assert len(programs._programs) == before


@needs_compiler
@pytest.mark.parametrize("gradient", ["rate", "bptt"])
def test_tensors_that_a_loop_saves_are_read_once(early, loops, gradient):
    """Hooks of the user's, as `torch.utils.checkpoint` has them, may give each tensor
    only once."""
    model, (x, y) = (
        spiking(network(["ParametricLIF"]), TIMESTEPS, gradient),
        sequences(),
    )
    for _ in range(4):
        loss_and_gradients(model, x, y)
    reads = []

    def unpack(saved):
        reads.append(id(saved))
        return saved[0]

    kept = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: kept.append([tensor]) or kept[-1], unpack
    ):
        loss_and_gradients(model, x, y)
    assert loops
    assert len(reads) == len(set(reads))
