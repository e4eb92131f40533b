"""A training step leaves no tensor in a reference cycle, where it would stay until
Python's garbage collector comes by."""

import gc

import keras
import pytest
from helpers import BACKEND, compiled, data, spiking
from keras import layers

import keras_ratesnn as rsnn
from keras_ratesnn.gradients import SLTT, Rate

if BACKEND != "torch":
    pytest.skip(
        "other backends run compiled functions, which keep no tensors of a step",
        allow_module_level=True,
    )

import torch


def network():
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(4, 3, kernel_regularizer="l2", activity_regularizer="l2")(inputs)
    x = rsnn.layers.LIF(activity_regularizer="l1")(layers.BatchNormalization()(x))
    x = layers.GaussianNoise(0.1, seed=4)(
        layers.Dropout(0.3, seed=3)(layers.MaxPooling2D(2)(x))
    )
    x = rsnn.layers.LIF(learn_threshold=True)(layers.Dense(5)(layers.Flatten()(x)))
    return keras.Model(inputs, layers.Dense(3)(x))


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
    model = compiled(
        spiking(network(), 3, gradient, step_mode=step_mode), jit_compile=jit_compile
    )
    x, y = data(4, (6, 6, 2))
    with rsnn.engine_settings(eager_calls={"auto": 1, True: 1}):
        for _ in range(3):
            model.train_on_batch(x, y)
            model.test_on_batch(x, y)
    # The collector passes over all that exists by now: the model, and what other tests
    # have left.
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        gc.set_debug(gc.DEBUG_SAVEALL)
        model.train_on_batch(x, y)
        model.test_on_batch(x, y)
        gc.collect()
        left = [
            tuple(found.shape)
            for found in gc.garbage
            if issubclass(type(found), torch.Tensor)
        ]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert left == []
