"""Integers and booleans in a network: their time mean has another type, and rate
training keeps all their steps."""

import keras
import numpy as np
import pytest
from helpers import (
    assert_close,
    compiled,
    data,
    loss_and_gradients,
    naive_lif,
    spiking,
    to_numpy,
)
from keras import layers, ops

import keras_ratesnn as rsnn
from keras_ratesnn.gradients import Rate

T = 4
IDS, Y = np.random.default_rng(0).integers(0, 9, (5, T, 2)), np.arange(5) % 3
every_order = pytest.mark.parametrize("step_mode", ["multi", "single"])


def of_ids(between=lambda ids: ids):
    """Embeds pairs of integers, followed by neurons."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((2,), dtype="int32")
    table = layers.Embedding(9, 4, embeddings_initializer="normal", name="table")
    x = layers.Flatten()(table(between(inputs)))
    return keras.Model(
        inputs, layers.Dense(3)(rsnn.layers.LIF(threshold=0.1)(layers.Dense(8)(x)))
    )


def assert_same(left, right):
    assert left[0] == pytest.approx(right[0], rel=1e-5)
    assert_close(left[1], right[1], rtol=1e-4, atol=1e-6)


@every_order
def test_embeddings_of_integers_in_time_are_trained_as_those_of_their_one_hot_vectors(
    step_mode,
):
    """These have a time mean, and turn the embedding into a matrix."""
    by_ids = of_ids()
    inputs = keras.Input((2, 9))
    matrix = layers.Dense(4, use_bias=False, name="table")
    outputs = layers.Flatten()(matrix(inputs))
    for layer in by_ids.layers[-3:]:
        outputs = layer(outputs)
    by_vectors = keras.Model(inputs, outputs)
    matrix.kernel.assign(by_ids.get_layer("table").embeddings)
    for gradient in (
        ("rate", Rate(windows=(1, 3))) if step_mode == "multi" else ("rate", "bptt")
    ):
        loss, found = loss_and_gradients(
            spiking(by_ids, T, gradient, step_mode=step_mode), IDS, Y
        )
        vectors = np.eye(9, dtype="float32")[IDS]
        expected = loss_and_gradients(
            spiking(by_vectors, T, gradient, step_mode=step_mode), vectors, Y
        )
        found["table/kernel"] = found.pop("table/embeddings")
        assert_same((loss, found), expected)


@every_order
@pytest.mark.parametrize(
    "between",
    [
        lambda ids: ids + 0,
        lambda ids: ops.where(ids > 3, ids, 8 - layers.Reshape((2,))(ids)),
    ],
    ids=["add", "reshape and where"],
)
def test_functions_of_integers_stay_integers(between, step_mode):
    shared = of_ids(between)
    by_windows = loss_and_gradients(
        spiking(shared, T, Rate(windows=T), step_mode=step_mode), IDS, Y
    )
    assert_same(
        by_windows,
        loss_and_gradients(spiking(shared, T, "bptt", step_mode=step_mode), IDS, Y),
    )
    loss, found = loss_and_gradients(
        spiking(shared, T, "rate", step_mode=step_mode), IDS, Y
    )
    assert loss == pytest.approx(by_windows[0], rel=1e-5)
    # The rows of the table that are used, and no others.
    used = lambda gradients: np.abs(gradients["table/embeddings"]).max(axis=1) > 0  # noqa: E731
    np.testing.assert_array_equal(used(found), used(by_windows[1]))


@every_order
def test_integers_in_time_train_by_fit_with_a_last_smaller_batch(step_mode):
    model = compiled(spiking(of_ids(), T, step_mode=step_mode))
    model.fit(IDS, Y, batch_size=3, verbose=0)
    assert model.predict(IDS, verbose=0).shape == (5, 3)


@every_order
def test_recurrent_neurons_take_integers_by_their_mean(step_mode):
    """As floats of the same values."""
    results = []
    for dtype in ("int32", "float32"):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((3,))
        spikes = ops.stop_gradient(ops.cast(rsnn.layers.IF()(inputs), dtype))
        network = keras.Model(
            inputs,
            layers.Dense(3)(
                rsnn.layers.Recurrent(rsnn.layers.LIF(), layers.Dense(3))(spikes)
            ),
        )
        x = np.random.default_rng(0).uniform(0.0, 1.0, (5, 3)).astype("float32")
        results.append(
            loss_and_gradients(spiking(network, T, "rate", step_mode=step_mode), x, Y)
        )
    (loss, found), (expected, of_floats) = results
    assert loss == pytest.approx(expected, rel=1e-5)
    assert_close(found.values(), of_floats.values(), rtol=1e-4, atol=1e-6)


def test_statistics_of_the_last_step_go_with_its_integers():
    """The rows of the table that the last step uses have a gradient, and no others."""
    model = spiking(of_ids(), T, Rate(last_step_statistics=True), step_mode="single")
    loss, found = loss_and_gradients(model, IDS, Y)
    assert loss == pytest.approx(
        loss_and_gradients(spiking(of_ids(), T, "bptt"), IDS, Y)[0], rel=1e-5
    )
    (table,) = (
        gradient for path, gradient in found.items() if path.endswith("embeddings")
    )
    assert set(np.flatnonzero(np.abs(table).max(axis=1))) == set(IDS[:, -1].ravel())


class Chosen(layers.Layer):
    """Several outputs, not all of them floats, and a selection that depends on the
    step."""

    def call(self, inputs):
        return {
            "above": inputs > 0.5,
            "inputs": 1.0 * inputs,
            "largest": ops.argmax(inputs, axis=-1),
        }


@every_order
def test_selection_by_spikes_trains_and_equals_bptt_with_one_window_per_step(step_mode):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    chosen = Chosen()(rsnn.layers.LIF()(layers.Dense(8)(inputs)))
    rows = layers.Embedding(8, 8)(chosen["largest"])
    x = ops.where(chosen["above"], 2.0 * chosen["inputs"], rows)
    shared = keras.Model(inputs, layers.Dense(3)(x))
    x, y = data(10, (T, 6))
    by_bptt = loss_and_gradients(spiking(shared, T, "bptt", step_mode=step_mode), x, y)
    assert_same(
        loss_and_gradients(
            spiking(shared, T, Rate(windows=T), step_mode=step_mode), x, y
        ),
        by_bptt,
    )
    loss, found = loss_and_gradients(
        spiking(shared, T, "rate", step_mode=step_mode), x, y
    )
    assert loss == pytest.approx(by_bptt[0], rel=1e-5)
    assert all(np.abs(gradient).max() > 0 for gradient in found.values())
    # After the choice nothing changes with time but the spikes, and the loss is of a
    # mean: exact.
    head = f"{shared.layers[-1].path}/kernel"
    np.testing.assert_allclose(found[head], by_bptt[1][head], rtol=1e-4, atol=1e-6)


@every_order
@pytest.mark.parametrize("gradient", ["rate", "bptt"])
def test_the_time_mean_of_integer_outputs_is_a_float(gradient, step_mode):
    inputs = keras.Input((3,))
    spikes = rsnn.layers.LIF()(inputs)
    network = keras.Model(
        inputs, [spikes, spikes > 0.5, ops.cast(7.0 * spikes, "int32"), inputs > 0.0]
    )
    x = np.random.default_rng(0).normal(1.0, 1.0, (5, 3)).astype("float32")
    steps, *_ = naive_lif(np.repeat(x[None], T, axis=0))
    rate = steps.mean(axis=0)
    model = spiking(network, T, gradient, step_mode=step_mode)
    for outputs in (to_numpy(model(x, training=True)), model.predict(x, verbose=0)):
        assert [str(output.dtype) for output in outputs] == ["float32"] * 4
        assert_close(outputs, [rate, rate, 7.0 * rate, x > 0.0], rtol=1e-6)
    assert [spec.dtype for spec in model.compute_output_spec(inputs)] == ["float32"] * 4
    model.return_sequences = True
    outputs = to_numpy(model(x, training=True))
    assert [str(output.dtype) for output in outputs] == [
        "float32",
        "bool",
        "int32",
        "bool",
    ]
    np.testing.assert_array_equal(outputs[1], np.moveaxis(steps, 0, 1) > 0.5)
    assert [spec.dtype for spec in model.compute_output_spec(inputs)] == [
        "float32",
        "bool",
        "int32",
        "bool",
    ]
