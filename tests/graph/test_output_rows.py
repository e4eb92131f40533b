"""Networks whose tensors have rows that are not samples: they work in single-step mode
and are refused in multi-step mode."""

import keras
import numpy as np
import pytest
from helpers import (
    BACKEND,
    assert_close,
    data,
    naive_lif,
    spiking,
    to_numpy,
)
from keras import ops

import keras_ratesnn as rsnn

X, Y = data(10, (6,))
ROWS = {
    "one": (
        lambda x: ops.mean(x, axis=0, keepdims=True),
        lambda x: x.mean(axis=0, keepdims=True),
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


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize(("gradient", "inside"), [("rate", False), ("bptt", True)])
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
