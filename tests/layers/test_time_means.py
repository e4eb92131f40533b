"""`layers.TimeMean`: what follows it runs once, on time means."""

import keras
import numpy as np
import pytest
from helpers import (
    BACKEND,
    compiled,
    data,
    double_precision,
    spiking,
    to_numpy,
    training_step,
)
from keras import layers

import keras_ratesnn as rsnn
from keras_ratesnn.layers import LIF, TimeMean

T = 3
METHODS = {
    "rate": "rate",
    "bptt": "bptt",
    "random steps": rsnn.gradients.SLTT(random_steps=2),
}


def body():
    """The input `(6,)` and the spikes `(8,)` of two layers of neurons."""
    inputs = keras.Input((6,))
    x = LIF(threshold=0.5)(layers.Dense(8)(inputs))
    return inputs, LIF(threshold=0.5)(layers.BatchNormalization()(layers.Dense(8)(x)))


def head(x):
    """An ordinary network with batch statistics, an activation and a regularizer."""
    x = layers.BatchNormalization()(layers.Dense(8, activity_regularizer="l2")(x))
    return layers.Dense(3, name="logits")(layers.ReLU(name="activation")(x))


def network():
    inputs, spikes = body()
    return keras.Model(inputs, head(TimeMean(name="rates")(spikes)))


def ordinary_head_on(model, shape):
    """The same network as two models: an ordinary one on the output of a
    SpikingModel."""
    inputs, rates = keras.Input(shape), keras.Input((8,))
    return keras.Model(inputs, keras.Model(rates, head(rates))(model(inputs)))


@pytest.mark.parametrize(
    ("gradient", "step_mode", "shape"),
    [
        ("rate", "multi", (T, 6)),
        ("bptt", "multi", (T, 6)),
        ("rate", "single", (6,)),
        ("random steps", "single", (6,)),
    ],
)
def test_what_follows_is_an_ordinary_network_on_the_output_of_a_spiking_one(
    gradient, step_mode, shape
):
    gradient = METHODS[gradient]
    with double_precision():
        one = spiking(network(), T, gradient, step_mode=step_mode)
        inner = spiking(keras.Model(*body()), T, gradient, step_mode=step_mode)
        two = ordinary_head_on(inner, shape)
        variables = list(
            zip(
                one.network.variables,
                [*inner.network.variables, *two.layers[-1].variables],
                strict=True,
            )
        )
        for ours, theirs in variables:
            theirs.assign(ours)
        if one.gradient.draws:
            # Both models draw the same steps.
            inner._draws.state.assign(one._draws.state)
        x, y = data(shape=shape)
        of_logits = keras.losses.SparseCategoricalCrossentropy(
            from_logits=True, dtype="float64"
        )
        steps = [training_step(model, of_logits) for model in (one, two)]
        for _ in range(2):
            (loss, gradients, outputs), (wanted_loss, wanted, wanted_outputs) = (
                step(x, y) for step in steps
            )
            np.testing.assert_allclose(loss, wanted_loss, rtol=1e-6)
            np.testing.assert_allclose(outputs, wanted_outputs, rtol=1e-5, atol=1e-6)
            for ours, theirs in zip(gradients.values(), wanted.values(), strict=True):
                assert theirs.any()
                np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
        # Statistics of rates move once a batch, those of steps as ever.
        for ours, theirs in variables:
            np.testing.assert_allclose(
                to_numpy(ours.value), to_numpy(theirs.value), rtol=1e-6, atol=1e-6
            )


@pytest.mark.skipif(
    BACKEND == "jax", reason="a step is exported to ONNX from TensorFlow and PyTorch"
)
def test_an_exported_step_has_the_mean_so_far_among_its_states(tmp_path):
    import onnxruntime

    model = spiking(network())
    states = rsnn.export_step(model, tmp_path / "step.onnx", "onnx", verbose=False)
    assert {name for name in states if name.startswith("rates")} == {
        "rates_sum",
        "rates_steps",
    }
    session = onnxruntime.InferenceSession(tmp_path / "step.onnx")
    names = [output.name for output in session.get_outputs()]
    x, _ = data(shape=(T, 6))
    for t in range(T):
        results = dict(
            zip(names, session.run(names, {"input": x[:1, t], **states}), strict=True)
        )
        states = {name: results[f"next_{name}"] for name in states}
        np.testing.assert_allclose(
            results["output"], to_numpy(model.step(x[:1, t])), rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("step_mode", ["multi", "single"])
def test_half_precision_and_integers_have_means(step_mode):
    inputs = keras.Input((6,), dtype="int32")
    spikes = LIF(dtype="mixed_bfloat16")(
        layers.Embedding(4, 5, dtype="mixed_bfloat16")(inputs)
    )
    head = layers.Dense(3, dtype="mixed_bfloat16")(
        layers.Flatten()(TimeMean(dtype="mixed_bfloat16")(spikes))
    )
    model = spiking(
        keras.Model(inputs, [head, TimeMean()(inputs)]), 2, step_mode=step_mode
    )
    x = np.random.default_rng(0).integers(0, 4, (3, 2, 6))
    outputs, means = model.predict(x, verbose=0)
    assert keras.backend.standardize_dtype(outputs.dtype) == "bfloat16"
    np.testing.assert_array_equal(means, x.mean(1))
    assert model.outputs[1].dtype == "float32"


@pytest.mark.parametrize("gradient", ["rate", "bptt"])
def test_it_has_its_own_dtype_and_regularisation(gradient):
    keras.config.set_dtype_policy("mixed_bfloat16")
    inputs = keras.Input((6,))
    mean = TimeMean(dtype="float32", activity_regularizer=keras.regularizers.L1(0.5))
    model = spiking(
        keras.Model(inputs, mean(LIF()(layers.Dense(8)(inputs)))), 4, gradient
    )
    rates = to_numpy(model(data()[0], training=True))
    assert rates.dtype == "float32"
    (loss,) = model.losses
    assert float(to_numpy(loss)) == pytest.approx(0.5 * rates.sum() / len(rates))


def test_it_is_seen_inside_nested_models_and_by_what_describes_a_model():
    inputs = keras.Input((6,))
    model = spiking(keras.Model(inputs, keras.layers.Dense(3)(network()(inputs))))
    x, _ = data()
    assert to_numpy(model(x)).shape == (10, 3)
    energy = rsnn.describe(model, x).energy
    once = energy.layers.index("logits")
    assert energy.multiply_adds[once] == 8 * 3
    assert energy.multiply_adds_without_spikes[once] == 8 * 3


def test_spikify_leaves_activations_that_follow_as_they_are():
    inputs = keras.Input((6,))
    rates = TimeMean()(layers.Dense(8, activation="relu", name="spiking")(inputs))
    outputs = layers.Dense(3)(layers.ReLU(name="ordinary")(layers.Dense(8)(rates)))
    model = rsnn.spikify(keras.Model(inputs, outputs), T, verbose=False)
    assert [(change.name, change.reason) for change in model.spikify_report.kept] == [
        ("ordinary", "after a TimeMean")
    ]
    assert [change.name for change in model.spikify_report.replaced] == ["spiking"]
    compiled(model).fit(*data(), verbose=0)


def test_outside_of_a_spiking_model_it_returns_its_input():
    np.testing.assert_array_equal(
        to_numpy(TimeMean()(np.array([[1, 2]]))), [[1.0, 2.0]]
    )


def test_what_needs_time_steps_cannot_follow():
    inputs, spikes = body()
    rates = TimeMean()(spikes)
    for after, message in [
        (
            LIF(name="late")(rates),
            "runs once, without time steps. Received: 'late' of type LIF",
        ),
        (
            rsnn.layers.BernoulliEncoder(name="encoder")(rates),
            "Received: 'encoder' of type BernoulliEncoder",
        ),
        (
            layers.Add(name="sum")([rates, spikes]),
            "runs once. Received: 'sum' of type Add",
        ),
        (
            layers.Concatenate(name="joined")([rates, inputs]),
            "Put a TimeMean before the other one, too",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            spiking(keras.Model(inputs, after))


def test_there_are_no_sequences_of_means():
    with pytest.raises(
        ValueError, match=r"`return_sequences` must be False.*a TimeMean named 'rates'"
    ):
        spiking(network(), return_sequences=True)
    model = spiking(network())
    with pytest.raises(ValueError, match="`return_sequences` must be False"):
        model.return_sequences = True
    assert not model.return_sequences


def test_it_cannot_hide_inside_a_layer():
    class Hidden(layers.Layer):
        def __init__(self):
            super().__init__()
            self.mean = TimeMean()

        def call(self, inputs):
            return self.mean(inputs)

    inputs, spikes = body()
    with pytest.raises(ValueError, match="must not hide neurons or time means"):
        spiking(keras.Model(inputs, Hidden()(spikes)))
