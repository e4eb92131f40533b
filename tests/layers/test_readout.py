"""What ends time: `LeakyReadout`, membranes that never spike, and `TimeMean`. What
follows runs once. Membranes are compared in test_other_libraries.py."""

import keras
import numpy as np
import pytest
from helpers import (
    both_step_modes,
    chain,
    data,
    double_precision,
    loss_and_gradients,
    spiking,
    to_numpy,
    training_step,
)
from keras import layers, ops
from numpy.testing import assert_allclose, assert_array_equal

import keras_ratesnn as rsnn
from keras_ratesnn.layers import LIF, LeakyReadout, TimeMean

T = 3
VALUES = ["mean", "last", "max"]


def body():
    """The input `(6,)` and the spikes `(8,)` of two layers of neurons."""
    inputs = keras.Input((6,))
    x = LIF(threshold=0.5)(layers.Dense(8)(inputs))
    x = layers.BatchNormalization()(layers.Dense(8)(x))
    return inputs, LIF(threshold=0.5)(x)


def head(x):
    """An ordinary network with batch statistics, an activation and a regularizer."""
    x = layers.BatchNormalization()(layers.Dense(8, activity_regularizer="l2")(x))
    return layers.Dense(3, name="logits")(layers.ReLU()(x))


def network():
    inputs, spikes = body()
    return keras.Model(inputs, head(TimeMean(name="rates")(spikes)))


def seed_of(model):
    """The state of what draws the steps of a model."""
    (seed,) = (variable for variable in model.variables if "seed" in variable.path)
    return seed


@pytest.mark.parametrize(
    ("gradient", "step_mode", "shape"),
    [
        ("rate", "multi", (T, 6)),
        ("rate", "single", (6,)),
        (rsnn.gradients.SLTT(random_steps=2), "single", (6,)),
    ],
    ids=str,
)
def test_what_follows_is_an_ordinary_network_on_the_output_of_a_spiking_one(
    gradient, step_mode, shape
):
    """Statistics of rates move once a batch, those of steps as ever."""
    with double_precision():
        one = spiking(network(), T, gradient, step_mode=step_mode)
        # An ordinary model on the output of a SpikingModel.
        inner = spiking(keras.Model(*body()), T, gradient, step_mode=step_mode)
        inputs, rates = keras.Input(shape), keras.Input((8,))
        outer = keras.Model(rates, head(rates))
        two = keras.Model(inputs, outer(inner(inputs)))
        variables = [*inner.network.variables, *outer.variables]
        for theirs, ours in zip(variables, one.network.variables, strict=True):
            theirs.assign(ours)
        if one.gradient.uses_random_numbers:
            # Both models draw the same steps.
            seed_of(inner).assign(seed_of(one))
        x, y = data(shape=shape)
        loss = keras.losses.SparseCategoricalCrossentropy(
            from_logits=True, dtype="float64"
        )
        steps = training_step(one, loss), training_step(two, loss)
        for _ in range(2):
            found, expected = (step(x, y) for step in steps)
            assert found[0] == pytest.approx(expected[0], rel=1e-6)
            pairs = zip(found[1].values(), expected[1].values(), strict=True)
            for ours, theirs in [*pairs, (found[2], expected[2])]:
                assert theirs.any()
                assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
        for theirs, ours in zip(variables, one.network.variables, strict=True):
            assert_allclose(
                to_numpy(ours.value), to_numpy(theirs.value), rtol=1e-6, atol=1e-6
            )


@both_step_modes
def test_in_a_sequence_of_membranes_what_follows_sees_those_of_each_step(step_mode):
    """Else it sees the mean, the last or the largest membrane."""
    inputs, spikes = body()
    readouts = [LeakyReadout(0.8, value=value)(spikes) for value in VALUES]
    outputs = [*readouts, *map(layers.Softmax(), readouts)]
    model = spiking(keras.Model(inputs, outputs), T, step_mode=step_mode)
    x, _ = data(4, (T, 6))
    found = model.predict(x, verbose=0)
    model.return_sequences = True
    sequences = model.predict(x, verbose=0)
    membranes = sequences[0]
    expected = membranes.mean(axis=1), membranes[:, -1], membranes.max(axis=1)
    for index in range(3):
        for ours, values in (
            (sequences[index], membranes),
            (sequences[3 + index], to_numpy(ops.softmax(membranes))),
            (found[index], expected[index]),
            (found[3 + index], to_numpy(ops.softmax(expected[index]))),
        ):
            assert_allclose(ours, values, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("value", VALUES)
def test_the_rate_gradient_is_exact_in_the_rates(value):
    """∂v_T/∂w = Σ_t λ^(T−t) r, of the largest membrane up to its step, and of the mean
    that of all steps."""
    scale, readout = layers.Dense(1, use_bias=False), LeakyReadout(0.8, value=value)
    model = spiking(chain(LIF(0.5), scale, readout, shape=(1,)), 5, "rate")
    scale.set_weights([np.ones((1, 1))])
    x = np.array([[[1.0], [0.0], [1.0], [0.0], [0.0]]])
    _, gradients = loss_and_gradients(model, x, x, lambda y, outputs: ops.sum(outputs))
    of_constant = np.cumsum(0.8 ** np.arange(5))  # ∂v_t, for a rate of 1
    expected = {
        "mean": of_constant.mean(),
        "last": of_constant[-1],
        "max": of_constant[2],
    }
    (found,) = gradients.values()
    assert_allclose(found, [[expected[value] * 0.4]], rtol=1e-5)


@pytest.mark.parametrize("value", VALUES)
def test_the_value_of_a_padded_sequence_is_that_of_its_steps_alone(value):
    inputs, spikes = body()
    readout = LeakyReadout(0.8, value=value)(spikes)
    model, (x, _) = spiking(keras.Model(inputs, readout), T), data(2, (T, 6))
    found = to_numpy(model(x, mask=np.arange(T) < np.array([[T], [2]])))
    model.timesteps = 2
    expected = to_numpy(model(x[1:, :2]))
    assert_allclose(found[1:], expected, rtol=1e-5, atol=1e-6)


def test_a_regularizer_sees_the_membranes_of_all_steps():
    inputs, spikes = body()
    readout = LeakyReadout(0.8, activity_regularizer="l2", value="last")
    model = spiking(keras.Model(inputs, readout(spikes)), T, "bptt")
    x, y = data(4, (T, 6))
    found, _ = loss_and_gradients(
        model, x, y, lambda y, outputs: 0.0 * ops.sum(outputs)
    )
    model.return_sequences = True
    membranes = to_numpy(model(x, training=True))
    assert found == pytest.approx(0.01 * np.mean(membranes**2) * 8, rel=1e-5)


def test_it_is_seen_inside_nested_models_and_by_what_describes_a_model():
    """What follows is counted once; a membrane that never spikes costs nothing."""
    model = spiking(chain(network(), layers.Dense(3)))
    x, _ = data()
    assert to_numpy(model(x)).shape == (10, 3)
    energy = rsnn.describe(model, x, verbose=False).energy
    once = energy.layers.index("logits")
    assert energy.multiply_adds[once] == 8 * 3
    assert energy.dense_multiply_adds[once] == 8 * 3
    inputs, spikes = body()
    found, expected = (
        rsnn.describe(spiking(keras.Model(inputs, outputs)), x, verbose=False)
        for outputs in (LeakyReadout()(spikes), spikes)
    )
    assert len(found.layers) == 2
    assert found.energy.total == expected.energy.total


def test_accuracy_over_time_needs_the_mean_of_the_membranes():
    inputs, spikes = body()
    x, y = data()
    model = spiking(keras.Model(inputs, LeakyReadout(0.8)(spikes)), T)
    accuracy = rsnn.analysis.accuracy_over_time(model, x, y, verbose=0).accuracy
    right = np.argmax(model.predict(x, verbose=0), axis=-1) == y
    assert_allclose(accuracy[-1], np.mean(right))
    largest = LeakyReadout(0.8, value="max", name="largest")(spikes)
    model = spiking(keras.Model(inputs, largest))
    message = r"mean of its outputs at each step.*'largest' with value='max'"
    with pytest.raises(ValueError, match=message):
        rsnn.analysis.accuracy_over_time(model, x, y, verbose=0)


def test_spikify_leaves_activations_that_follow_as_they_are():
    first = layers.Dense(8, activation="relu", name="spiking")
    second = layers.Dense(8, activation="relu", name="ordinary")
    network = chain(first, LeakyReadout(), second, layers.Dense(3))
    model = rsnn.spikify(network, T, verbose=False)
    report = model.spikify_report
    assert [change.name for change in report.replaced] == ["spiking"]
    reasons = {change.name: change.reason for change in report.kept}
    assert reasons["ordinary"].startswith("after a ")
    second = model.network.get_layer("ordinary")
    assert second.activation is keras.activations.relu


def test_it_may_be_told_that_it_has_no_threshold():
    layer = LeakyReadout(decay=0.8, threshold=None)
    assert LeakyReadout.from_config(layer.get_config()).decay == 0.8


def test_outside_of_a_spiking_model_it_takes_one_step():
    x = np.ones((1, 2))
    membranes = LeakyReadout(0.75, decay_input=True)(x)
    assert_allclose(to_numpy(membranes), [[0.25, 0.25]])
    assert_array_equal(to_numpy(TimeMean()(x)), x)


@pytest.mark.parametrize("end", [TimeMean, LeakyReadout])
@pytest.mark.parametrize(
    ("follow", "message"),
    [
        (lambda x, ended: LIF(name="late")(ended), "'late' of type LIF after one"),
        (
            lambda x, ended: rsnn.layers.BernoulliEncoder()(ended),
            "of type BernoulliEncoder after one",
        ),
        (
            lambda x, ended: layers.Add(name="sum")([ended, x]),
            "'sum' of type Add, with an input that follows one and another that does "
            r"not(?s:.)*Put a TimeMean before the other one, too",
        ),
    ],
)
def test_what_needs_time_steps_cannot_follow(follow, message, end):
    inputs, spikes = body()
    network = keras.Model(inputs, follow(spikes, end()(spikes)))
    expected = f"follows a TimeMean or a LeakyReadout runs once(?s:.)*{message}"
    with pytest.raises(ValueError, match=expected):
        spiking(network)


def test_there_are_no_sequences_of_means():
    message = r"`return_sequences` must be False.*a TimeMean named 'rates'"
    with pytest.raises(ValueError, match=message):
        spiking(network(), return_sequences=True)
    model = spiking(network())
    with pytest.raises(ValueError, match=message):
        model.return_sequences = True
    assert not model.return_sequences
