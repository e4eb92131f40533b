"""A training step or a call leaves no tensor in a reference cycle, where it would stay
until Python's garbage collector comes by."""

import gc

import pytest
import torch
from helpers import compiled, data, spiking
from recorded_calls import network

import keras_ratesnn as rsnn
from keras_ratesnn.gradients import SLTT, Rate


@pytest.mark.parametrize(
    ("gradient", "step_mode", "jit_compile"),
    [
        (Rate(windows=2), "multi", False),
        ("rate", "single", False),
        ("rate", "single", "auto"),
        ("bptt", "multi", False),
        ("sltt", "single", False),
        (SLTT(random_steps=2), "multi", False),
        ("ottt", "single", False),
    ],
    ids=str,
)
def test_a_step_leaves_no_tensor_in_a_cycle(gradient, step_mode, jit_compile):
    model = spiking(network(), 3, gradient, step_mode=step_mode)
    compiled(model, jit_compile=jit_compile)
    x, y = data(4, (6, 6, 2))

    def step():
        model.train_on_batch(x, y)
        model.test_on_batch(x, y)
        model(x)
        model.step(x)

    with rsnn.engine_settings(eager_calls={"auto": 1, True: 1}):
        for _ in range(3):
            step()
    # The collector passes over all that exists by now: the model, and what other tests
    # have left.
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        gc.set_debug(gc.DEBUG_SAVEALL)
        step()
        gc.collect()
        left = [one for one in gc.garbage if issubclass(type(one), torch.Tensor)]
        shapes = [tuple(tensor.shape) for tensor in left]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert shapes == []
