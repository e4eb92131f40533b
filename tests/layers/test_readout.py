"""`LeakyReadout`: membranes that never spike, at the end of a network."""

import keras
import numpy as np
import pytest
from helpers import (
    BACKEND,
    assert_close,
    double_precision,
    loss_and_gradients,
    spiking,
    to_numpy,
)
from keras import layers, ops

import keras_ratesnn as rsnn
from keras_ratesnn.layers import LIF, LeakyReadout

T = 5
VALUES = ["mean", "last", "max"]
STEP_MODES = ["multi", "single"]
Y = np.array([0, 1, 2, 1])


def body():
    """The input `(6,)`, and the currents `(3,)` that readouts are given."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    x = LIF(0.5, 0.3)(layers.Dense(8, name="first")(inputs))
    return inputs, layers.Dense(3, name="last")(x)


def network(head=layers.Identity, **arguments):
    """Readouts of each value, each with the same head."""
    inputs, x = body()
    arguments = {"decay": 0.8, "decay_input": True, "synaptic_decay": 0.3, **arguments}
    return keras.Model(
        inputs,
        layers.Add()(
            [head()(LeakyReadout(value=value, **arguments)(x)) for value in VALUES]
        ),
    )


def frames():
    return (
        np.random.default_rng(0)
        .normal(0.3, 1.0, (4, T, 6))
        .astype(keras.config.floatx())
    )


def membranes_of(currents, decay, decay_input=False, synaptic_decay=0.0, counts=None):
    """The membranes of currents `(batch, T, ...)`, in NumPy; they wait where steps do
    not count."""
    current, membrane, found = 0.0, 0.0, []
    counts = np.ones(currents.shape[:2], bool) if counts is None else counts
    for t in range(currents.shape[1]):
        valid = counts[:, t].reshape(-1, *[1] * (currents.ndim - 2))
        current = np.where(valid, synaptic_decay * current + currents[:, t], current)
        membrane = np.where(
            valid,
            decay * membrane + current * (1 - decay if decay_input else 1),
            membrane,
        )
        found.append(np.broadcast_to(membrane, currents[:, t].shape))
    return np.stack(found, axis=1)


@pytest.mark.parametrize("step_mode", STEP_MODES)
def test_it_is_the_mean_the_last_or_the_largest_membrane_and_what_follows_runs_once(
    step_mode,
):
    inputs, x = body()
    head = layers.Softmax()
    readouts = {value: LeakyReadout(0.8, value=value)(x) for value in VALUES}
    outputs = {**readouts, "head": head(readouts["max"]), "currents": x}
    model = spiking(
        keras.Model(inputs, outputs), T, step_mode=step_mode, return_sequences=True
    )
    steps = model.predict(frames(), verbose=0)
    expected = membranes_of(steps["currents"], 0.8)
    for value in VALUES:
        np.testing.assert_allclose(steps[value], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(steps["head"], to_numpy(head(expected)), rtol=1e-5)
    for t in range(T):
        of_step = to_numpy(model.step(frames()[:, t]))
        for name in outputs:
            np.testing.assert_allclose(
                of_step[name], steps[name][:, t], rtol=1e-5, atol=1e-6
            )
    model.return_sequences = False
    found = model.predict(frames(), verbose=0)
    largest = expected.max(axis=1)
    wanted = {
        "mean": expected.mean(axis=1),
        "last": expected[:, -1],
        "max": largest,
        "head": to_numpy(head(largest)),
    }
    assert_close(
        found,
        {**wanted, "currents": steps["currents"].mean(axis=1)},
        rtol=1e-5,
        atol=1e-6,
    )


def test_the_gradient_of_bptt_is_numeric():
    with double_precision():
        x = frames()
        model = spiking(network(layers.Softmax), T, "bptt")
        _, gradients = loss_and_gradients(model, x, Y)
        weight = model.network.get_layer("last").kernel
        of_weight = next(
            gradient for path, gradient in gradients.items() if path == weight.path
        )
        for place in ((0, 0), (3, 1), (7, 2)):
            values, before = [], to_numpy(weight.value).copy()
            for shift in (1e-2, -1e-2):
                moved = before.copy()
                moved[place] += shift
                weight.assign(moved)
                values.append(loss_and_gradients(model, x, Y)[0])
            weight.assign(before)
            np.testing.assert_allclose(
                of_weight[place], (values[0] - values[1]) / 2e-2, rtol=2e-3, atol=1e-5
            )


def test_the_rate_gradient_is_exact_in_the_rates():
    """∂v_T/∂w = Σ_t λ^(T−t) r, of the largest membrane up to its step, and of the mean
    that of all steps."""
    for value in VALUES:
        inputs, scale = keras.Input((1,)), layers.Dense(1, use_bias=False)
        model = spiking(
            keras.Model(
                inputs, LeakyReadout(0.8, value=value)(scale(LIF(0.5)(inputs)))
            ),
            T,
            "rate",
        )
        scale.set_weights([np.ones((1, 1))])
        x = np.array([[[1.0], [0.0], [1.0], [0.0], [0.0]]])
        _, gradients = loss_and_gradients(
            model, x, Y[:1], lambda y, outputs: ops.sum(outputs)
        )
        of_constant = np.cumsum(0.8 ** np.arange(T))  # ∂v_t, for a rate of 1
        expected = {
            "mean": of_constant.mean(),
            "last": of_constant[-1],
            "max": of_constant[2],
        }
        np.testing.assert_allclose(
            next(iter(gradients.values())),
            [[expected[value] * 0.4]],
            rtol=1e-5,
            err_msg=value,
        )


@pytest.mark.parametrize("step_mode", STEP_MODES)
def test_membranes_wait_in_padding_and_where_rows_are_masked(step_mode):
    random = np.random.default_rng(1)
    rows = random.random((4, T, 3)) < 0.6
    rows[:, 2] = True
    x = random.normal(0.0, 1.0, (4, T, 3, 2)).astype("float32")
    inputs = keras.Input((3, 2))
    outputs = [
        *(LeakyReadout(0.8, value=value)(inputs) for value in VALUES),
        LIF()(inputs),
    ]
    model = spiking(keras.Model(inputs, outputs), T, step_mode=step_mode)
    *found, _ = to_numpy(model(x, mask=rows))
    for row in range(3):
        expected, counts = (
            membranes_of(x[:, :, row], 0.8, counts=rows[..., row]),
            rows[..., row],
        )
        last = T - 1 - np.argmax(counts[:, ::-1], axis=1)
        np.testing.assert_allclose(
            found[1][:, row], expected[np.arange(4), last], rtol=1e-5
        )
        largest = np.where(counts[..., None], expected, -np.inf).max(axis=1)
        np.testing.assert_allclose(found[2][:, row], largest, rtol=1e-5)
    before = np.where(np.arange(T) < 2, False, np.ones((4, T), bool))
    *found, _ = to_numpy(
        model(np.where(before[..., None, None], x, np.nan), mask=before)
    )
    expected = membranes_of(x[:, 2:], 0.8)
    assert_close(
        found,
        (expected.mean(axis=1), expected[:, -1], expected.max(axis=1)),
        rtol=1e-5,
        atol=1e-6,
    )


@pytest.mark.parametrize("step_mode", STEP_MODES)
def test_sequences_of_membranes_are_masked_and_what_follows_sees_no_mask_of_padding(
    step_mode,
):
    inputs, x = body()
    outputs = [layers.Softmax()(LeakyReadout(0.8)(x)), x]
    model = spiking(
        keras.Model(inputs, outputs), T, step_mode=step_mode, return_sequences=True
    )
    mask = np.ones((4, T), bool)
    mask[0, :2], mask[1, 3:], mask[2, 1] = False, False, False
    found, currents = model(frames(), mask=mask)
    for output in (found, currents):
        np.testing.assert_array_equal(to_numpy(output._keras_mask), mask)
    expected = to_numpy(ops.softmax(membranes_of(to_numpy(currents), 0.8, counts=mask)))
    np.testing.assert_allclose(
        to_numpy(found), np.where(mask[..., None], expected, 0.0), rtol=1e-5, atol=1e-6
    )


def test_its_regularizer_sees_the_membranes_of_all_steps():
    inputs, x = body()
    model = spiking(
        keras.Model(
            inputs, [LeakyReadout(0.8, activity_regularizer="l2", value="last")(x), x]
        ),
        T,
        "bptt",
    )
    value, _ = loss_and_gradients(
        model, frames(), Y, lambda y, outputs: 0.0 * ops.sum(outputs[0])
    )
    model.return_sequences = True
    steps, _ = to_numpy(model(frames()))
    np.testing.assert_allclose(value, 0.01 * np.sum(steps**2) / (4 * T), rtol=1e-5)


@pytest.mark.skipif(
    BACKEND == "jax", reason="a step is exported to ONNX from TensorFlow and PyTorch"
)
def test_an_exported_step_has_its_membrane_among_the_states(tmp_path):
    import onnxruntime

    inputs, x = body()
    model = spiking(
        keras.Model(
            inputs, LeakyReadout([0.8, 0.5, 0.2], synaptic_decay=0.3, name="readout")(x)
        ),
        T,
        return_sequences=True,
    )
    states = rsnn.export_step(model, tmp_path / "step.onnx", "onnx", verbose=False)
    assert {name for name in states if name.startswith("readout")} == {
        "readout_current",
        "readout_membrane",
    }
    session = onnxruntime.InferenceSession(tmp_path / "step.onnx")
    names = [output.name for output in session.get_outputs()]
    expected = model.predict(frames()[:1], verbose=0)
    for t in range(T):
        found = dict(
            zip(
                names,
                session.run(names, {"input": frames()[:1, t], **states}),
                strict=True,
            )
        )
        states = {name: found[f"next_{name}"] for name in states}
        np.testing.assert_allclose(
            found["output"], expected[:, t], rtol=1e-5, atol=1e-5
        )


def test_it_is_seen_by_what_describes_a_model():
    inputs, x = body()
    model = spiking(keras.Model(inputs, LeakyReadout(0.8)(x)), T)
    plain = spiking(keras.Model(inputs, x), T)
    found, expected = (
        rsnn.describe(of, frames(), verbose=False) for of in (model, plain)
    )
    assert len(found.layers) == 1
    assert found.synaptic_operations == expected.synaptic_operations
    assert found.energy.total == expected.energy.total
    accuracy = rsnn.analysis.accuracy_over_time(model, frames(), Y, verbose=0)
    right = np.mean(np.argmax(model.predict(frames(), verbose=0), axis=-1) == Y)
    np.testing.assert_allclose(accuracy.accuracy[-1], right)
    of_max = spiking(
        keras.Model(inputs, LeakyReadout(0.8, value="max", name="largest")(x)), T
    )
    with pytest.raises(
        ValueError,
        match=r"mean of its outputs at each step.*'largest' with value='max'",
    ):
        rsnn.analysis.accuracy_over_time(of_max, frames(), Y, verbose=0)


def test_spikify_leaves_activations_that_follow_as_they_are():
    inputs = keras.Input((6,))
    x = LeakyReadout()(layers.Dense(3)(layers.Dense(8, activation="relu")(inputs)))
    model = rsnn.spikify(
        keras.Model(inputs, layers.Dense(3, activation="relu", name="after")(x)),
        T,
        verbose=False,
    )
    assert model.network.get_layer("after").activation is keras.activations.relu


def test_it_may_be_told_that_it_has_no_threshold():
    layer = LeakyReadout(decay=0.8, threshold=None)
    assert LeakyReadout.from_config(layer.get_config()).decay == 0.8


def test_outside_of_a_spiking_model_it_takes_one_step():
    np.testing.assert_allclose(
        to_numpy(LeakyReadout(0.75, decay_input=True)(np.ones((1, 2)))), [[0.25, 0.25]]
    )


def test_what_needs_time_steps_cannot_follow():
    inputs, x = body()
    for layer, name in (
        (LIF(), "LIF"),
        (LeakyReadout(), "LeakyReadout"),
        (rsnn.layers.Delay(3), "Delay"),
    ):
        with pytest.raises(
            ValueError,
            match=f"follows a TimeMean or a LeakyReadout runs once.*of type {name} "
            "after one",
        ):
            spiking(keras.Model(inputs, layer(LeakyReadout()(x))))
    with pytest.raises(
        ValueError, match="with an input that follows one and another that does not"
    ):
        spiking(keras.Model(inputs, layers.Add()([x, LeakyReadout()(x)])))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"decay": 1.5}, ValueError, "`decay` must be"),
        ({"synaptic_decay": 1.0}, ValueError, "`synaptic_decay` must be"),
        ({"decay": 1.0, "decay_input": True}, ValueError, "leaves nothing of it"),
        ({"value": "median"}, ValueError, "`value` must be"),
        (
            {"threshold": 1.0},
            TypeError,
            "no argument `threshold`: its membranes never spike. Received: "
            "threshold=1.0",
        ),
        ({"beta": 0.9}, TypeError, "decay=0.9"),
        ({"tau": 2.0}, TypeError, "decay=0.5"),
    ],
)
def test_wrong_arguments_are_errors(arguments, error, message):
    with pytest.raises(error, match=message):
        LeakyReadout(**arguments)
