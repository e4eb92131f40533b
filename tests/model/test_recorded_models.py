"""Ordinary Keras models whose calls are recorded: on PyTorch they are replayed, and
train and predict as before."""

import copy

import keras
import numpy as np
import pytest
from helpers import (
    BACKEND,
    CROSSENTROPY,
    RUNS,
    Noted,
    assert_close,
    recorded_early,
    saved_and_loaded,
    spiking,
    to_numpy,
)
from keras import layers

import keras_ratesnn as rsnn

SAMPLES, BATCH = 20, 8


def functional():
    """Statistics, noise, losses of layers, two inputs by name."""
    image = keras.Input((6, 6, 2), name="image")
    token = keras.Input((3,), dtype="int32", name="token")
    l2 = {"activity_regularizer": "l2", "kernel_regularizer": "l2"}
    x = layers.BatchNormalization()(Noted()(layers.Conv2D(4, 3, **l2)(image)))
    x = [layers.Flatten()(layers.ReLU()(x))]
    x.append(layers.Flatten()(layers.Embedding(5, 2)(token)))
    x = layers.Dropout(0.3, seed=1)(layers.Concatenate()(x))
    outputs = {"logits": layers.Dense(3)(x), "size": layers.Dense(1)(x)}
    return keras.Model({"image": image, "token": token}, outputs)


def data_of_model():
    """Inputs, labels and the loss."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, SAMPLES)
    image, size = (
        random.normal(size=(SAMPLES, 6, 6, 2)),
        random.normal(size=(SAMPLES, 1)),
    )
    x = {"image": image, "token": random.integers(0, 5, (SAMPLES, 3))}
    return x, {"logits": labels, "size": size}, {"logits": CROSSENTROPY, "size": "mse"}


def trained(model, **kwargs):
    x, y, loss = data_of_model()
    model.compile(keras.optimizers.Adam(1e-2), loss, **kwargs)
    options = {"epochs": 4, "shuffle": False, "validation_data": (x, y), "verbose": 0}
    history = model.fit(x, y, BATCH, **options).history
    model.train_on_batch(x, y)
    values = [to_numpy(variable.value) for variable in model.variables]
    return history, values, model.predict(x, BATCH, verbose=0)


def runs(model, **kwargs):
    """What training gives, and how often Python ran the layers; calls are recorded
    early."""
    RUNS.clear()
    with recorded_early():
        return trained(model, **kwargs), len(RUNS)


def test_a_recorded_model_trains_and_predicts_as_before():
    keras.utils.set_random_seed(0)
    plain = functional()
    copied = copy.deepcopy(plain)
    for _ in range(2):
        rsnn.record_calls(copied)
    expected, runs_of_plain = runs(plain)
    results, runs_of_copied = runs(copied)
    flat = keras.tree.flatten(results), keras.tree.flatten(expected)
    assert_close(*flat, rtol=1e-5, atol=1e-6)
    # Full and smaller batches, in training and in inference; the kinds of calls of
    # `fit` stay through its epochs.
    assert BACKEND != "torch" or runs_of_copied < 0.6 * runs_of_plain


@pytest.mark.runs_once
def test_a_recorded_model_that_runs_eagerly_or_is_saved_is_not_replayed():
    """Elsewhere than on PyTorch none is."""
    _, plain = runs(functional(), run_eagerly=True)
    model = functional()
    rsnn.record_calls(model)
    assert runs(model, run_eagerly=True)[1] == plain
    assert runs(saved_and_loaded(model))[1] == plain


def test_a_model_with_a_call_of_its_own_or_without_shapes_is_refused():
    message = "`model` must be a Functional or Sequential.*SpikingModel records its "
    with pytest.raises(TypeError, match=message):
        rsnn.record_calls(spiking())
    message = r"`model` must know its input shape.*keras\.Input"
    with pytest.raises(ValueError, match=message):
        rsnn.record_calls(keras.Sequential([layers.Dense(2)]))
