"""CUDA graphs of recorded calls, on PyTorch, with a stand-in for CUDA's: who owns the
memory that a replay overwrites."""

import gc
import weakref
from typing import ClassVar

import numpy as np
import pytest
from helpers import BACKEND, assert_close, compiled, data, mlp, spiking, to_numpy

if BACKEND != "torch":
    pytest.skip("only PyTorch has CUDA graphs", allow_module_level=True)

import keras
import torch
from keras import layers
from recorded_calls import assert_equal_state, pair, recording, train

import keras_ratesnn as rsnn
from keras_ratesnn._core.backend.torch.recorder import cuda_graphs
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
    return [graph().replays for graph in Graph.made if graph() is not None]


def small(features=6):
    inputs = keras.Input((features,))
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


def gradients(model, losses):
    model.zero_grad()
    for loss in losses:
        loss.backward()
    return [to_numpy(variable.value.grad) for variable in model.trainable_variables]


def loss_of(model, x):
    return torch.square(model(torch.tensor(x), training=True)).sum()


@pytest.mark.parametrize(
    ("gradient", "step_mode"),
    [("rate", "multi"), ("rate", "single"), ("bptt", "multi")],
)
@pytest.mark.parametrize("jit_compile", ["auto", True])
def test_training_is_that_of_eager_mode(gradient, step_mode, jit_compile):
    eager, captured = pair(
        small, gradient=gradient, step_mode=step_mode, jit_compile=jit_compile
    )
    for x, y in batches(6):
        assert captured.train_on_batch(x, y) == pytest.approx(
            eager.train_on_batch(x, y), rel=1e-5
        )
    assert_equal_state(eager, captured, 1e-5, 1e-6)
    # One call in eager mode, one records, the next is the first of its kind: three are
    # replayed.
    assert replays() == [3, 3]


def test_calls_before_a_backward_pass_have_each_their_own_values():
    eager, captured = warmed(*pair(small))
    (one, _), (two, _) = batches(2)
    found, expected = (
        gradients(model, [loss_of(model, one), loss_of(model, two)])
        for model in (captured, eager)
    )
    assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_a_backward_pass_can_be_repeated_until_its_values_are_released():
    eager, captured = warmed(*pair(small))
    x, other = (x for x, _ in batches(2))
    results = []
    for model in (captured, eager):
        loss = loss_of(model, x)
        model.zero_grad()
        loss.backward(retain_graph=True)
        loss_of(model, other)
        loss.backward()
        results.append(
            [to_numpy(variable.value.grad) for variable in model.trainable_variables]
        )
    assert_close(*results, rtol=1e-4, atol=1e-6)
    before = replays()
    gradients(captured, [loss_of(captured, x)])
    assert [now - then for now, then in zip(replays(), before, strict=True)] == [1, 1]


def test_outputs_and_gradients_keep_their_values_in_later_calls():
    (captured,) = warmed(compiled(spiking(small())))
    one, two = (torch.tensor(x) for x, _ in batches(2))
    outputs = captured(one, training=True)
    outputs.sum().backward()
    kept = [
        outputs.detach(),
        *(variable.value.grad for variable in captured.trainable_variables),
    ]
    values = [tensor.clone() for tensor in kept]
    captured.zero_grad()
    captured(two, training=True).sum().backward()
    assert all(
        torch.equal(tensor, value) for tensor, value in zip(kept, values, strict=True)
    )


def test_gradients_of_several_batches_add_up():
    eager, captured = warmed(*pair(small))
    totals = []
    for model in (captured, eager):
        model.zero_grad()
        for x, _ in batches(3):
            loss_of(model, x).backward()
        totals.append(
            [to_numpy(variable.value.grad) for variable in model.trainable_variables]
        )
    assert_close(*totals, rtol=1e-4, atol=1e-6)


def test_weights_that_are_assigned_loaded_or_moved_are_seen(tmp_path):
    eager, captured = warmed(*pair(small))
    x, y = data(4)
    weights = [value + 0.1 for value in captured.get_weights()]
    for model in (eager, captured):
        model.set_weights(weights)
    assert captured.train_on_batch(x, y) == pytest.approx(
        eager.train_on_batch(x, y), rel=1e-5
    )
    assert replays() == [2, 2]
    for model in (eager, captured):
        kernel = model.network.layers[1].kernel.value
        kernel.data = kernel.data * 2
    assert captured.train_on_batch(x, y) == pytest.approx(
        eager.train_on_batch(x, y), rel=1e-5
    )
    assert len(Graph.made) == 4
    captured.save_weights(tmp_path / "one.weights.h5")
    for model in (eager, captured):
        model.load_weights(tmp_path / "one.weights.h5")
    assert captured.train_on_batch(x, y) == pytest.approx(
        eager.train_on_batch(x, y), rel=1e-5
    )


def test_inference_and_training_have_each_their_graphs():
    (model,) = warmed(compiled(spiking(small())))
    x, y = data(4)
    expected = model.predict_on_batch(x)
    for _ in range(4):
        np.testing.assert_allclose(model.predict_on_batch(x), expected, rtol=1e-6)
    assert len(Graph.made) == 3
    before = replays()
    model.train_on_batch(x, y)
    assert [now - then for now, then in zip(replays(), before, strict=True)] == [
        1,
        1,
        0,
    ]


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
        inputs = keras.Input((6,))
        return keras.Model(
            inputs,
            layers.Dense(3)(
                rsnn.layers.LIF()(layers.GaussianNoise(0.1, seed=0)(inputs))
            ),
        )

    eager, recorded = train(pair(noisy), *data(4))
    assert recorded == pytest.approx(eager, rel=1e-5)
    assert len(set(recorded)) == len(recorded)
    assert Graph.made == []


def test_replicas_exchange_statistics_without_them(monkeypatch):
    monkeypatch.setattr(replicas, "count", lambda: 2)
    assert cuda_graphs.why_not([], [torch.ones(1)]) == "replicas exchange statistics"


def test_they_are_only_for_tensors_on_one_gpu(monkeypatch):
    monkeypatch.setattr(cuda_graphs, "KIND_OF_DEVICE", "cuda")
    train([compiled(spiking(mlp()))], *data(4))
    assert Graph.made == []


def test_an_environment_variable_turns_them_off(monkeypatch):
    monkeypatch.setenv("KERAS_RATESNN_CUDA_GRAPHS", "0")
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
