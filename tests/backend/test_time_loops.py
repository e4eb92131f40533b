"""Time loops of small layers in C++, on PyTorch: the same results as operation by
operation, in fewer operations."""

import contextlib

import keras
import numpy as np
import pytest
import torch
from counted_operations import Counter
from helpers import (
    assert_close,
    chain,
    compiled,
    dyadic,
    loss_and_gradients,
    needs_compiler,
    rate_and_bptt,
    spiking,
    to_numpy,
)
from keras import layers, ops
from library_neurons import COMPILED, taken
from numpy.testing import assert_allclose, assert_array_equal
from recorded_calls import assert_equal_state, operations, pair, recording, train

import keras_ratesnn as rsnn
from keras_ratesnn._core.backend.torch.graphs import fusion, time_loops
from keras_ratesnn._core.backend.torch.graphs.time_loops import CompiledLoop, programs
from keras_ratesnn.gradients.time.derivative import has_written_derivative
from keras_ratesnn.layers import Neuron, NeuronCell, SlidingPSN

SURROGATES = "atan", "sigmoid", "triangle", "rectangular", "gaussian"
TIMESTEPS = 5


class Resting(NeuronCell):
    """Rests for a step after each spike."""

    def step(self, inputs, state):
        is_awake = ops.logical_not(ops.cast(state, inputs.dtype) > 0.0)
        membrane = ops.where(is_awake, inputs, -np.inf)
        spikes = self.fire(membrane)
        return membrane, spikes, spikes


def neuron(name, random):
    """Neurons with drawn arguments."""

    def is_so():
        return bool(random.integers(2))

    def one_of(*values):
        return random.choice(values).item()

    if name == "Resting":
        return Neuron(Resting(threshold=0.5))
    is_hard, is_detached = is_so(), is_so()
    arguments = {
        "threshold": one_of(0.3, 0.5, 1.0),
        "surrogate": one_of(*SURROGATES),
        "decay": one_of(0.25, 0.5, 0.75),
        "decay_input": is_so(),
        "detach_reset": is_detached,
        "reset_delay": is_detached and is_so(),
        "reset": "hard" if is_hard else "soft",
        "v_reset": -0.25 if is_hard else 0.0,
        "initial_membrane": one_of(0.0, 0.125),
        "learn_threshold": is_so(),
        "per_channel": is_so(),
        "levels": 3,
        "normalize": is_so(),
        "order": 3,
    }
    return getattr(rsnn.layers, name)(**taken(name, arguments))


def network(names, features=(6,), units=8):
    inputs = keras.Input(features, dtype=keras.config.dtype_policy().compute_dtype)
    currents = layers.Dense(units, name="currents")(inputs)
    random = np.random.default_rng(0)
    spikes = [neuron(name, random)(currents) for name in names]
    x = layers.Concatenate()(spikes) if len(names) > 1 else spikes[0]
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))


def sequences(features=(6,), samples=5, timesteps=TIMESTEPS):
    """A batch that no rounding moves over a threshold: sums of multiples of 1/16 are
    exact in every policy."""
    x = dyadic((samples, timesteps, *features), seed=1).astype("float32")
    return x, np.arange(samples) % 3


@pytest.fixture
def early(monkeypatch):
    """Loops are written at the third call."""
    monkeypatch.setattr(fusion, "CALLS_BEFORE_LOOPS", 3)


@pytest.fixture
def loops(monkeypatch):
    """The loops that are written, a list that grows."""
    made = []

    def listed(*arguments):
        made.append(CompiledLoop(*arguments))
        return made[-1]

    monkeypatch.setattr(time_loops, "CompiledLoop", listed)
    return made


LENGTHS = 5, 3, 1, 4, 2
WINDOWS, UNEQUAL = rsnn.gradients.Rate(windows=2), rsnn.gradients.Rate(windows=(1, 4))
MANY = rsnn.gradients.Rate(windows=8)
IMAGE = {"features": (2, 3, 6)}


@needs_compiler
@rate_and_bptt
def test_neurons_with_a_long_queue_of_inputs_have_no_loop(early, loops, gradient):
    """Their steps take much longer than all steps at once."""
    queues = [SlidingPSN(order) for order in (8, 9)]
    for queue, number in zip(queues, (1, 0), strict=True):
        loops.clear()
        model = spiking(chain(queue, shape=(6,)), TIMESTEPS, gradient)
        for _ in range(4):
            loss_and_gradients(model, *sequences())
        assert len(loops) == number


@needs_compiler
@pytest.mark.parametrize(
    ("names", "gradient", "policy", "sizes"),
    [
        (COMPILED, "rate", "float32", {"lengths": LENGTHS}),
        (COMPILED, "bptt", "float32", {"lengths": LENGTHS}),
        (["IF"], WINDOWS, "mixed_bfloat16", {"lengths": LENGTHS}),
        (["LIF", "ILIF"], "bptt", "mixed_bfloat16", IMAGE),
        (["SlidingPSN", "LIF"], UNEQUAL, "float32", {}),
        (["LIF"], MANY, "float32", {"timesteps": 9, "lengths": (9, 8, 3)}),
        (["SlidingPSN"], "bptt", "float64", IMAGE),
        # As many lags as neurons, or samples, or one neuron.
        (["SlidingPSN"], "rate", "float32", {"units": 3, "samples": 3}),
        (["SlidingPSN"], "rate", "float32", {"units": 1, "samples": 3}),
    ],
)
def test_loops_give_the_same_results_as_operations(
    early, loops, names, gradient, policy, sizes
):
    keras.config.set_dtype_policy(policy)
    units, features = sizes.get("units", 8), sizes.get("features", (6,))
    timesteps = sizes.get("timesteps", TIMESTEPS)
    mask_value = 0.0 if "lengths" in sizes else None
    shared = network(names, features, units)
    shared.get_layer("currents").kernel.assign(dyadic((6, units)))
    model = spiking(shared, timesteps, gradient, mask_value=mask_value)
    x, y = sequences(features, sizes.get("samples", 5), timesteps)
    for sample, length in enumerate(sizes.get("lengths", ())):
        x[sample, length:] = 0.0

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
        assert_array_equal(outputs_again, outputs)
        assert_close(found, gradients, rtol=tolerance, atol=tolerance / 10)
    # One for each layer in inference, and in training, with any windows, but for those
    # without written derivatives.
    cells = [layer.cell for layer in model.network.layers if hasattr(layer, "cell")]
    trained = [gradient == "bptt" or has_written_derivative(cell) for cell in cells]
    if "units" not in sizes:
        assert len(loops) == len(names) + sum(trained)


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
@pytest.mark.parametrize("jit_compile", ["auto", True], ids=["recorded", "compiled"])
def test_a_graph_with_loops_in_threads_trains_as_operations_do(loops, jit_compile):
    """Large layers have loops from their first call."""
    keras.config.set_dtype_policy("float64")
    names = "LIF", "ALIF", "ILIF"
    eager, recorded = pair(lambda: network(names), TIMESTEPS, "bptt", jit_compile)
    with threads(2), recording(least_elements=0) as graphs:
        (expected,) = train([eager], *sequences())
        assert not loops
        (found,) = train([recorded], *sequences())
    assert loops
    assert recorded.execution != "eager"
    assert found == pytest.approx(expected, rel=1e-9)
    assert_equal_state(eager, recorded)
    for graph in graphs:
        assert "keras_ratesnn.time_loop.default" in operations(graph)


@needs_compiler
def test_large_layers_in_half_precision_are_compiled_by_pytorch(loops):
    keras.config.set_dtype_policy("mixed_bfloat16")
    with recording(99, least_elements=0) as graphs:
        loss_and_gradients(spiking(network(["LIF"]), TIMESTEPS), *sequences())
    assert graphs
    assert not loops


@needs_compiler
def test_a_recorded_step_of_small_layers_has_as_many_operations_at_any_T(early):
    counts = []
    for timesteps in (4, 29):
        model = compiled(spiking(network(["LIF", "ParametricLIF"]), timesteps))
        batch = np.ones((5, timesteps, 6), "float32"), np.arange(5) % 3
        with recording(eager_calls=3):
            for _ in range(5):
                model.train_on_batch(*batch)
            assert model.execution == "recorded"
            with Counter() as counter:
                model.train_on_batch(*batch)
        counts.append(counter.operations)
    assert counts[0] == counts[1]


@needs_compiler
def test_loops_follow_settings_weights_and_sizes_of_batches(early, loops):
    model, (x, y) = spiking(network(["ParametricLIF"]), TIMESTEPS), sequences()
    cell = model.network.layers[2].cell
    for change in (
        lambda: None,
        lambda: cell.set_decay(0.25),
        lambda: setattr(cell, "setting", 2.0),
    ):
        change()
        first, *_, last = (loss_and_gradients(model, x, y) for _ in range(4))
        assert last[0] == pytest.approx(first[0], rel=1e-6)
        assert_close(last[1], first[1], rtol=1e-5, atol=1e-6)
    assert len(loops) == 2
    with torch.no_grad():
        outputs = [to_numpy(model(x[:size])) for size in (5, 5, 5, 2, 1)]
    for part in outputs:
        assert_allclose(part, outputs[0][: len(part)], rtol=1e-6)


@needs_compiler
def test_a_loop_serves_any_number_of_steps_and_equal_layers(early, loops):
    x, _ = sequences()

    def outputs(timesteps):
        model.timesteps = timesteps
        return to_numpy(model(x[:, :timesteps]))

    with torch.no_grad():
        for _ in range(2):
            model = spiking(network(["Resting"]), TIMESTEPS)
            expected = [outputs(steps) for steps in (1, 3, 5)]
            found = [outputs(steps) for steps in (1, 3, 5)]
            assert_array_equal(found, expected)
    one, other = loops
    assert one._program._number == other._program._number


class Queueing(NeuronCell):
    """The mean of two steps, before the first of which it is as at the first."""

    def initial_state(self, inputs):
        return inputs[:, None]

    def step(self, inputs, state):
        membrane = ops.mean(ops.concatenate([state, inputs[:, None]], axis=1), axis=1)
        return membrane, self.fire(membrane), inputs[:, None]


def integrator(integrated, dtype="float32"):
    """A class of cells, given the membrane by inputs and the one before, which is of a
    dtype."""

    class Cell(NeuronCell):
        def initial_state(self, inputs):
            return ops.zeros_like(inputs, dtype=dtype)

        def step(self, inputs, state):
            membrane = integrated(inputs, ops.cast(state, "float32"))
            return membrane, self.fire(membrane), ops.cast(membrane, dtype)

    return Cell


def added(x, v):
    return v + ops.cast(x, v.dtype)


HALF, DECAYS = "mixed_bfloat16", np.array([0.25, 0.75], "float32")
CELLS = {
    # One random number a step, of PyTorch's own generator, for all neurons.
    "noise": integrator(lambda x, v: 0.5 * v + x + torch.rand((), dtype=v.dtype)),
    "NumPy": integrator(lambda x, v: x + ops.convert_to_tensor(to_numpy(v) * DECAYS)),
    "constants": integrator(lambda x, v: ops.convert_to_tensor(DECAYS) * v + x),
    "no text": integrator(lambda x, v: v + ops.sin(x)),
    "integers": integrator(added, "int32"),
    "queue": Queueing,
}
CELLS = {name: (cell, "float32", 0.8) for name, cell in CELLS.items()} | {
    "rounds": (integrator(added, "bfloat16"), HALF, [0.75, 2**-9, 2**-9, 0.0, 0.0]),
    # In half precision 0.1 is the number nearest to it.
    "compares": (integrator(lambda x, v: v + ops.where(x > 0.1, 1.0, 0.0)), HALF, 0.1),
    "adds": (integrator(lambda x, v: added(x + 0.1, v)), HALF, 0.1),
}


@needs_compiler
@pytest.mark.parametrize(("cell", "policy", "inputs"), CELLS.values(), ids=CELLS)
def test_what_a_program_would_not_repeat_runs_operation_by_operation(
    early, loops, cell, policy, inputs
):
    keras.config.set_dtype_policy(policy)
    dtype = keras.config.dtype_policy().compute_dtype
    network = chain(Neuron(cell(threshold=0.7525)), shape=(2,), dtype=dtype)
    model = spiking(network, TIMESTEPS, "bptt", return_sequences=True)
    steps = np.broadcast_to(np.float32(inputs), TIMESTEPS)
    x, outputs = np.tile(steps[:, None], (8, 1, 2)), []
    for _ in range(5):
        torch.manual_seed(0)
        outputs.append(to_numpy(ops.cast(model(x), "float32")))
    for again in outputs:
        assert_array_equal(again, outputs[0])
    assert not loops


def test_without_a_compiler_operations_run_one_by_one_and_only_the_log_says_why(
    early, monkeypatch, caplog
):
    caplog.set_level("DEBUG", "keras_ratesnn")
    asked = []
    monkeypatch.setattr(programs.shutil, "which", asked.append)
    monkeypatch.delenv("CXX", raising=False)
    programs._compiled.cache_clear()
    model, (x, _) = spiking(network(["IF"]), TIMESTEPS), sequences()
    before = len(programs._programs)
    with torch.no_grad():
        first, *_, last = (to_numpy(model(x)) for _ in range(6))
    assert_array_equal(last, first)
    # It is tried once.
    assert asked == ["g++", "clang++"]
    logger = "keras_ratesnn"
    messages = [log.message for log in caplog.records if log.name == logger]
    assert messages == [
        "The time loop of IFCell is not written in C++: There is no C++ compiler: "
        "neither CXX, g++ nor clang++."
    ]
    assert len(programs._programs) == before


@needs_compiler
@rate_and_bptt
def test_tensors_that_a_loop_saves_are_read_once(early, loops, gradient):
    """Hooks of the user's, as `torch.utils.checkpoint` has them, may give each tensor
    only once."""
    model, batch = spiking(network(["LIF"]), TIMESTEPS, gradient), sequences()
    for _ in range(4):
        loss_and_gradients(model, *batch)
    saved, reads = [], []

    def pack(tensor):
        saved.append([tensor])
        return saved[-1]

    def unpack(box):
        reads.append(id(box))
        return box[0]

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        loss_and_gradients(model, *batch)
    assert loops
    assert len(reads) == len(set(reads))
