"""Settings of a model and kinds of data may change at any time, even during `fit`, and
take effect."""

import helpers
import keras
import numpy as np
import pytest
from helpers import assert_close, compiled, mlp, naive_lif, spiking, to_numpy

import keras_ratesnn as rsnn
from keras_ratesnn.layers import LIF

X, Y = helpers.data()
FRAMES, _ = helpers.data(shape=(3, 6), seed=1)


def standing_still(**kwargs):
    """A compiled model that training does not change."""
    return compiled(spiking(**kwargs), keras.optimizers.SGD(0.0))


def outputs_at(timesteps, model, x=X):
    """The outputs of an `mlp` at every step, `(T, batch, classes)`, by loops over
    single neurons."""
    hidden, _, head = model.network.layers[1:]
    frames = (
        np.swapaxes(x, 0, 1) if x.ndim == 3 else np.repeat(x[None], timesteps, axis=0)
    )
    spikes, _, _ = naive_lif(frames @ to_numpy(hidden.kernel) + to_numpy(hidden.bias))
    return spikes @ to_numpy(head.kernel) + to_numpy(head.bias)


def loss_at(timesteps, model, x=X):
    logits = outputs_at(timesteps, model, x).mean(axis=0)
    return -(logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True)))[
        np.arange(len(Y)), Y
    ].mean()


class Sets(keras.callbacks.Callback):
    """Sets an attribute of the model to one value after another."""

    def __init__(self, attribute, values):
        super().__init__()
        self.attribute = attribute
        self.values = list(values)

    def set_next(self):
        if self.values:
            setattr(self.model, self.attribute, self.values.pop(0))


class SetsEveryEpoch(Sets):
    def on_epoch_begin(self, epoch, logs=None):
        self.set_next()


class SetsEveryBatch(Sets):
    def __init__(self, attribute, values):
        super().__init__(attribute, values)
        self.losses = []

    def on_train_batch_end(self, batch, logs=None):
        self.losses.append(float(logs["loss"]))
        self.model.reset_metrics()
        self.set_next()


executions = pytest.mark.parametrize(
    "steps_per_execution",
    [
        1,
        pytest.param(
            2,
            marks=pytest.mark.skipif(
                helpers.BACKEND == "torch",
                reason="Keras has none of several steps on torch",
            ),
        ),
    ],
)


@executions
def test_a_callback_sets_the_time_steps_of_each_epoch(steps_per_execution):
    model = standing_still(timesteps=2)
    model.compile(model.optimizer, model.loss, steps_per_execution=steps_per_execution)
    schedule = [1, 3, 1, 5]
    history = model.fit(
        X,
        Y,
        batch_size=5,
        epochs=4,
        shuffle=False,
        verbose=0,
        callbacks=[SetsEveryEpoch("timesteps", schedule)],
    ).history
    assert history["loss"] == pytest.approx(
        [loss_at(timesteps, model) for timesteps in schedule], rel=1e-5
    )


@executions
def test_a_callback_sets_the_time_steps_of_each_batch(steps_per_execution):
    model = standing_still(timesteps=4)
    model.compile(model.optimizer, model.loss, steps_per_execution=steps_per_execution)
    x, y = np.tile(X, (3 * steps_per_execution, 1)), np.tile(Y, 3 * steps_per_execution)
    callback = SetsEveryBatch("timesteps", [1, 2])
    model.fit(x, y, batch_size=len(X), shuffle=False, verbose=0, callbacks=[callback])
    assert callback.losses == pytest.approx(
        [loss_at(timesteps, model) for timesteps in (4, 1, 2)], rel=1e-5
    )


def test_a_callback_sets_return_sequences():
    model = standing_still(gradient="bptt")
    model.compile(model.optimizer, "mse")
    targets = np.zeros((10, 1, 1), "float32")
    losses = model.fit(
        X,
        targets,
        epochs=2,
        verbose=0,
        callbacks=[SetsEveryEpoch("return_sequences", [False, True])],
    ).history["loss"]
    sequences = outputs_at(3, model)
    assert losses == pytest.approx(
        [np.mean(sequences.mean(axis=0) ** 2), np.mean(sequences**2)], rel=1e-5
    )


class Batch(keras.utils.PyDataset):
    """One batch."""

    def __init__(self, x):
        super().__init__()
        self.x = x

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return self.x, Y


def data_sets(x):
    """Arrays, and data sets of them."""
    kinds = [(x, Y), Batch(x)]
    if helpers.BACKEND == "tensorflow":
        import tensorflow as tf

        kinds.append(tf.data.Dataset.from_tensor_slices((x, Y)).batch(4))
    return kinds


@pytest.mark.parametrize(
    "kinds", [(X, FRAMES), (FRAMES, X)], ids=["static, frames", "frames, static"]
)
def test_validation_and_training_data_may_be_of_different_kinds(kinds):
    train, validation = kinds
    model = standing_still()
    for given in data_sets(validation):
        history = model.fit(train, Y, validation_data=given, epochs=2, verbose=0)
        for name, x in (("loss", train), ("val_loss", validation)):
            expected = [loss_at(3, model, x)] * 2
            assert history.history[name] == pytest.approx(expected, rel=1e-5)


def test_a_callback_predicts_and_evaluates_inputs_of_another_kind():
    class Looks(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.predicted = []
            self.losses = []

        def on_train_batch_end(self, batch, logs=None):
            self.predicted.append(self.model.predict(FRAMES, verbose=0))

        def on_epoch_end(self, epoch, logs=None):
            self.losses.append(self.model.evaluate(FRAMES, Y, verbose=0))

    model = standing_still()
    callback = Looks()
    model.fit(X, Y, epochs=2, verbose=0, callbacks=[callback])
    expected = outputs_at(3, model, FRAMES).mean(axis=0)
    for predicted in callback.predicted:
        np.testing.assert_allclose(predicted, expected, rtol=1e-5, atol=1e-6)
    assert callback.losses == pytest.approx([loss_at(3, model, FRAMES)] * 2, rel=1e-5)


def test_single_batches_may_be_of_different_kinds():
    model = standing_still()
    for x in (X, FRAMES, X):
        assert model.train_on_batch(x, Y) == pytest.approx(
            loss_at(3, model, x), rel=1e-5
        )
        assert model.test_on_batch(x, Y) == pytest.approx(
            loss_at(3, model, x), rel=1e-5
        )
        expected = outputs_at(3, model, x).mean(axis=0)
        np.testing.assert_allclose(
            to_numpy(model.predict_on_batch(x)), expected, rtol=1e-5, atol=1e-6
        )


@pytest.mark.skipif(
    helpers.BACKEND == "jax",
    reason="Keras takes a model's weights away on JAX while it predicts",
)
def test_threads_predict_inputs_of_different_kinds_at_once():
    model = spiking()
    expected = {
        name: outputs_at(3, model, x).mean(axis=0)
        for name, x in (("static", X), ("frames", FRAMES))
    }
    failed = []

    def predict(name, x):
        for _ in range(3):
            if not np.allclose(
                model.predict(x, verbose=0), expected[name], rtol=1e-5, atol=1e-6
            ):
                failed.append(name)

    helpers.in_threads(predict, [("static", X), ("frames", FRAMES)] * 2)
    assert failed == []


# What is set after `compile`.
def trained(model):
    """The weights after one batch, with the same initial weights each time."""
    keras.utils.set_random_seed(3)
    model.set_weights(
        [
            np.random.default_rng(0).normal(0, 1, weights.shape)
            for weights in model.get_weights()
        ]
    )
    model.optimizer.learning_rate = 0.1
    model.train_on_batch(FRAMES, Y)
    return model.get_weights()


@pytest.mark.parametrize(
    ("attribute", "first", "second"),
    [("gradient", "rate", "bptt"), ("step_mode", "multi", "single")],
)
def test_settings_changed_after_compile_take_effect(attribute, first, second):
    def network():
        inputs = keras.Input((6,))
        x = keras.layers.BatchNormalization()(keras.layers.Dense(8)(inputs))
        return keras.Model(inputs, keras.layers.Dense(3)(LIF()(x)))

    expected = {
        value: trained(compiled(spiking(network(), **{attribute: value})))
        for value in (first, second)
    }
    assert any(
        not np.allclose(one, other)
        for one, other in zip(*expected.values(), strict=True)
    )
    model = compiled(spiking(network(), **{attribute: first}))
    for value in (first, second, first):
        setattr(model, attribute, value)
        assert_close(trained(model), expected[value], rtol=1e-5, atol=1e-6)


class Traced(keras.layers.Layer):
    """Counts how often Python runs it."""

    runs = 0

    def call(self, inputs):
        self.runs += 1
        return inputs


def counted():
    """A model, and a function that evaluates it with a setting and says how often
    Python ran a layer."""
    inputs, layer = keras.Input((6,)), Traced()
    model = standing_still(network=keras.Model(inputs, mlp()(layer(inputs))))
    model.run_eagerly = False

    def runs(attribute, value):
        setattr(model, attribute, value)
        before = layer.runs
        model.evaluate(X, Y, verbose=0)
        return layer.runs - before

    return model, runs


def test_returning_to_an_earlier_setting_does_not_recompile():
    model, runs = counted()
    runs("timesteps", 3)
    again = runs("timesteps", 3)
    runs("timesteps", 2)
    assert runs("timesteps", 3) == again
    chosen = model.gradient
    methods = ["bptt", rsnn.gradients.Rate(windows=2), "rate"]
    for gradient in methods:
        runs("gradient", gradient)
    for gradient in methods:
        assert runs("gradient", gradient) == again
    # PyTorch records the calls of each object.
    assert model.gradient is chosen


@pytest.mark.skipif(helpers.BACKEND == "torch", reason="PyTorch records calls instead")
def test_only_the_functions_of_the_latest_settings_are_kept(monkeypatch):
    monkeypatch.setattr("keras_ratesnn._model.compiled_functions.FUNCTIONS_KEPT", 2)
    _, runs = counted()
    for timesteps in (1, 2, 1, 3, 1):
        last = runs("timesteps", timesteps)
    assert last == 0
    assert runs("timesteps", 2) > 0


@pytest.mark.skipif(
    helpers.BACKEND != "tensorflow", reason="other backends make all variables before"
)
@pytest.mark.parametrize(
    ("make", "on_batch"),
    [("one output", False), ("two outputs", True), ("distilled", False)],
)
def test_variables_of_optimizers_metrics_and_losses_do_not_trace_a_step_again(
    make, on_batch, monkeypatch
):
    traced, train_step = [], keras.Model.train_step
    monkeypatch.setattr(
        keras.Model,
        "train_step",
        lambda model, data: (traced.append(model), train_step(model, data))[1],
    )
    network, y = mlp(), Y
    if make == "two outputs":
        network, y = (
            keras.Model(
                network.inputs, [network.outputs[0], network.layers[-2].output]
            ),
            [Y, Y],
        )
    model = spiking(network)
    if make == "distilled":
        model = rsnn.distillation.Distiller(
            mlp(), model, keras.distillation.LogitsDistillation()
        )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    compiled(
        model,
        "adam",
        loss if y is Y else [loss, loss],
        metrics=["accuracy"] if y is Y else ["accuracy", "accuracy"],
    )
    if on_batch:
        model.train_on_batch(X, y)
        # What exists is not looked for in each step.
        monkeypatch.setattr(
            type(model),
            "compute_output_spec",
            lambda *_, **__: pytest.fail("called again"),
        )
        model.train_on_batch(X, y)
    else:
        model.fit(X, y, epochs=2, batch_size=4, verbose=0)
    assert len(traced) == 1
