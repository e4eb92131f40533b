"""What docs/howto/errors_you_will_not_see.md promises: membranes are local to a
call."""

import gc
import pathlib
import re

import keras
import numpy as np
import pytest
from helpers import (
    BACKEND,
    CROSSENTROPY,
    assert_close,
    chain,
    compiled,
    data,
    distiller,
    loss_and_gradients,
    not_on,
    spiking,
    to_numpy,
    two_methods,
)
from keras import layers, ops

import keras_ratesnn as rsnn

PAGE = (
    pathlib.Path(__file__).parents[2] / "docs" / "howto" / "errors_you_will_not_see.md"
)


@pytest.mark.backends(1)
def test_the_tests_of_the_page_exist():
    named = set(re.findall(r"`(test_\w+)`", PAGE.read_text(encoding="utf-8")))
    tests = "".join(
        path.read_text(encoding="utf-8")
        for path in PAGE.parents[2].glob("tests/*/test_*.py")
    )
    assert named
    assert [name for name in named if f"def {name}(" not in tests] == []


@not_on("jax", "there a call is a function")
@two_methods
def test_calls_go_backward_in_any_order(gradient, step_mode):
    model = spiking(gradient=gradient, step_mode=step_mode)
    batches = [data(4, seed=seed) for seed in (0, 1)]
    alone = [list(loss_and_gradients(model, *batch)[1].values()) for batch in batches]
    weights = [weight.value for weight in model.trainable_variables]

    def loss(x, y):
        return CROSSENTROPY(ops.convert_to_tensor(y), model(x, training=True))

    if BACKEND == "torch":
        first, last = (loss(*batch) for batch in batches)
        last.backward()
        first.backward()
        both = [weight.grad for weight in weights]
    else:
        import tensorflow as tf

        with tf.GradientTape() as tape:
            first = loss(*batches[0])
        with tf.GradientTape() as tape_of_last:
            last = loss(*batches[1])
        gradients = tape_of_last.gradient(last, weights)
        both = list(map(tf.add, gradients, tape.gradient(first, weights)))
    assert_close(both, list(map(np.add, *alone)), rtol=1e-4, atol=1e-6)


@two_methods
def test_a_call_does_not_depend_on_earlier_ones(gradient, step_mode):
    x, y = data(8)
    used, fresh = (
        compiled(spiking(gradient=gradient, step_mode=step_mode)) for _ in range(2)
    )
    # The last batches are smaller.
    used.fit(x[:5], y[:5], batch_size=2, verbose=0)
    used.predict(x[:3], batch_size=2, verbose=0)
    fresh.set_weights(used.get_weights())
    assert_close([used(x)], [to_numpy(fresh(x))], rtol=1e-6)
    expected = pytest.approx(fresh.train_on_batch(x, y), rel=1e-6)
    assert used.train_on_batch(x, y) == expected


def live_tensors():
    gc.collect()
    if BACKEND == "jax":
        import jax

        return len(jax.live_arrays())
    # Not `isinstance`: it reads an attribute of what is no tensor, and proxies of
    # modules then import these.
    tensor = type(ops.convert_to_tensor(0.0))
    return sum(issubclass(type(found), tensor) for found in gc.get_objects())


def test_memory_does_not_grow_with_epochs():
    model, counts = compiled(spiking(), metrics=["accuracy"]), []
    x, y = data(8)
    for _ in range(3):
        history = model.fit(
            x, y, batch_size=4, validation_data=(x, y), verbose=0
        ).history
        counts.append(live_tensors())
    assert len(history["loss"]) == 1
    assert counts[2] <= counts[1]
    outputs = model(x)
    assert outputs.shape == (8, 3)
    assert live_tensors() > counts[2]


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
