"""Data that cannot be read in the middle of a call, and callbacks that fail, leave a
model that works."""

import keras
import numpy as np
import pytest
from helpers import compiled, data, spiking
from keras import layers

import keras_ratesnn as rsnn


def batches(x, y):
    yield x[:4], y[:4]
    raise OSError("the disk is gone")


def without_labels(x, y):
    for inputs, _ in batches(x, y):
        yield inputs


def distiller():
    teacher = keras.Sequential([keras.Input((6,)), layers.Dense(3)])
    return rsnn.distillation.Distiller(
        teacher, spiking(), keras.distillation.LogitsDistillation()
    )


CALLS = {
    "fit": lambda model, x, y: model.fit(batches(x, y), steps_per_epoch=3, verbose=0),
    "evaluate": lambda model, x, y: model.evaluate(batches(x, y), steps=3, verbose=0),
    "predict": lambda model, x, y: model.predict(
        without_labels(x, y), steps=3, verbose=0
    ),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed")
def test_a_model_works_after_an_error_in_its_data(call):
    inputs = keras.Input((6,))
    x = rsnn.layers.LIF()(layers.BatchNormalization()(layers.Dense(5)(inputs)))
    model = compiled(spiking(keras.Model(inputs, layers.Dense(3)(x)), 3, "rate"))
    x, y = data(8, (6,))
    model.fit(x, y, batch_size=4, verbose=0)
    before = model.predict(x, verbose=0)
    # TensorFlow wraps the error.
    with pytest.raises(Exception, match="the disk is gone"):
        CALLS[call](model, x, y)
    after = model.predict(x, verbose=0)
    assert np.all(np.isfinite(after))
    if call != "fit":
        np.testing.assert_array_equal(after, before)
    assert np.isfinite(model.fit(x, y, batch_size=4, verbose=0).history["loss"][0])


class Interrupt(keras.callbacks.Callback):
    def on_test_batch_end(self, batch, logs=None):
        raise KeyboardInterrupt

    on_predict_batch_end = on_test_batch_end


@pytest.mark.parametrize("call", ["evaluate", "predict"])
@pytest.mark.parametrize("make", [spiking, distiller])
def test_a_model_keeps_its_weights_where_a_callback_is_interrupted(make, call):
    model, (x, y) = compiled(make()), data(8, (6,))
    model.fit(x, y, verbose=0)
    before = model.predict(x, verbose=0)
    with pytest.raises(KeyboardInterrupt):
        getattr(model, call)(
            x, *([y] if call == "evaluate" else []), verbose=0, callbacks=[Interrupt()]
        )
    np.testing.assert_array_equal(model.predict(x, verbose=0), before)
    model.fit(x, y, verbose=0)
