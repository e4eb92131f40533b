"""A delay, parallel and recurrent neurons in one network, on padded sequences, saved in
the middle of a training."""

import keras
import numpy as np
import pytest
from helpers import assert_close
from keras import layers

import keras_ratesnn as rsnn
from keras_ratesnn import callbacks

T, PADDING = 4, -9.0
Y = np.array([0, 1, 2, 1, 0, 2])


def sequences():
    x = np.random.default_rng(0).normal(0.5, 1.0, (len(Y), T, 5)).astype("float32")
    x[np.arange(T) >= np.array([4, 2, 3, 1, 4, 4])[:, None]] = PADDING
    return x


def made(gradient, step_mode):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5,))
    x = layers.BatchNormalization()(layers.Dense(6)(rsnn.layers.Delay(3)(inputs)))
    x = layers.Dense(6)(rsnn.layers.SlidingPSN(2)(x))
    x = layers.Dense(6)(rsnn.layers.Recurrent(rsnn.layers.LIF(), layers.Dense(6))(x))
    x = rsnn.layers.MaskedPSN(T, order=2, mask=0.5 if step_mode == "multi" else 1.0)(x)
    model = rsnn.SpikingModel(
        keras.Model(inputs, layers.Dense(3)(x)),
        T,
        gradient,
        step_mode,
        mask_value=PADDING,
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss)
    return model


def fit(model, first=0, *others):
    """Trains two epochs, or the second of them."""
    schedules = [callbacks.LowerSigma(epochs=2), callbacks.RaiseMask(epochs=2)]
    used = [*(schedules if model.step_mode == "multi" else schedules[:1]), *others]
    model.fit(
        sequences(),
        Y,
        batch_size=3,
        epochs=2,
        initial_epoch=first,
        shuffle=False,
        verbose=0,
        callbacks=used,
    )


@pytest.mark.parametrize(
    ("gradient", "step_mode", "policy"),
    [
        ("rate", "multi", "mixed_bfloat16"),
        (rsnn.gradients.Rate(windows=2), "single", "float32"),
        ("bptt", "multi", "float32"),
    ],
)
def test_a_training_that_is_saved_and_loaded_goes_on_with_the_same_numbers(
    gradient, step_mode, policy, tmp_path
):
    keras.config.set_dtype_policy(policy)
    whole = made(gradient, step_mode)
    fit(whole, 0, keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras"))
    again = keras.saving.load_model(tmp_path / "1.keras")
    fit(again, 1)
    assert_close(again.variables, whole.variables, rtol=1e-5, atol=1e-6)
    if gradient == "bptt":
        outputs, expected = (
            model.predict(sequences(), verbose=0) for model in (again, whole)
        )
        np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)
