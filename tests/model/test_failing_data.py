"""Data that cannot be read in the middle of a call, and callbacks that fail, leave a
model that works."""

import keras
import numpy as np
import pytest
from helpers import chain, compiled, data, spiking
from keras import layers

import keras_ratesnn as rsnn


def distiller():
    teacher = keras.Sequential([keras.Input((6,)), layers.Dense(3)])
    return rsnn.distillation.Distiller(
        teacher, spiking(), keras.distillation.LogitsDistillation()
    )


def normalized():
    parts = [layers.BatchNormalization(), rsnn.layers.LIF(), layers.Dense(3)]
    return spiking(chain(layers.Dense(5), *parts))


class Interrupt(keras.callbacks.Callback):
    def on_test_batch_end(self, batch, logs=None):
        raise KeyboardInterrupt

    on_predict_batch_end = on_train_batch_end = on_test_batch_end


def batches(x, y):
    yield x[:4], y[:4]
    raise OSError("the disk is gone")


@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed")
def test_a_model_works_after_an_error_in_its_data():
    model, (x, y) = compiled(normalized()), data(8)
    for use in (model.fit, model.evaluate):
        # TensorFlow wraps the error.
        with pytest.raises(Exception, match="the disk is gone"):
            use(batches(x, y), verbose=0)
        assert np.isfinite(model.predict(x, verbose=0)).all()
    model.fit(x, y, verbose=0)


@pytest.mark.parametrize("call", ["fit", "evaluate", "predict"])
@pytest.mark.parametrize("make", [normalized, distiller])
def test_a_model_keeps_its_weights_where_a_callback_is_interrupted(make, call):
    model, (x, y) = compiled(make()), data(8)
    model.fit(x, y, verbose=0)
    before = model.predict(x, verbose=0)
    arguments = [x] if call == "predict" else [x, y]
    with pytest.raises(KeyboardInterrupt):
        getattr(model, call)(*arguments, verbose=0, callbacks=[Interrupt()])
    after = model.predict(x, verbose=0)
    assert np.isfinite(after).all()
    if call != "fit":
        np.testing.assert_array_equal(after, before)
    model.fit(x, y, verbose=0)
