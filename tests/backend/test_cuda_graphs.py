"""CUDA graphs of recorded calls, on PyTorch, with a stand-in for CUDA's: who owns the
memory that a replay overwrites."""

import gc
import weakref
from typing import ClassVar

import keras
import numpy as np
import pytest
import torch
from helpers import assert_close, compiled, data, mlp, spiking, to_numpy
from keras import layers
from recorded_calls import assert_equal_state, pair, recording, train

import keras_ratesnn as rsnn
from keras_ratesnn._core.backend.torch.graphs.recorder import cuda_graphs
from keras_ratesnn._core.backend.torch.replicas import replicas


class Graph:
    """Runs its function again, and writes the results to the same memory, as the
    kernels of a CUDA graph would."""

    made: ClassVar[list] = []

    def __init__(self, function, pool):
        self._function, self.pool, self.replays = function, pool or object(), 0
        self.results = list(function())
        self.made.append(weakref.ref(self))

    def replay(self):
        self.replays += 1
        for place, value in zip(self.results, self._function(), strict=True):
            # What an argument is stays where it is.
            if place is not value:
                place.detach().copy_(value)


@pytest.fixture(autouse=True)
def graphs(monkeypatch):
    monkeypatch.setattr(cuda_graphs, "CudaGraph", Graph)
    monkeypatch.setattr(cuda_graphs, "KIND_OF_DEVICE", "cpu")
    Graph.made.clear()
    with recording(calls_in_a_row=1):
        yield


def replays():
    graphs = [graph() for graph in Graph.made]
    return [graph.replays for graph in graphs if graph is not None]


def small():
    inputs = keras.Input((6,))
    x = rsnn.layers.LIF()(layers.BatchNormalization()(layers.Dense(8)(inputs)))
    return keras.Model(inputs, layers.Dense(3)(x))


def batches(count, samples=4):
    return [data(samples, seed=seed) for seed in range(count)]


def warmed(*models):
    """Models whose next call in training mode replays a CUDA graph."""
    for x, y in batches(4):
        for model in models:
            model.train_on_batch(x, y)
    assert len(Graph.made) == 2
    return models


def gradients(model, *losses, repeated=False):
    """The sums of the gradients of losses; those of the first one are found before
    another call."""
    model.zero_grad()
    for loss in losses:
        loss.backward(retain_graph=repeated)
    if repeated:
        loss_of(model, data(4, seed=1)[0])
        losses[0].backward()
    return found_gradients(model)


def found_gradients(model):
    return [to_numpy(variable.value.grad) for variable in model.trainable_variables]


def loss_of(model, x):
    return torch.square(model(torch.tensor(x), training=True)).sum()


@pytest.mark.parametrize(
    ("gradient", "step_mode"),
    [("rate", "multi"), ("rate", "single"), ("bptt", "multi")],
)
@pytest.mark.parametrize("jit_compile", ["auto", True])
def test_training_is_that_of_eager_mode(gradient, step_mode, jit_compile):
    options = {"step_mode": step_mode, "jit_compile": jit_compile}
    eager, captured = pair(small, gradient=gradient, **options)
    for batch in batches(6):
        expected = pytest.approx(eager.train_on_batch(*batch), rel=1e-5)
        assert captured.train_on_batch(*batch) == expected
    assert_equal_state(eager, captured, 1e-5, 1e-6)
    # One call in eager mode, one records, the next is the first of its kind: three are
    # replayed.
    assert replays() == [3, 3]


def two_calls_then_backward(model, one, two):
    return gradients(model, loss_of(model, one), loss_of(model, two))


def backward_twice(model, one, two):
    return gradients(model, loss_of(model, one), repeated=True)


def batch_after_batch(model, *batches):
    model.zero_grad()
    for x in batches:
        loss_of(model, x).backward()
    return found_gradients(model)


@pytest.mark.parametrize(
    "use", [two_calls_then_backward, backward_twice, batch_after_batch]
)
def test_gradients_are_those_of_eager_mode_whatever_the_order_of_passes(use):
    eager, captured = warmed(*pair(small))
    inputs = [x for x, _ in batches(2)]
    found, expected = (use(model, *inputs) for model in (captured, eager))
    assert_close(found, expected, rtol=1e-4, atol=1e-6)
    # Values that a backward pass released are written over again.
    before = replays()
    gradients(captured, loss_of(captured, inputs[0]))
    assert [now - then for now, then in zip(replays(), before, strict=True)] == [1, 1]


def test_outputs_and_gradients_keep_their_values_in_later_calls():
    (captured,) = warmed(compiled(spiking(small())))
    one, two = (torch.tensor(x) for x, _ in batches(2))
    outputs = captured(one, training=True)
    outputs.sum().backward()
    weights = [variable.value for variable in captured.trainable_variables]
    tensors = [outputs.detach(), *(weight.grad for weight in weights)]
    values = [tensor.clone() for tensor in tensors]
    captured.zero_grad()
    captured(two, training=True).sum().backward()
    assert_close(tensors, values, rtol=0)


def test_weights_that_are_assigned_loaded_or_moved_are_seen(tmp_path):
    eager, captured = models = warmed(*pair(small))
    batch, path = data(4), tmp_path / "one.weights.h5"

    def assert_same_loss():
        expected = pytest.approx(eager.train_on_batch(*batch), rel=1e-5)
        assert captured.train_on_batch(*batch) == expected

    weights = [value + 0.1 for value in captured.get_weights()]
    for model in models:
        model.set_weights(weights)
    assert_same_loss()
    assert replays() == [2, 2]
    for model in models:
        kernel = model.network.layers[1].kernel.value
        kernel.data = kernel.data * 2
    assert_same_loss()
    assert len(Graph.made) == 4
    captured.save_weights(path)
    for model in models:
        model.load_weights(path)
    assert_same_loss()


def test_inference_and_training_have_each_their_graphs():
    (model,) = warmed(compiled(spiking(small())))
    x, y = data(4)
    expected = model.predict_on_batch(x)
    for _ in range(4):
        np.testing.assert_allclose(model.predict_on_batch(x), expected, rtol=1e-6)
    training, _, inference = replays()
    model.train_on_batch(x, y)
    assert replays() == [training + 1, training + 1, inference]


def test_a_kind_of_call_that_others_interrupt_has_no_memory_of_its_own():
    (model,) = warmed(compiled(spiking(small())))
    (x, y), (fewer, labels) = data(4), data(3)
    for _ in range(6):
        model.train_on_batch(x, y)
        model.train_on_batch(fewer, labels)
    assert len(Graph.made) == 2
    for _ in range(3):
        model.train_on_batch(fewer, labels)
    assert len(Graph.made) == 4
    gc.collect()
    assert len(replays()) == 2


def test_the_memory_is_freed_with_the_model():
    model = compiled(spiking(small()))
    warmed(model)
    del model
    keras.backend.clear_session()
    gc.collect()
    assert replays() == []


def test_noise_is_drawn_anew_without_them():
    def noisy():
        noise = layers.GaussianNoise(0.1, seed=0)
        parts = [keras.Input((6,)), noise, rsnn.layers.LIF(), layers.Dense(3)]
        return keras.Sequential(parts)

    eager, recorded = train(pair(noisy), *data(4))
    assert recorded == pytest.approx(eager, rel=1e-5)
    assert len(set(recorded)) == len(recorded)
    assert Graph.made == []


def test_replicas_exchange_statistics_without_them(monkeypatch):
    monkeypatch.setattr(replicas, "count", lambda: 2)
    assert cuda_graphs.why_not([], [torch.ones(1)]) == "replicas exchange statistics"


@pytest.mark.parametrize("is_off", [False, True])
def test_they_are_only_for_tensors_on_one_gpu_and_can_be_turned_off(
    monkeypatch, is_off
):
    if is_off:
        monkeypatch.setenv("KERAS_RATESNN_CUDA_GRAPHS", "0")
    else:
        monkeypatch.setattr(cuda_graphs, "KIND_OF_DEVICE", "cuda")
    train([compiled(spiking(mlp()))], *data(4))
    assert Graph.made == []


def test_where_kernels_cannot_be_captured_the_graph_runs_as_before(monkeypatch):
    tried = []

    def fails(function, pool):
        tried.append(1)
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(cuda_graphs, "CudaGraph", fails)
    eager, recorded = train(pair(small), *data(4), steps=5)
    assert recorded == pytest.approx(eager, rel=1e-5)
    assert len(tried) == 1
