"""Networks whose tensors have rows that are not samples: they work in single-step mode
and are refused in multi-step mode."""

import keras
import numpy as np
import pytest
from helpers import (
    BACKEND,
    assert_close,
    data,
    loss_and_gradients,
    naive_lif,
    spiking,
    to_numpy,
)
from keras import layers, ops

import keras_ratesnn as rsnn

X, Y = data(10, (6,))
ROWS = {
    "one": (
        lambda x: ops.mean(x, axis=0, keepdims=True),
        lambda x: x.mean(axis=0, keepdims=True),
    ),
    "three": (
        lambda x: ops.matmul(np.ones((3, 6), "float32"), ops.transpose(x)[:, :2]),
        lambda x: np.ones((3, 6)) @ x.T[:, :2],
    ),
    "more": (lambda x: ops.reshape(x, (-1, 2)), lambda x: x.reshape(-1, 2)),
    "none": (ops.sum, np.sum),
}


def network(function):
    inputs = keras.Input((6,))
    return keras.Model(inputs, function(rsnn.layers.LIF()(inputs)))


def function_of(model, how):
    """What calls a model; on TensorFlow also a function that does not know how many
    rows there are."""
    if how == "known rows":
        return model
    import tensorflow as tf

    rows = [tf.TensorSpec((None, 6), "float32")]
    return tf.function(model.call, input_signature=rows, autograph=False)


HOW = ["known rows", *(["unknown rows"] if BACKEND == "tensorflow" else [])]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize(
    ("gradient", "rows"), [*(("rate", rows) for rows in ROWS), ("bptt", "more")]
)
def test_in_single_step_mode_outputs_may_have_any_number_of_rows(gradient, rows, how):
    function, expected = ROWS[rows]
    model = spiking(network(function), 3, gradient, step_mode="single")
    spikes, *_ = naive_lif(np.repeat(X[None], 3, axis=0))
    call, steps = function_of(model, how), [expected(step) for step in spikes]
    assert_close([call(X)], [np.mean(steps, axis=0)], rtol=1e-5)
    broken = X.copy()
    broken[7, 0] = np.nan
    found = np.isnan(to_numpy(call(broken)))
    assert found.any()
    if rows == "more":
        assert found.any(axis=1).all()


@pytest.mark.parametrize("gradient", ["rate", "bptt"])
def test_each_of_several_outputs_has_its_own_number_of_rows(gradient):
    several = network(lambda x: [x, ops.mean(x, axis=0, keepdims=True)])
    rows, mean = to_numpy(list(spiking(several, 3, gradient, step_mode="single")(X)))
    assert rows.shape == (10, 6)
    np.testing.assert_allclose(mean, rows.mean(axis=0, keepdims=True), rtol=1e-5)


def test_a_reduced_output_has_its_gradient():
    inputs = keras.Input((6,))
    x = layers.Dense(3)(rsnn.layers.LIF()(layers.Dense(8)(inputs)))
    shared = keras.Model(inputs, ops.mean(x, axis=0, keepdims=True))
    (loss, by_rate), (expected, by_bptt) = (
        loss_and_gradients(
            spiking(shared, 1, gradient, step_mode="single"), X, Y, squares
        )
        for gradient in ("rate", "bptt")
    )
    assert loss == pytest.approx(expected, rel=1e-5)
    assert_close(by_rate, by_bptt, rtol=1e-4, atol=1e-6)


def squares(y, outputs):
    return ops.sum(ops.square(outputs))


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("gradient", ["rate", "bptt"])
def test_in_multi_step_mode_rows_that_are_not_samples_are_refused(
    gradient, inside, how
):
    """They would be taken for steps."""

    def split(x):
        halves = ops.reshape(x, (-1, 3))
        return ops.reshape(rsnn.layers.LIF()(halves), (-1, 6)) if inside else halves

    message = r'step_mode=\\?"multi[\s\S]*step_mode=\\?"single'
    with pytest.raises(Exception, match=message) as raised:
        function_of(spiking(network(split), 3, gradient), how)(X)
    assert how == "unknown rows" or isinstance(raised.value, ValueError)
