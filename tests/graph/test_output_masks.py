"""The Keras masks of the network's outputs are those of the model's: losses, metrics
and outer layers leave padding out."""

import keras
import numpy as np
import pytest
from helpers import (
    CROSSENTROPY,
    assert_close,
    both_step_modes,
    rate_and_sltt,
    to_numpy,
    training_step,
)
from keras import layers, ops

import keras_ratesnn as rsnn
from keras_ratesnn.gradients import SLTT, Rate
from keras_ratesnn.layers import IF, LIF, TimeMean

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not support masking and will therefore destroy"
)

WORDS = np.array([[1, 2, 0, 0, 0], [3, 1, 2, 5, 0], [4, 4, 4, 4, 4]])
IS_WORD = WORDS != 0


def tagger(timesteps=3, *args, **kwargs):
    """A model that labels each word, `(batch, 5, 2)`."""
    keras.utils.set_random_seed(0)
    words = keras.Input((5,), dtype="int32")
    x = LIF(0.2, 0.1)(layers.Embedding(8, 4, mask_zero=True)(words))
    x = layers.Dense(2)(LIF(0.2, 0.1)(layers.Dense(6)(x)))
    return rsnn.SpikingModel(keras.Model(words, x), timesteps, *args, **kwargs)


@pytest.mark.parametrize(
    ("gradient", "step_mode", "return_sequences"),
    [
        ("rate", "multi", False),
        (Rate(windows=2), "single", True),
        ("ottt", "multi", False),
        (SLTT(random_steps=1), "single", True),
    ],
)
def test_padding_counts_in_no_loss(gradient, step_mode, return_sequences):
    model = tagger(2, gradient, step_mode, return_sequences)
    model.compile("sgd", "mse", metrics=["mae"])
    y, other = (
        np.where(IS_WORD[..., None], np.ones((3, 5, 2)), padding).astype("float32")
        for padding in (0.0, 9.0)
    )
    is_word = IS_WORD
    if return_sequences:
        y, other, is_word = (
            np.repeat(labels[:, None], 2, axis=1) for labels in (y, other, IS_WORD)
        )
    errors = (to_numpy(model(WORDS)) - y)[is_word]
    expected = {"loss": np.square(errors).mean(), "mae": np.abs(errors).mean()}
    found = model.evaluate(WORDS, other, verbose=0, return_dict=True)
    assert found == pytest.approx(expected, rel=1e-5)
    if not getattr(gradient, "random_steps", None):
        step = training_step(model, keras.losses.MeanSquaredError())
        (one, gradients, _), (another, others, _) = step(WORDS, y), step(WORDS, other)
        assert one == pytest.approx(another, rel=1e-6)
        assert_close(gradients, others, rtol=1e-5, atol=1e-7)
        assert any(np.any(gradient) for gradient in gradients.values())
    found = model.train_on_batch(WORDS, other, return_dict=True)
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-5)


@both_step_modes
def test_a_time_mean_counts_where_a_step_counts(step_mode):
    frames = np.random.default_rng(0).normal(1.0, 1.0, (4, 3, 5, 2)).astype("float32")
    frames[np.random.default_rng(1).random((4, 3, 5)) < 0.6] = 0.0
    counts = frames.any(-1)
    inputs = keras.Input((5, 2))
    x = layers.Dense(2)(IF()(layers.Masking()(inputs)))
    model = rsnn.SpikingModel(keras.Model(inputs, x), 3, step_mode=step_mode)
    assert not (counts == counts[:, :1]).all()
    np.testing.assert_array_equal(to_numpy(model(frames)._keras_mask), counts.any(1))
    model.return_sequences = True
    np.testing.assert_array_equal(to_numpy(model(frames)._keras_mask), counts)


def test_a_model_without_masks_has_none():
    inputs, outer = keras.Input((5, 3)), keras.Input((5, 3))
    spikes = IF()(layers.Masking()(inputs))
    network = keras.Model(inputs, layers.GlobalAveragePooling1D()(spikes))
    pooled = rsnn.SpikingModel(network, 2)
    model = keras.Model(outer, layers.Dense(2)(pooled(layers.Masking()(outer))))
    assert getattr(pooled(np.ones((2, 5, 3))), "_keras_mask", None) is None
    assert to_numpy(model(np.ones((2, 5, 3)))).shape == (2, 2)


@rate_and_sltt
def test_a_mask_that_a_nested_model_is_called_with_counts(gradient, step_mode):
    inside, inputs = keras.Input((5, 3)), keras.Input((5, 3))
    mask = keras.Input((5,), dtype="bool")
    pooled = layers.GlobalAveragePooling1D()(layers.Identity()(inside))
    pooled = keras.Model(inside, pooled)(inputs, mask=mask)
    spikes = LIF(0.0, 0.1)(layers.Dense(4)(pooled))
    network = keras.Model([inputs, mask], spikes)
    x = np.random.default_rng(0).normal(0.0, 3.0, (4, 5, 3)).astype("float32")
    counts = np.array([[True, True, False, True, False]] * 4)
    other = np.where(counts[..., None], x, 100.0).astype("float32")
    model = rsnn.SpikingModel(network, 2, gradient, step_mode)
    step = training_step(model, keras.losses.MeanSquaredError())
    found, expected = (step([frames, counts], np.ones((4, 4))) for frames in (x, other))
    assert found[0] == pytest.approx(expected[0], rel=1e-6)
    assert_close(found[1], expected[1], rtol=1e-5, atol=1e-7)
    model.timesteps = 1
    assert_close([model([x, counts])], [network([x, counts])], rtol=0)


TET = rsnn.losses.TET(CROSSENTROPY)


def test_a_loss_on_every_step_leaves_padding_out():
    model = tagger(return_sequences=True)
    model.compile("sgd", TET)
    outputs = to_numpy(model(WORDS))
    losses = -np.log(np.exp(outputs) / np.exp(outputs).sum(-1, keepdims=True))[..., 1]
    expected = 0.95 * losses.mean(1) + 0.05 * np.square(outputs - 1.0).mean((1, 3))
    for padding in (0, 1):
        loss = model.evaluate(WORDS, np.where(IS_WORD, 1, padding), verbose=0)
        assert loss == pytest.approx(expected[IS_WORD].mean(), rel=1e-5)


def test_what_follows_a_time_mean_sees_the_mask():
    words = keras.Input((5,), dtype="int32")
    spikes = LIF(0.2, 0.1)(layers.Embedding(8, 4, mask_zero=True)(words))
    pooled = layers.GlobalAveragePooling1D()(TimeMean()(spikes))
    model = rsnn.SpikingModel(keras.Model(words, pooled), 4)
    rates = rsnn.SpikingModel(keras.Model(words, spikes), 4)(WORDS)
    assert ops.is_tensor(rates._keras_mask)
    sums = (to_numpy(rates) * IS_WORD[..., None]).sum(1)
    assert_close([model(WORDS)], [sums / IS_WORD.sum(1, keepdims=True)], rtol=1e-6)
