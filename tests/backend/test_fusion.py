"""Neuron loops compiled by PyTorch: the same results as in eager mode, also if
compilation is not possible."""

import contextlib
import functools
import inspect
import threading
import types
from unittest import mock

import keras
import numpy as np
import pytest
from drawn_networks import Drawing, Saturating
from helpers import (
    BACKEND,
    assert_close,
    compiled,
    data,
    dyadic,
    loss_and_gradients,
    needs_compiler,
    only_on,
    saved_and_loaded,
    spiking,
    to_numpy,
)
from keras import layers, ops
from library_neurons import COMPILED, layer

import keras_ratesnn as rsnn
from keras_ratesnn._core.backend import engine

torch_only = only_on("torch", "other backends fuse by themselves")
if BACKEND == "torch":
    from held_settings import HELD
    from recorded_calls import recording

    # For what differs on GPUs, which these tests have not.
    from keras_ratesnn._core.backend.torch.graphs import fusion as torch_fusion
    from keras_ratesnn._core.backend.torch.graphs.recorder.compiler import (
        CompiledByLayout,
    )
else:
    HELD = {}


NEURONS = {
    **{name: functools.partial(layer, name, None) for name in COMPILED},
    "LIF, reset": lambda: rsnn.layers.LIF(0.5, 0.5, reset="hard", v_reset=-0.25),
    "LIF, delayed": lambda: rsnn.layers.LIF(
        0.5, 0.5, decay_input=True, reset_delay=True
    ),
    "LIF, each": lambda: rsnn.layers.LIF(
        keras.initializers.RandomUniform(0.2, 0.8, seed=1),
        reset="hard",
        v_reset=keras.initializers.Constant(-0.2),
        axis=None,
        initial_membrane=0.5,
    ),
    "of one's own": lambda: rsnn.layers.Neuron(Saturating()),
}
"""Neurons whose loops are compiled. Those of parallel and recurrent neurons are not."""


def network(neuron):
    inputs = keras.Input((6, 6, 2))
    x = neuron()(layers.BatchNormalization()(layers.Conv2D(4, 3)(inputs)))
    x = neuron()(layers.BatchNormalization()(layers.Conv2D(4, 3, strides=2)(x)))
    x = neuron()(layers.Dense(5)(layers.Flatten()(x)))
    return keras.Model(inputs, layers.Dense(3)(x))


def chain(*parts, features=6, timesteps=4, gradient="bptt", **kwargs):
    """A model of layers, or of cells, in a row."""
    x = inputs = keras.Input((features,))
    for part in parts:
        is_cell = isinstance(part, rsnn.layers.NeuronCell)
        x = (rsnn.layers.Neuron(part) if is_cell else part)(x)
    return spiking(keras.Model(inputs, x), timesteps, gradient, **kwargs)


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
    in_cpp = mock.patch.object(engine, "time_loop", return_value=None)
    with in_cpp, recording(99, compiler, least_elements=least_elements) as graphs:
        yield graphs


def assert_same(results, expected, rtol=1e-4, atol=1e-6):
    (loss, gradients), (expected_loss, expected_gradients) = results, expected
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert_close(gradients, expected_gradients, rtol=rtol, atol=atol)


def images(decay, timesteps=4, gradient="bptt", **kwargs):
    return spiking(own(decay), timesteps, gradient, **kwargs)


def equal_layers():
    parts = []
    for width in (8, 8, 16, 32):
        parts += [layers.Dense(width), rsnn.layers.LIF(0.66)]
    return chain(*parts, gradient="rate")


def windows(number):
    return rsnn.gradients.Rate(windows=number)


@torch_only
@pytest.mark.parametrize(
    ("make", "batches", "least_elements", "expected"),
    [
        # A kernel for the first layer, whose input is static, one for images and one
        # for rows, and as many for the derivatives; more images are the same ones.
        (lambda: images(0.65), (5, 16), 0, 6),
        (lambda: images(0.64, gradient="rate"), (5,), 0, 3),
        # All steps of a layer share a program in single-step mode.
        (lambda: images(0.63, step_mode="single"), (3,), 0, 12),
        (lambda: images(0.61, 9, windows(8)), (3,), 0, 3),
        (lambda: images(0.62, 9, windows(9)), (3,), 0, 0),
        # The first layer's input is the same at every step.
        (equal_layers, (5,), 0, 1 + 1),
        # The first layer has an image a step.
        (lambda: images(0.71, gradient="rate"), (20,), 5 * 4 * 64, 1),
    ],
)
def test_equal_loops_that_are_worth_it_are_compiled_once(
    make, batches, least_elements, expected
):
    model = make()
    shape = model.network.input_shape[1:]
    with fusion(least_elements=least_elements) as graphs:
        for samples in batches:
            loss_and_gradients(model, *data(samples, shape))
    assert len(graphs) == expected


def counting(compiler, graphs):
    """A backend of `torch.compile` that adds each graph to a list."""
    import torch

    compile_graph = torch._dynamo.lookup_backend(compiler)
    return lambda graph, tensors: graphs.append(graph) or compile_graph(graph, tensors)


@torch_only
@pytest.mark.parametrize(
    ("names", "policy", "gradient", "step_mode", "timesteps", "compiler"),
    [
        (["ALIF"], "mixed_float16", "bptt", "multi", 3, "eager"),
        (["CuBaLIF"], "bfloat16", "bptt", "multi", 31, "eager"),
        (["ParametricLIF"], "float16", "rate", "multi", 17, "eager"),
        (["IF", "ILIF"], "float64", "rate", "single", 3, "eager"),
        (
            ["LIF, reset", "LIF, each", "of one's own"],
            "float32",
            "bptt",
            "multi",
            3,
            "eager",
        ),
        (["LIF, delayed", "of one's own"], "float32", "bptt", "single", 3, "eager"),
        pytest.param(
            ["CuBaLIF"], "float16", "bptt", "multi", 2, "inductor", marks=needs_compiler
        ),
    ],
)
def test_compiled_loops_of_every_neuron_are_the_same_in_every_policy(
    names, policy, gradient, step_mode, timesteps, compiler
):
    """To the bit where they are only traced, also for more steps than are traced as one
    function.

    Between the casts of a cell a compiler computes in float32 or wider, so that
    gradients are rounded otherwise.
    """
    keras.config.set_dtype_policy(policy)
    inputs = keras.Input((6,), dtype=keras.config.dtype_policy().compute_dtype)
    currents = layers.Dense(8)
    x = layers.Concatenate()([NEURONS[name]()(currents(inputs)) for name in names])
    network = keras.Model(inputs, layers.Dense(3)(x))
    model = spiking(network, timesteps, gradient, step_mode=step_mode)
    # Sums of multiples of 1/16 are exact in every policy, so that no rounding moves a
    # membrane over its threshold.
    currents.kernel.assign(dyadic((6, 8)))
    x = dyadic((5, timesteps, 6), seed=1).astype("float32")

    def results():
        loss, gradients = loss_and_gradients(model, x, np.arange(5) % 3)
        return loss, gradients, to_numpy(ops.cast(model(x), "float32"))

    expected, graphs = results(), []
    with fusion(counting(compiler, graphs)):
        found = results()
    assert len(graphs) >= 2
    np.testing.assert_array_equal(found[2], expected[2])
    if compiler == "eager":
        assert found[0] == expected[0]
        assert_close(found[1], expected[1], rtol=0)
    else:
        tolerance = 16 * 2.0**-11
        assert_same(found[:2], expected[:2], rtol=tolerance, atol=tolerance)


@torch_only
@pytest.mark.parametrize("options", [{"jit_compile": False}, {"run_eagerly": True}])
def test_compilation_can_be_turned_off(options):
    with fusion() as graphs:
        compiled(images(0.68), **options).fit(*data(5, (6, 6, 2)), verbose=0)
    assert not graphs


WIDTHS: list[int] = []


class Noted(rsnn.layers.LIFCell):
    """Notes the width of the inputs of each step that Python runs."""

    def step(self, inputs, state):
        # An attribute would be a setting that changes.
        WIDTHS.append(inputs.shape[-1])
        return super().step(inputs, state)


@torch_only
def test_an_existing_kernel_is_used_for_small_layers():
    parts = []
    for width in (10, 64, 8):
        parts += [layers.Dense(width), Noted(0.72)]
    model, batch = chain(*parts), data(5, classes=8)
    with fusion(least_elements=5 * 4 * 64) as graphs:
        loss_and_gradients(model, *batch)
        WIDTHS.clear()
        model.set_weights([0.5 * weight for weight in model.get_weights()])
        loss_and_gradients(model, *batch)
    assert len(graphs) == 2, "forward and backward"
    # The first layer, whose input is the same at every step, is another kind of loop.
    assert WIDTHS == [10] * 4


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
    model = chain(cell)
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

    def outputs():
        cell = Holding(make(), read)
        return outputs_after_changes(cell, lambda cell: change(cell._held))

    expected = outputs()
    assert (expected[0] != expected[1]).any()
    with fusion():
        np.testing.assert_array_equal(outputs(), expected)


@torch_only
def test_a_changed_cell_is_compiled_again_but_not_at_each_call_if_it_always_changes():
    class Counting(Holding):
        calls = 0

        def step(self, inputs, state):
            self.calls += 1
            return super().step(inputs, state)

    cell, counting = Holding(0.74, lambda held: held), Counting()
    with fusion() as graphs:
        outputs_after_changes(cell, lambda _: setattr(cell, "_held", 0.75), calls=3)
        assert len(graphs) == 2
        # Four steps in each call, and few more that are traced.
        outputs_after_changes(counting, calls=30)
        assert counting.calls <= (30 + 5) * 4


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
        changes = [lambda cell: cell.elsewhere.variable.assign(3.0)]
        with fusion(least_elements=least_elements):
            outputs = outputs_after_changes(cell, *changes, training=True)
            results.append((*outputs, to_numpy(cell.total.value), len(cell.losses)))
    assert_close(*results, rtol=0)


class WithNumPy(Holding):
    def step(self, inputs, state):
        return super().step(ops.convert_to_tensor(to_numpy(inputs) + 0.5), state)


@torch_only
def test_a_cell_that_computes_with_numpy_sees_each_batch():
    results, batches = [], np.random.default_rng(0).random((3, 5, 6), "float32")
    for least_elements in (2**60, 0):
        with fusion(least_elements=least_elements):
            model = chain(WithNumPy())
            results.append([to_numpy(model(batch)) for batch in batches])
    assert_close(*results, rtol=0)


class Renaming(rsnn.layers.NeuronCell):
    """Its state has other names, in another order, after the first step."""

    def initial_state(self, inputs):
        return ops.zeros_like(inputs), ops.ones_like(inputs)

    def step(self, inputs, state):
        is_first = isinstance(state, tuple)
        membrane, gain = state if is_first else (state["membrane"], state["gain"])
        membrane = 0.5 * membrane + inputs * gain
        state = {"gain": 0.9 * gain, "membrane": membrane}
        return membrane, self.fire(membrane), state


@pytest.mark.parametrize(
    ("step_mode", "timesteps", "jit_compile"),
    [("single", 3, False), ("multi", 18, "auto")],
)
def test_a_state_of_another_structure_is_an_error_that_says_which(
    step_mode, timesteps, jit_compile
):
    parts = layers.Dense(8), Renaming(), layers.Dense(4)
    model = chain(*parts, timesteps=timesteps, step_mode=step_mode)
    compiled(model, jit_compile=jit_compile)
    error = (
        r"Renaming must keep its structure.*'gain': \(5, 8\).*after "
        r"NeuronState\(cell=\(\(5, 8\), \(5, 8\)\)"
    )
    settings = {} if BACKEND == "jax" else {"least_elements": 0}
    context = fusion() if BACKEND == "torch" else rsnn.engine_settings(**settings)
    with context, pytest.raises(TypeError, match=error):
        model.train_on_batch(*data(5, classes=4))


@torch_only
def test_attributes_that_change_before_the_backward_pass_are_an_error():
    cell, x = Holding(1.0, lambda held: held), ops.ones((2, 6))
    model = chain(layers.Dense(6), cell)
    with fusion():
        loss = ops.sum(model(x, training=True))
        cell._held = 3.0
        message = "changed between a forward pass and its backward pass"
        with pytest.raises(RuntimeError, match=message):
            loss.backward()
        cell._held = 1.0
        ops.sum(model(x, training=True)).backward()


class DrawingByTorch(rsnn.layers.LIFCell):
    """Draws from PyTorch's own generator."""

    def step(self, inputs, state):
        import torch

        return super().step(inputs * torch.rand_like(inputs), state)


@torch_only
@pytest.mark.parametrize("cell", [DrawingByTorch, Drawing])
def test_a_cell_that_draws_has_the_gradient_of_what_it_drew(cell):
    results = []
    for least_elements in (2**60, 0):
        keras.utils.set_random_seed(0)
        first, last = layers.Dense(4, name="first"), layers.Dense(3, name="last")
        model = chain(first, cell(), last)
        with fusion(least_elements=least_elements) as graphs:
            keras.utils.set_random_seed(1)
            results.append(loss_and_gradients(model, *data(5)))
    assert_same(*results)
    assert not (cell is Drawing and graphs)


@torch_only
def test_bptt_stores_only_the_input_of_a_neuron_layer():
    import torch

    model = chain(layers.Dense(70), rsnn.layers.LIF(), features=50)
    x = ops.convert_to_tensor(np.random.default_rng(0).random((10, 4, 50)), "float32")
    sizes = {}

    def pack(tensor):
        sizes[tensor.data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        with fusion():
            fused = model(x, training=True)
        large = [size for size in sizes.values() if size >= 10 * 70]
        # What the dense layer was given, and what the neurons were.
        assert sorted(large) == [10 * 4 * 50, 10 * 4 * 70]
        eager = model(x, training=True)
    assert_close([fused], [eager], rtol=1e-6)


@pytest.mark.parametrize(("asked", "saved"), [(False, False), (None, "auto")])
def test_jit_compile_is_saved_with_its_original_value(asked, saved):
    model = compiled(spiking(), jit_compile=asked)
    loaded = saved_and_loaded(model)
    assert loaded.get_compile_config()["jit_compile"] == saved
    assert loaded.jit_compile == model.jit_compile


@torch_only
def test_compiled_loops_follow_changes_of_trainable_weights():
    """The number of trainable weights stays the same, but compiled code for another
    weight must not be used."""
    shared = network(NEURONS["ParametricLIF"])
    cells = [layer.cell for layer in shared.layers if hasattr(layer, "cell")]

    def gradients_of(name):
        for cell in cells:
            cell.log_threshold.trainable = name == "log_threshold"
            cell.decay_logit.trainable = name == "decay_logit"
        return loss_and_gradients(spiking(shared, 3), *data(5, (6, 6, 2)))

    expected = gradients_of("decay_logit")
    with fusion():
        gradients_of("log_threshold")
        assert_same(gradients_of("decay_logit"), expected)


def doubling(on_gpu):
    """A graph `x -> 2 x` that is compiled by layout."""
    import torch

    trace = torch.fx.experimental.proxy_tensor.make_fx(lambda x: [x * 2])
    return CompiledByLayout(trace(torch.ones(2, 3)), "a time loop", on_gpu)


@torch_only
def test_a_time_loop_is_compiled_for_each_layout_on_gpus_until_there_are_too_many():
    import torch

    run = doubling(on_gpu=True)
    sizes = [torch.ones(size, 3) for size in (2, *range(2, 30))]
    with recording() as graphs:
        for x in (torch.ones(3, 2).T, *sizes):
            np.testing.assert_array_equal(run(x)[0], 2 * x)
    assert 4 < len(graphs) < 20


@torch_only
def test_no_other_thread_records_or_compiles_while_one_compiles():
    """SymPy makes some of its symbols when they are first asked for, and fails where
    two threads ask at once."""
    import torch
    from torch._dynamo.convert_frame import compile_lock

    could_record = []

    def try_to_record():
        could_record.append(compile_lock.acquire(blocking=False))

    def noticing(graph, tensors):
        another = threading.Thread(target=try_to_record)
        another.start()
        another.join()
        return graph.forward

    x = torch.ones(3, 4)
    with recording(compiler=noticing):
        for on_gpu, tensor in ((False, x), (False, x[:, ::2]), (True, x)):
            doubling(on_gpu)(tensor)
    assert could_record == [False] * 3, "an order of axes, any layout, these sizes"


@torch_only
@needs_compiler
def test_a_time_loop_that_is_compiled_for_an_order_of_axes_is_right_for_all_sizes():
    import torch

    def function(x, weight):
        shifted = x * weight + x[:1]
        return [torch.stack([shifted, x], 1), (shifted * x).sum(0)]

    arguments = []
    for shape in ((2, 3, 4, 4), (5, 4, 2, 7), (1, 2, 3, 3), (3, 1, 5, 1), (2, 1, 4, 4)):
        images = torch.rand(shape).permute(0, 2, 3, 1)
        arguments.append((images, torch.rand(shape[1])))
    trace = torch.fx.experimental.proxy_tensor.make_fx(function)
    run = CompiledByLayout(trace(*arguments[0]), "a loop", False)
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

    created = mock.patch.object(ir.ConcatKernel, "create", return_value="in place")
    with recording(compiler=compiler), created:
        doubling(on_gpu=True)(torch.ones(2, 3))
    assert stacked == ["in place"]
    assert lowering.pointwise_cat is original
    source = inspect.getsource(lowering.cat)
    assert "pointwise_cat(" in source, "PyTorch's lowering of `cat` has changed"


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
    # A loop with a gradient would store all of its steps.
    assert not torch_fusion._fuse_with_others(on_gpu)
