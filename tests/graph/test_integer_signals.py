"""Integers and booleans in a network: their time mean has another type, and rate
training keeps all their steps."""

import keras
import numpy as np
import pytest
from helpers import (
    assert_close,
    both_step_modes,
    data,
    loss_and_gradients,
    naive_lif,
    spiking,
    to_numpy,
    two_methods,
)
from keras import layers, ops

from keras_ratesnn.gradients import Rate
from keras_ratesnn.layers import IF, LIF, Recurrent

T = 4
IDS, Y = np.random.default_rng(0).integers(0, 9, (5, T, 2)), np.arange(5) % 3


def embedding_network(between=lambda ids: ids):
    """Embeds pairs of integers, followed by neurons."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((2,), dtype="int32")
    table = layers.Embedding(9, 4, embeddings_initializer="normal", name="table")
    x = layers.Dense(8)(layers.Flatten()(table(between(inputs))))
    return keras.Model(inputs, layers.Dense(3)(LIF(threshold=0.1)(x)))


def trained(network, gradient, step_mode="multi", x=IDS, y=Y):
    """The loss, and the gradients of a step."""
    return loss_and_gradients(spiking(network, T, gradient, step_mode=step_mode), x, y)


def assert_same(left, right):
    assert left[0] == pytest.approx(right[0], rel=1e-5)
    assert_close(left[1], right[1], rtol=1e-4, atol=1e-6)


@both_step_modes
def test_embeddings_of_integers_in_time_are_trained_as_those_of_their_one_hot_vectors(
    step_mode,
):
    """These have a time mean, and turn the embedding into a matrix."""
    by_ids = embedding_network()
    inputs = keras.Input((2, 9))
    matrix = layers.Dense(4, use_bias=False, name="table")
    outputs = layers.Flatten()(matrix(inputs))
    for layer in by_ids.layers[-3:]:
        outputs = layer(outputs)
    by_vectors = keras.Model(inputs, outputs)
    matrix.kernel.assign(by_ids.get_layer("table").embeddings)
    vectors = np.eye(9, dtype="float32")[IDS]
    for gradient in ("rate", Rate(windows=(1, 3)) if step_mode == "multi" else "bptt"):
        loss, found = trained(by_ids, gradient, step_mode)
        found["table/kernel"] = found.pop("table/embeddings")
        expected = trained(by_vectors, gradient, step_mode, vectors)
        assert_same((loss, found), expected)


def used_rows(gradients):
    (table,) = (gradients[path] for path in gradients if path.endswith("embeddings"))
    return set(np.flatnonzero(np.abs(table).max(axis=1)))


@both_step_modes
def test_functions_of_integers_stay_integers(step_mode):
    shared = embedding_network(
        lambda ids: ops.where(ids > 3, ids, 8 - layers.Reshape((2,))(ids))
    )
    by_windows = trained(shared, Rate(windows=T), step_mode)
    assert_same(by_windows, trained(shared, "bptt", step_mode))
    loss, found = trained(shared, "rate", step_mode)
    assert loss == pytest.approx(by_windows[0], rel=1e-5)
    # The rows of the table that are used, and no others.
    assert used_rows(found) == used_rows(by_windows[1])


@both_step_modes
def test_recurrent_neurons_take_integers_by_their_mean(step_mode):
    """As floats of the same values."""
    results = []
    for dtype in ("int32", "float32"):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((3,))
        spikes = ops.stop_gradient(ops.cast(IF()(inputs), dtype))
        x = Recurrent(LIF(), layers.Dense(3))(spikes)
        network = keras.Model(inputs, layers.Dense(3)(x))
        x = np.random.default_rng(0).uniform(0.0, 1.0, (5, 3)).astype("float32")
        loss, gradients = trained(network, "rate", step_mode, x)
        results.append((loss, [*gradients.values()]))
    assert_same(*results)


def test_statistics_of_the_last_step_go_with_its_integers():
    """The rows of the table that the last step uses have a gradient, and no others."""
    method = Rate(last_step_statistics=True)
    loss, found = trained(embedding_network(), method, "single")
    expected, _ = trained(embedding_network(), "bptt")
    assert loss == pytest.approx(expected, rel=1e-5)
    assert used_rows(found) == set(IDS[:, -1].ravel())


class Chosen(layers.Layer):
    """Several outputs, not all of them floats, and a selection that depends on the
    step."""

    def call(self, inputs):
        return {
            "above": inputs > 0.5,
            "inputs": 1.0 * inputs,
            "largest": ops.argmax(inputs, axis=-1),
        }


@both_step_modes
def test_selection_by_spikes_trains_and_equals_bptt_with_one_window_per_step(step_mode):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    chosen = Chosen()(LIF()(layers.Dense(8)(inputs)))
    rows = layers.Embedding(8, 8)(chosen["largest"])
    x = ops.where(chosen["above"], 2.0 * chosen["inputs"], rows)
    shared = keras.Model(inputs, layers.Dense(3, name="head")(x))
    batch = data(10, (T, 6))
    by_bptt = trained(shared, "bptt", step_mode, *batch)
    assert_same(trained(shared, Rate(windows=T), step_mode, *batch), by_bptt)
    loss, found = trained(shared, "rate", step_mode, *batch)
    assert loss == pytest.approx(by_bptt[0], rel=1e-5)
    # After the choice nothing changes with time but the spikes, and the loss is of a
    # mean: exact.
    head, expected = found["head/kernel"], by_bptt[1]["head/kernel"]
    np.testing.assert_allclose(head, expected, rtol=1e-4, atol=1e-6)


@two_methods
def test_the_time_mean_of_integer_outputs_is_a_float(gradient, step_mode):
    inputs = keras.Input((3,))
    spikes = LIF()(inputs)
    seven = ops.cast(7.0 * spikes, "int32")
    network = keras.Model(inputs, [spikes, spikes > 0.5, seven, inputs > 0.0])
    x = np.random.default_rng(0).normal(1.0, 1.0, (5, 3)).astype("float32")
    steps, *_ = naive_lif(np.repeat(x[None], T, axis=0))
    rate = steps.mean(axis=0)
    model = spiking(network, T, gradient, step_mode=step_mode)

    def dtypes(outputs):
        return [keras.backend.standardize_dtype(output.dtype) for output in outputs]

    outputs = to_numpy(model(x, training=True))
    assert_close(outputs, [rate, rate, 7.0 * rate, x > 0.0], rtol=1e-6)
    assert dtypes(outputs) == ["float32"] * 4
    model.return_sequences = True
    outputs = to_numpy(model(x, training=True))
    np.testing.assert_array_equal(outputs[1], np.moveaxis(steps, 0, 1) > 0.5)
    expected = ["float32", "bool", "int32", "bool"]
    assert dtypes(outputs) == dtypes(model.compute_output_spec(inputs)) == expected
