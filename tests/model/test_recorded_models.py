"""Ordinary Keras models whose calls are recorded: on PyTorch they are replayed, and
train and predict as before."""

import copy

import keras
import numpy as np
import pytest
from helpers import BACKEND, assert_close, saved_and_loaded, to_numpy
from keras import layers

import keras_ratesnn as rsnn

SAMPLES, BATCH = 20, 8

RUNS: list[int] = []


@keras.saving.register_keras_serializable("recorded models")
class Noted(layers.Layer):
    """Notes each time that Python runs it, of which a replay is none."""

    def call(self, inputs):
        # An attribute would be a setting that changes.
        RUNS.append(1)
        return inputs * 1.0


def functional():
    """Statistics, noise, losses of layers, two inputs by name."""
    inputs = {
        "image": keras.Input((6, 6, 2), name="image"),
        "token": keras.Input((3,), dtype="int32", name="token"),
    }
    x = layers.Conv2D(
        4, 3, activity_regularizer=keras.regularizers.L2(1e-2), kernel_regularizer="l2"
    )(inputs["image"])
    x = Noted()(x)
    x = layers.Flatten()(layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x)))
    y = layers.Flatten()(layers.Embedding(5, 2)(inputs["token"]))
    x = layers.Dropout(0.3, seed=1)(layers.Concatenate()([x, y]))
    return keras.Model(
        inputs,
        {
            "logits": layers.Dense(3, name="logits")(x),
            "size": layers.Dense(1, name="size")(x),
        },
    )


def sequential():
    return keras.Sequential(
        [
            keras.Input((5,)),
            Noted(),
            layers.Dense(6, "relu"),
            layers.BatchNormalization(),
            layers.Dense(3),
        ]
    )


def data_of(model):
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, SAMPLES)
    if isinstance(model, keras.Sequential):
        return random.normal(size=(SAMPLES, 5)).astype("float32"), labels
    x = {
        "image": random.normal(size=(SAMPLES, 6, 6, 2)).astype("float32"),
        "token": random.integers(0, 5, (SAMPLES, 3)),
    }
    return x, {
        "logits": labels,
        "size": random.normal(size=(SAMPLES, 1)).astype("float32"),
    }


def trained(model, **kwargs):
    x, y = data_of(model)
    logits = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    loss = (
        logits
        if isinstance(model, keras.Sequential)
        else {"logits": logits, "size": "mse"}
    )
    model.compile(keras.optimizers.Adam(1e-2), loss, **kwargs)
    history = model.fit(
        x, y, BATCH, epochs=4, shuffle=False, validation_data=(x, y), verbose=0
    ).history
    model.train_on_batch(x, y)
    return (
        history,
        [to_numpy(variable.value) for variable in model.variables],
        model.predict(x, BATCH, verbose=0),
    )


def runs(model, **kwargs):
    """What training gives, and how often Python ran the layers; calls are recorded
    early."""
    RUNS.clear()
    with rsnn.engine_settings(
        **({"eager_calls": {"auto": 1, True: 1}} if BACKEND == "torch" else {})
    ):
        return trained(model, **kwargs), len(RUNS)


@pytest.mark.parametrize("make", [functional, sequential])
def test_a_recorded_model_trains_and_predicts_as_before(make):
    keras.utils.set_random_seed(0)
    plain = make()
    copied = copy.deepcopy(plain)
    assert rsnn.recorded(copied) is copied
    assert rsnn.recorded(copied) is copied
    expected, of_plain = runs(plain)
    found, of_copied = runs(copied)
    assert_close(
        keras.tree.flatten(found), keras.tree.flatten(expected), rtol=1e-5, atol=1e-6
    )
    # Full and smaller batches, in training and in inference; the kinds of calls of
    # `fit` stay through its epochs.
    assert BACKEND != "torch" or of_copied < 0.6 * of_plain


def test_a_recorded_model_that_runs_eagerly_or_is_saved_is_not_replayed():
    _, plain = runs(sequential(), run_eagerly=True)
    model = rsnn.recorded(sequential())
    assert runs(model, run_eagerly=True)[1] == plain
    if BACKEND == "torch":
        assert runs(saved_and_loaded(model))[1] == plain


def test_a_recorded_model_that_was_saved_is_replayed_further(tmp_path):
    normalization = layers.Normalization()
    normalization.adapt(data_of(keras.Sequential())[0])

    def adapted():
        parts = [keras.Input((5,)), normalization, Noted(), layers.Dense(3)]
        return keras.Sequential(parts)

    _, of_plain = runs(adapted())
    for name in ("first.keras", "second.keras"):
        model = rsnn.recorded(adapted())
        _, of_recorded = runs(model)
        assert BACKEND != "torch" or of_recorded < 0.6 * of_plain
        model.save(tmp_path / name)


def test_a_model_with_a_call_of_its_own_or_without_shapes_is_refused():
    with pytest.raises(
        TypeError,
        match=r"`model` must be a Functional or Sequential.*SpikingModel records its "
        r"calls anyway",
    ):
        rsnn.recorded(
            rsnn.SpikingModel(
                keras.Sequential([keras.Input((2,)), rsnn.layers.LIF()]), 2
            )
        )
    with pytest.raises(
        ValueError, match=r"`model` must know its input shape.*keras\.Input"
    ):
        rsnn.recorded(keras.Sequential([layers.Dense(2)]))
