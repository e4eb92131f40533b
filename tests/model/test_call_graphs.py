"""Recorded calls of a model, which are replayed, on PyTorch: the same results as in
eager mode, and never a stale graph."""

import copy
import functools
import gc
import sys
import warnings
import weakref

import keras
import numpy as np
import pytest
import torch
from helpers import (
    RUNS,
    Noted,
    assert_close,
    chain,
    compiled,
    data,
    double_precision,
    in_threads,
    mlp,
    needs_compiler,
    saved_and_loaded,
    spiking,
    to_numpy,
)
from keras import layers, ops
from recorded_calls import (
    METHODS,
    assert_equal_state,
    network,
    pair,
    recording,
    train,
)

import keras_ratesnn as rsnn


def around(make_layer, in_time=False, **arguments):
    """What makes a network in which a layer stands before neurons, and after some if it
    runs in time."""

    def make():
        before = [rsnn.layers.LIF()] if in_time else []
        parts = make_layer(**arguments), rsnn.layers.LIF(), layers.Dense(3)
        return chain(layers.Dense(6), *before, *parts)

    return make


class AddsMean(layers.Layer):
    """Adds a loss, draws numbers, and takes the time step."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.generator = keras.random.SeedGenerator(0)

    def call(self, inputs, time_step=None):
        self.add_loss(ops.mean(inputs))
        noise = keras.random.uniform(ops.shape(inputs), seed=self.generator)
        return inputs + 0.1 * ops.cast(noise, inputs.dtype)


class MergesIfWrong(layers.Layer):
    """Equal expressions, of which one is changed in place; zeros of different signs."""

    def call(self, inputs):
        changed, other = torch.zeros_like(inputs), torch.zeros_like(inputs)
        changed.add_(inputs.detach())
        signs = torch.copysign(torch.ones(()), torch.full((), -0.0))
        signs = signs + torch.copysign(torch.ones(()) * 2, torch.full((), 0.0))
        return inputs + changed + other + signs


class AssignsAndReads(layers.Layer):
    """A variable that it assigns and reads, and one that has the other's value
    before."""

    def build(self, shape):
        self.now = self.add_weight(shape=(6,), initializer="ones", trainable=False)
        self.before = self.add_weight(shape=(6,), initializer="zeros", trainable=False)

    def call(self, inputs):
        self.before.assign(self.now)
        self.now.assign(ops.mean(ops.square(inputs), axis=0))
        return inputs / (0.5 + self.now)


def padded_frames():
    """Masks, layers that are used twice, once in a network of their own, losses of
    layers, frozen statistics, weights adapted by low rank, and a mean of time."""
    inputs = keras.Input((4, 2))
    dense = layers.Dense(8, activity_regularizer="l2")
    neurons = rsnn.layers.LIF(threshold=0.3, activity_regularizer="l1")
    block = keras.Sequential([keras.Input((4, 8)), dense, neurons])
    again = AddsMean()(block(layers.Dense(8)(inputs)))
    frozen = layers.BatchNormalization(trainable=False)
    x = layers.BatchNormalization()(frozen(layers.Masking()(inputs)))
    x = layers.GlobalAveragePooling1D()(neurons(dense(layers.Dense(8)(x))))
    dense.enable_lora(2)
    x = layers.Concatenate()([x, layers.Flatten()(again)])
    return keras.Model(inputs, layers.Dense(3)(rsnn.layers.TimeMean()(x)))


LAST_OF_SLTT = rsnn.gradients.SLTT(random_steps=1)

PADDED = {"mask_value": np.nan}

COMPILED = {"jit_compile": True}

CASES = [(network, *method, {}) for method in METHODS]
CASES += [(network, "rate", "multi", COMPILED), (network, "bptt", "single", COMPILED)]
CASES += [(network, LAST_OF_SLTT, "multi", {})]
CASES += [(network, LAST_OF_SLTT, "single", COMPILED)]
CASES += [(padded_frames, "rate", "multi", PADDED)]
CASES += [(padded_frames, "bptt", "single", PADDED)]
CASES += [
    (around(layer), "bptt", "multi", {}) for layer in (MergesIfWrong, AssignsAndReads)
]


def batch_of(model, seed):
    """A static one, or a padded one of frames."""
    shape = model.network.input_shape[1:]
    if model.mask_value is None:
        x, y = data(4, shape, seed=seed)
    else:
        x, y = data(4, (model.timesteps, *shape), seed=seed)
        x[:, :, 3], x[1:3, 1:] = 0.0, np.nan
    return x.astype("float64"), y


def name_of(value):
    return getattr(value, "__name__", str(value))


@pytest.mark.parametrize(
    ("make", "gradient", "step_mode", "arguments"), CASES, ids=name_of
)
def test_training_is_that_of_eager_mode_step_by_step(
    make, gradient, step_mode, arguments
):
    # Two windows of two steps would be BPTT.
    timesteps = 3 if isinstance(gradient, rsnn.gradients.Rate) else 2
    with double_precision(), recording():
        models = pair(make, timesteps, gradient, step_mode=step_mode, **arguments)
        for step in range(4):
            batch = batch_of(models[0], step)
            losses = [model.train_on_batch(*batch) for model in models]
            assert losses[1] == pytest.approx(losses[0], rel=1e-9)
            assert_equal_state(*models)
        engines = [model.execution for model in models]
        assert engines == ["eager", "compiled" if arguments is COMPILED else "recorded"]


class Freezes(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 3:
            self.model.get_layer("logits").trainable = False


def test_a_long_run_with_all_that_changes_in_one_is_that_of_eager_mode():
    """Noise, a learning rate schedule, a layer that is frozen half-way, validation, a
    last batch that is smaller."""
    histories = []
    x, y = data(4 * 5 + 2, (6, 6, 2))
    x = x.astype("float64")
    options = {"batch_size": 4, "epochs": 5, "verbose": 0}
    options |= {"validation_data": (x[:6], y[:6]), "callbacks": [Freezes()]}
    with double_precision(), recording():
        models = pair(timesteps=2)
        for model in models:
            keras.utils.set_random_seed(1)
            schedule = keras.optimizers.schedules.CosineDecay(0.1, 80)
            optimizer = keras.optimizers.SGD(schedule, momentum=0.9)
            jit_compile = "auto" if histories else False
            compiled(model, optimizer, jit_compile=jit_compile)
            histories.append(model.fit(x, y, **options).history)
        assert_close(histories[1], histories[0], rtol=1e-9)
        assert_equal_state(*models)
        assert models[1].execution == "recorded"


def test_a_replay_runs_no_python_code_of_layers():
    """Which begins after some calls."""
    _, model = pair(around(Noted))
    x, y = data()
    with rsnn.engine_settings() as settings:
        for _ in range(settings["eager_calls"]["auto"]):
            model.train_on_batch(x, y)
    assert model.execution == "eager"
    model.train_on_batch(x, y)
    RUNS.clear()
    for _ in range(3):
        model.train_on_batch(x, y)
    assert model.execution == "recorded"
    assert not RUNS


@pytest.mark.parametrize("gradient", ["rate", "sltt", "ottt", "bptt"])
def test_what_a_graph_stores_for_its_backward_pass_grows_with_time_only_for_bptt(
    gradient,
):
    def stored(timesteps):
        sizes = {}

        def pack(tensor):
            storage = tensor.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
            return tensor

        _, model = pair(mlp, timesteps, gradient, step_mode="single")
        x = ops.convert_to_tensor(data()[0])
        for _ in range(2):
            model(x, training=True)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model(x, training=True)
        assert model.execution == "recorded"
        return sum(sizes.values())

    with recording():
        assert (stored(6) > 1.5 * stored(2)) == (gradient == "bptt")


class DependsOnValues(layers.Layer):
    def call(self, inputs):
        return inputs * 2.0 if float(ops.sum(inputs)) > 0 else inputs


class HasDropout(layers.Layer):
    """Draws the same numbers at each step, from PyTorch's own generator."""

    def build(self, shape):
        self.dropout = layers.Dropout(0.5)

    def call(self, inputs, training=False):
        return self.dropout(inputs, training=training)


class DrawsWithoutSeed(layers.Layer):
    """Draws other numbers at each step."""

    def call(self, inputs, training=False):
        return inputs + keras.random.uniform(ops.shape(inputs)) if training else inputs


class HasArray(layers.Layer):
    def build(self, shape):
        self.scale = np.full((6,), 0.5, "float32")

    def call(self, inputs):
        return inputs * ops.convert_to_tensor(self.scale)


class ChangesItself(layers.Layer):
    def call(self, inputs):
        self.last = inputs
        return inputs * 1.0


class HasGenerator(layers.Layer):
    """Draws from a generator whose state is not an attribute."""

    def build(self, shape):
        self.random = np.random.default_rng(0)

    def call(self, inputs):
        return inputs * float(self.random.random())


class AddsInPlace(layers.Layer):
    def build(self, shape):
        self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, inputs):
        with torch.no_grad():
            self.calls.value.add_(1.0)
        return inputs * 1.0


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (DependsOnValues, "DataDependent"),
        (HasGenerator, "attribute 'random' of layer 'special' is of type Generator"),
        (HasDropout, "keras.layers.Dropout without a seed"),
        (HasArray, "attribute 'scale'"),
        # Keras' own generator.
        (DrawsWithoutSeed, "does not belong to the network"),
        (AddsInPlace, "in place"),
    ],
)
def test_what_cannot_be_recorded_runs_in_eager_mode_after_one_warning(layer, reason):
    """The call that fails to be recorded has its effects once."""
    results, models = [], pair(around(layer, in_time=True, name="special"))
    with recording(), warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        for model in models:
            keras.utils.set_random_seed(2)
            batches = [data(seed=step) for step in range(5)]
            results.append([model.train_on_batch(*batch) for batch in batches])
            assert model.execution == "eager"
    messages = [str(warning.message) for warning in raised]
    (message,) = [text for text in messages if "eager mode" in text]
    assert reason in message
    assert "jit_compile=False" in message
    np.testing.assert_allclose(*results, rtol=1e-6)
    assert_equal_state(*models, rtol=1e-5)


def test_a_layer_that_keeps_its_last_input_keeps_a_real_one_and_no_earlier_one():
    keeps, past = ChangesItself(), []
    model = compiled(spiking(chain(keeps, rsnn.layers.LIF(), layers.Dense(3))))
    with recording():
        for step in range(8):
            x, y = data(seed=step)
            model.train_on_batch(x, y)
            np.testing.assert_array_equal(to_numpy(keeps.last), x)
            past.append(weakref.ref(keeps.last))
    gc.collect()
    assert sum(reference() is not None for reference in past) < len(past) / 2


def test_hooks_of_layers_are_called_even_if_they_come_after_a_recording():
    calls = []
    _, model = pair(mlp)
    with recording():
        train([model], *data())
        assert model.execution == "recorded"
        model.network.layers[1].register_forward_hook(lambda *_: calls.append(1))
        model.train_on_batch(*data())
        assert len(calls) == 1
        with pytest.warns(UserWarning, match="has hooks"):
            train([model], *data())
    assert len(calls) == 5


def test_inputs_in_another_memory_layout_or_with_time_have_their_own_graph():
    x, with_time = (
        ops.convert_to_tensor(data(4, shape)[0]) for shape in ((6, 6, 2), (3, 6, 6, 2))
    )
    transposed = x.transpose(1, 2).contiguous().transpose(1, 2)
    with recording():
        eager, recorded = pair()
        for inputs in [x, transposed, with_time] * 3:
            outputs = [to_numpy(model(inputs)) for model in (eager, recorded)]
            np.testing.assert_allclose(*outputs, rtol=1e-5, atol=1e-6)
        assert recorded.execution == "recorded"


def test_a_saved_or_copied_model_records_its_own_graphs():
    x, y = data()
    with recording():
        _, model = pair(mlp)
        train([model], x, y)
        for other in (saved_and_loaded(model), copy.deepcopy(model)):
            assert other.execution == "eager"
            outputs = other.predict(x, verbose=0), model.predict(x, verbose=0)
            np.testing.assert_allclose(*outputs, rtol=1e-5, atol=1e-6)
            train([other], x, y)
            assert other.execution == "recorded"


def test_only_the_latest_kinds_of_calls_are_remembered():
    with recording(eager_calls=0) as graphs:
        _, model = pair(mlp, jit_compile=True)

        def compilations(samples):
            before = len(graphs)
            for _ in range(2):
                model(ops.convert_to_tensor(data(samples)[0]))
            return len(graphs) - before

        assert all(compilations(samples) for samples in range(1, 19))
        assert not compilations(18)
        assert compilations(1)


def test_threads_trace_neuron_loops_record_and_replay_at_once():
    x = ops.convert_to_tensor(data(4, (6, 6, 2))[0])
    failed = []

    def run(model, outputs):
        for _ in range(5):
            if not np.allclose(to_numpy(model(x)), outputs, rtol=1e-5, atol=1e-6):
                failed.append(model)

    with recording(least_elements=1):
        cases = []
        for _ in range(2):
            eager, recorded = pair()
            cases.append((recorded, to_numpy(eager(x))))
        in_threads(run, cases * 2)
        assert not failed
        for model, _ in cases:
            model(x)
            assert model.execution == "recorded"


def test_gradients_outside_of_fit_are_those_of_eager_mode():
    """And losses of layers, which are in their layers. The upstream gradient is one
    number in memory."""
    x = data(4, (6, 6, 2))[0].astype("float64")
    with double_precision(), recording():
        models = pair(gradient="bptt")
        for _ in range(3):
            results = []
            for model in models:
                inputs = torch.tensor(x, requires_grad=True)
                total = ops.sum(model(inputs, training=True)) + sum(model.losses)
                weights = [weight.value for weight in model.trainable_variables]
                gradients = torch.autograd.grad(total, [inputs, *weights])
                losses = [layer.losses for layer in model.network.layers]
                results.append((gradients, losses))
            (expected, expected_losses), (gradients, losses) = results
            assert all(gradient.any() for gradient in expected)
            assert_close(gradients, expected, rtol=1e-9, atol=1e-12)
            keras.tree.assert_same_structure(losses, expected_losses)
            losses = keras.tree.flatten(losses)
            assert len(losses) == 3
            assert_close(losses, keras.tree.flatten(expected_losses), rtol=1e-9)
        assert model.execution == "recorded"


@needs_compiler
def test_a_compiled_graph_gives_the_results_of_eager_mode(caplog):
    with double_precision(), recording(compiler="inductor"):
        eager, recorded = pair(jit_compile=True)
        for step in range(4):
            x, y = data(4, (6, 6, 2), seed=step)
            losses = [model.train_on_batch(x, y) for model in (eager, recorded)]
            assert losses[1] == pytest.approx(losses[0], rel=1e-8)
        assert_equal_state(eager, recorded, rtol=1e-7, atol=1e-8)
        assert recorded.execution == "compiled"
        # What was compiled is kept on disk. (In its first process PyTorch may find only
        # one of the two graphs.)
        torch._dynamo.utils.counters.clear()
        train(pair(jit_compile=True)[1:], x, y)
        assert torch._dynamo.utils.counters["inductor"]["fxgraph_cache_hit"] >= 1
    assert "Compiling the forward pass of model" in caplog.text


@torch.library.custom_op("keras_ratesnn_tests::halves", mutates_args=())
def halves(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    return [tensor / 2 for tensor in tensors]


halves.register_fake(lambda tensors: [torch.empty_like(tensor) for tensor in tensors])

halves.register_autograd(
    lambda ctx, gradients: [gradient / 2 for gradient in gradients]
)


class CallsAnOperationOfItsOwn(layers.Layer):
    def call(self, inputs):
        return halves([inputs])[0] if torch.is_tensor(inputs) else inputs


@pytest.mark.skipif(sys.platform != "linux", reason="C++ runs graphs on Linux only")
@pytest.mark.parametrize(
    ("layer", "in_cpp"),
    [(layers.Identity, [True, True]), (CallsAnOperationOfItsOwn, [False, True])],
)
def test_cpp_runs_graphs_without_operations_of_other_libraries(layer, in_cpp):
    """A list of one tensor, as `halves` returns, ends in a crash in PyTorch 2.13. Its
    derivative has no such operation."""
    from torch._inductor import config

    chosen = []

    def compiler(graph, tensors):
        chosen.append(config.cpp_wrapper)
        return graph

    with recording(compiler=compiler):
        losses = train(pair(around(layer), jit_compile=True), *data(4))
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
    assert chosen == in_cpp


def test_no_operation_of_a_graph_has_a_list_of_one_result():
    """C++ that runs graphs crashes where it meets one."""
    x, y = data(4)
    with recording(least_elements=0) as graphs:
        _, model = pair(around(layers.Identity), gradient="bptt", jit_compile=True)
        train([model], x, y)
        for _ in range(2):
            model.predict_on_batch(x)
    lengths = set()
    for graph in graphs:
        for node in graph.graph.nodes:
            result = node.meta.get("val") if node.op == "call_function" else None
            if isinstance(result, (list, tuple)):
                lengths.add(len(result))
    assert lengths
    assert 1 not in lengths


def test_without_a_compiler_graphs_are_replayed_after_one_warning_for_each():
    def broken(graph, inputs):
        raise RuntimeError("no compiler here\nand much more to say")

    models = pair(mlp, jit_compile=True)
    warned = pytest.warns(UserWarning, match="could not compile")
    with recording(compiler=broken), warned as raised:
        losses = train(models, *data())
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
    assert models[1].execution == "recorded"
    messages = [str(warning.message) for warning in raised]
    for part in ("forward", "backward"):
        beginning = f"PyTorch could not compile the {part} pass"
        (message,) = [text for text in messages if text.startswith(beginning)]
        assert "no compiler here" in message


@pytest.mark.parametrize(
    ("make", "arguments", "reason"),
    [
        (mlp, {"gradient": "bptt"}, "recorded graphs"),
        (
            mlp,
            {"gradient": "sltt", "step_mode": "single", "jit_compile": False},
            'step_mode="multi"',
        ),
        (network, {"jit_compile": False}, "without batch normalization"),
    ],
)
def test_second_derivatives_are_an_error_that_names_the_way_out(
    make, arguments, reason
):
    """Also where the upstream gradient is a constant."""
    with recording():
        _, model = pair(make, **arguments)
        x = data(4, model.network.input_shape[1:])[0]
        x = torch.tensor(x, requires_grad=True)
        for _ in range(3):
            outputs = model(x, training=True)
        with pytest.raises(RuntimeError, match=reason):
            torch.autograd.grad(ops.sum(outputs), x, create_graph=True)


@pytest.mark.parametrize("jit_compile", ["auto", True])
def test_a_retained_graph_can_be_differentiated_again(jit_compile):
    x, _ = data()
    with double_precision(), recording():
        _, model = pair(mlp, jit_compile=jit_compile)
        for _ in range(3):
            loss = ops.mean(model(x, training=True) ** 2)
            model.zero_grad()
            loss.backward(retain_graph=True)
        weight = model.trainable_variables[0].value
        once = weight.grad.clone()
        loss.backward()
        torch.testing.assert_close(weight.grad, 2 * once, rtol=1e-12, atol=0.0)
        assert model.execution != "eager"
        with pytest.raises(RuntimeError, match="a second time"):
            loss.backward()


def test_what_runs_in_autocast_is_not_replayed_outside():
    x = ops.convert_to_tensor(data(4, (6,))[0])
    with recording():
        eager, model = pair(mlp)
        for _ in range(3):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                model(x)
        np.testing.assert_array_equal(to_numpy(model(x)), to_numpy(eager(x)))


class DrawsInManyWays(layers.Layer):
    """Draws from PyTorch's own generator: two results, into new memory, without tensors
    and by their values."""

    def call(self, x, training=False):
        if not training:
            return x
        kept, _ = torch.native_dropout(x, 0.3, True)
        noise = torch.empty_like(x).uniform_(-0.1, 0.1)
        noise = noise + torch.randn(x.shape[-1], dtype=x.dtype, device=x.device)
        return (kept + noise) * torch.bernoulli(torch.full_like(x, 0.5))


class DrawsAPart(layers.Layer):
    def call(self, x, training=False):
        noise = torch.zeros_like(x)
        noise[:, 1].uniform_(-0.1, 0.1)
        return x + noise if training else x


class DrawsWhatHasNoDerivative(layers.Layer):
    """The last draw of a call by rate is that of its derivative, which does not need
    it."""

    def call(self, x, training=False):
        if training:
            x = x + torch.randn(x.shape[-1], dtype=x.dtype, device=x.device)
        return x


@pytest.mark.parametrize(
    ("layer", "step_mode", "engine"),
    [
        (functools.partial(layers.GaussianNoise, 0.2), "multi", "recorded"),
        (functools.partial(layers.AlphaDropout, 0.2), "single", "recorded"),
        (DrawsAPart, "multi", "recorded"),
        (DrawsWhatHasNoDerivative, "multi", "recorded"),
        pytest.param(DrawsInManyWays, "multi", "compiled", marks=needs_compiler),
    ],
    ids=str,
)
def test_a_compiled_graph_draws_the_numbers_of_eager_mode_without_seeds(
    layer, step_mode, engine
):
    """From PyTorch's own generator: other numbers in each batch."""

    def make():
        noise = layers.GaussianNoise(0.1), layers.Dropout(0.3)
        first = layers.Dropout(0.3), layers.Dense(6), rsnn.layers.LIF()
        last = layers.Dense(6), layer(), rsnn.layers.LIF(), layers.Dropout(0.5)
        return chain(*first, *noise, *last, layers.Dense(3))

    x, y = data()
    jit_compile = "auto" if isinstance(layer, functools.partial) else True
    results = []
    with double_precision(), recording(compiler="inductor"):
        for model in pair(make, step_mode=step_mode, jit_compile=jit_compile):
            keras.utils.set_random_seed(1)
            losses = [model.train_on_batch(x, y) for _ in range(5)]
            results.append((losses, torch.get_rng_state().tolist()))
        assert model.execution == engine
    (expected, expected_state), (losses, state) = results
    assert state == expected_state
    assert losses == pytest.approx(expected, rel=1e-8)
    assert len(set(expected)) == 5


def test_training_and_validation_by_turns_are_each_recorded_once():
    """PyTorch's modules have another attribute in each."""
    with recording() as graphs:
        _, model = pair(mlp, jit_compile=True)
        x, y = data(8)
        model.fit(x, y, batch_size=4, epochs=3, validation_data=(x, y), verbose=0)
        assert len(graphs) == 3, "forward and backward, and inference"
        model.fit(x, y, batch_size=4, epochs=3, validation_data=(x, y), verbose=0)
        assert len(graphs) == 3
