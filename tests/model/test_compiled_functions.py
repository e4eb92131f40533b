"""Settings of a model and kinds of data may change at any time, even during `fit`, and
take effect; and calls outside of compiled functions."""

import contextlib

import helpers
import keras
import numpy as np
import pytest
from helpers import (
    BACKEND,
    CROSSENTROPY,
    RUNS,
    Noted,
    assert_close,
    both_step_modes,
    chain,
    compiled,
    distiller,
    mlp,
    naive_lif,
    not_on,
    only_on,
    spiking,
    to_numpy,
    training_results,
    two_methods,
)
from keras import layers, ops

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


def loss_of(x, model):
    return float(CROSSENTROPY(Y, outputs_at(3, model, x).mean(axis=0)))


class Sets(keras.callbacks.Callback):
    """Sets attributes of the model in each batch."""

    def __init__(self, settings):
        super().__init__()
        self.settings = list(settings)
        self.losses = []

    def on_train_batch_end(self, batch, logs=None):
        self.losses.append(float(logs["loss"]))
        self.model.reset_metrics()
        if self.settings:
            for attribute, value in self.settings.pop(0).items():
                setattr(self.model, attribute, value)


# Keras has none of several steps on PyTorch.
@pytest.mark.parametrize("number", [1] if helpers.BACKEND == "torch" else [1, 2])
def test_a_callback_sets_time_steps_and_whether_sequences_are_returned(number):
    model = standing_still(timesteps=4)
    model.compile(model.optimizer, "mse", steps_per_execution=number)
    sequences = {"timesteps": 2, "return_sequences": True}
    callback = Sets([{"timesteps": 1}, {"timesteps": 2}, sequences])
    x, zeros = np.tile(X, (4 * number, 1)), np.zeros((40 * number, 1, 1), "float32")
    options = {"batch_size": len(X), "shuffle": False, "verbose": 0}
    model.fit(x, zeros, callbacks=[callback], **options)
    outputs = [outputs_at(timesteps, model) for timesteps in (4, 1, 2)]
    expected = [np.mean(one.mean(axis=0) ** 2) for one in outputs]
    expected.append(np.mean(outputs[-1] ** 2))
    assert callback.losses == pytest.approx(expected, rel=1e-5)


@not_on("torch", "Keras has none of several steps there")
@both_step_modes
def test_several_steps_in_an_execution_of_xla_draw_as_single_ones(step_mode):
    """Each batch has other noise, of a layer, and another coding by spikes."""
    weights, x, y = [], np.tile(X, (3, 1)), np.tile(Y, 3)
    for number in (1, 3):
        keras.utils.set_random_seed(0)
        encoder, noise = (
            rsnn.layers.BernoulliEncoder(seed=1),
            layers.Dropout(0.5, seed=2),
        )
        network = chain(encoder, layers.Dense(8), LIF(), noise, layers.Dense(3))
        model = spiking(network, step_mode=step_mode)
        compiled(model, jit_compile=True, steps_per_execution=number)
        before = model.get_weights()
        model.fit(x, y, batch_size=len(X), shuffle=False, verbose=0)
        weights.append(model.get_weights())
        assert not np.allclose(weights[-1][0], before[0])
        assert to_numpy(encoder.seed_generator.state)[1] == 3 * model.timesteps
    assert_close(*weights, rtol=1e-5, atol=1e-6)


class Looks(keras.callbacks.Callback):
    """Predicts inputs in the middle of an epoch, and evaluates them at its end."""

    def __init__(self, x):
        super().__init__()
        self.x = x

    def on_epoch_end(self, epoch, logs=None):
        self.loss = self.model.evaluate(self.x, Y, verbose=0)

    def on_train_batch_end(self, batch, logs=None):
        self.outputs = self.model.predict(self.x, verbose=0)


@pytest.mark.parametrize(
    ("train", "others"),
    [(X, FRAMES), (FRAMES, X)],
    ids=["static, frames", "frames, static"],
)
def test_data_of_training_validation_and_callbacks_may_be_of_different_kinds(
    train, others
):
    model, callback = standing_still(), Looks(others)
    options = {"validation_data": (others, Y), "callbacks": [callback], "verbose": 0}
    history = model.fit(train, Y, epochs=2, **options).history
    loss = pytest.approx(loss_of(train, model), rel=1e-5)
    loss_of_others = pytest.approx(loss_of(others, model), rel=1e-5)
    assert history == {"loss": [loss] * 2, "val_loss": [loss_of_others] * 2}
    assert callback.loss == loss_of_others
    expected = outputs_at(3, model, others).mean(axis=0)
    np.testing.assert_allclose(callback.outputs, expected, rtol=1e-5, atol=1e-6)
    for x, wanted in ((others, loss_of_others), (train, loss)):
        assert model.train_on_batch(x, Y) == wanted
        assert model.test_on_batch(x, Y) == wanted


@not_on("jax", "Keras takes a model's weights away on JAX while it predicts")
def test_threads_predict_inputs_of_different_kinds_at_once():
    model, failed = spiking(), []
    cases = [(x, outputs_at(3, model, x).mean(axis=0)) for x in (X, FRAMES)]

    def predict(x, expected):
        for _ in range(3):
            outputs = model.predict(x, verbose=0)
            if not np.allclose(outputs, expected, rtol=1e-5, atol=1e-6):
                failed.append(x.shape)

    helpers.in_threads(predict, cases * 2)
    assert failed == []


def trained(model):
    """The weights after one batch, with the same initial weights each time."""
    keras.utils.set_random_seed(3)
    random = np.random.default_rng(0)
    drawn = [random.normal(0, 1, weights.shape) for weights in model.get_weights()]
    model.set_weights(drawn)
    model.optimizer.learning_rate = 0.1
    model.train_on_batch(FRAMES, Y)
    return model.get_weights()


def normalized():
    return chain(layers.Dense(8), layers.BatchNormalization(), LIF(), layers.Dense(3))


@pytest.mark.parametrize(
    ("attribute", "first", "second"),
    [("gradient", "rate", "bptt"), ("step_mode", "multi", "single")],
)
def test_settings_changed_after_compile_take_effect(attribute, first, second):
    expected = {
        value: trained(compiled(spiking(normalized(), **{attribute: value})))
        for value in (first, second)
    }
    assert not all(map(np.allclose, *expected.values()))
    model = compiled(spiking(normalized(), **{attribute: first}))
    for value in (first, second, first):
        setattr(model, attribute, value)
        assert_close(trained(model), expected[value], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("engine", "options"),
    [
        ("eager", {"run_eagerly": True}),
        ("recorded", {}),
        ("compiled", {"jit_compile": True}),
    ],
)
def test_each_epoch_of_fit_has_the_gradient_that_a_callback_sets(engine, options):
    one, two = rsnn.gradients.Rate(), rsnn.gradients.Rate(windows=2)
    methods = [two] * 3 + [one] * 3 + [two]
    alone = {
        method: compiled(spiking(normalized(), gradient=method))
        for method in (one, two)
    }
    model = spiking(normalized())
    first, ends = model.get_weights(), []
    for schedule in (methods, [one] * 7, [two] * 7):
        weights = first
        for method in schedule:
            alone[method].set_weights(weights)
            alone[method].train_on_batch(FRAMES, Y)
            weights = alone[method].get_weights()
        ends.append(weights)

    def choose(epoch, logs):
        model.gradient = methods[epoch]

    callback = keras.callbacks.LambdaCallback(on_epoch_begin=choose)
    with early_graphs():
        compiled(model, **options)
        model.fit(FRAMES, Y, epochs=7, callbacks=[callback], verbose=0)
    if BACKEND == "torch":
        assert model.execution == engine
    expected, *others = ends
    assert_close(model.get_weights(), expected, rtol=1e-4, atol=1e-6)
    for other in others:
        assert not np.allclose(other[0], expected[0], rtol=1e-3)


def early_graphs():
    """A context in which PyTorch records early, and a compiled graph is the recorded
    one."""
    if BACKEND != "torch":
        return contextlib.nullcontext()
    from recorded_calls import recording

    return recording()


def counted():
    """A model, and a function that evaluates it with a setting and says how often
    Python ran a layer."""
    model = standing_still(network=chain(Noted(), mlp()))
    model.run_eagerly = False

    def runs(attribute, value):
        setattr(model, attribute, value)
        before = len(RUNS)
        model.evaluate(X, Y, verbose=0)
        return len(RUNS) - before

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


@not_on("torch", "PyTorch records calls instead")
@pytest.mark.usefixtures("keeps_two_functions")
def test_only_the_functions_of_the_latest_settings_are_kept():
    _, runs = counted()
    for timesteps in (1, 2, 1, 3, 1):
        last = runs("timesteps", timesteps)
    assert last == 0
    assert runs("timesteps", 2) > 0


def two_outputs():
    network = mlp()
    outputs = [network.outputs[0], network.layers[-2].output]
    return spiking(keras.Model(network.inputs, outputs))


@only_on("tensorflow", "other backends make all variables before")
@pytest.mark.parametrize("make", [spiking, two_outputs, distiller])
def test_variables_of_optimizers_metrics_and_losses_do_not_trace_a_step_again(
    make, monkeypatch
):
    traced, train_step = [], keras.Model.train_step

    def counting(model, data):
        traced.append(model)
        return train_step(model, data)

    monkeypatch.setattr(keras.Model, "train_step", counting)
    loss, model, y, metrics = CROSSENTROPY, make(), Y, ["accuracy"]
    if make is two_outputs:
        loss, y, metrics = [loss] * 2, [Y] * 2, metrics * 2
    compiled(model, "adam", loss, metrics=metrics)
    model.train_on_batch(X, y)
    if make is two_outputs:
        # What exists is not looked for in each step.
        monkeypatch.setattr(type(model), "compute_output_spec", None)
    model.train_on_batch(X, y)
    assert len(traced) == 1


class Counted(rsnn.surrogates.Sigmoid):
    """A surrogate that counts how often its derivative is computed."""

    calls = 0

    def derivative(self, distance):
        type(self).calls += 1
        return super().derivative(distance)


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(0.0, 2.0, (4, 5)).astype("float32")


def small(**arguments):
    keras.utils.set_random_seed(0)
    network = chain(
        layers.Dense(8),
        layers.BatchNormalization(momentum=0.5),
        LIF(learn_threshold=True, surrogate=Counted(), name="neurons"),
        layers.Dropout(0.5, seed=1),
        layers.Dense(3),
        shape=(5,),
    )
    return spiking(network, 4, **arguments)


def untracked(model, x, **options):
    """The outputs of a call that nothing differentiates."""
    if BACKEND != "torch":
        return to_numpy(model(x, **options))
    import torch

    with torch.no_grad():
        return to_numpy(model(x, **options))


def squares(y, outputs):
    return ops.sum(outputs**2)


@two_methods
def test_a_training_call_that_nothing_differentiates_gives_the_same_numbers(
    x, gradient, step_mode
):
    model, twin = (small(gradient=gradient, step_mode=step_mode) for _ in range(2))
    _, gradients, expected = training_results(twin, x, x, squares)
    assert any(np.any(by_weight) for by_weight in gradients.values())
    outputs = untracked(model, x, training=True)
    np.testing.assert_allclose(outputs, expected, rtol=1e-6)
    assert_close(model.variables, list(map(to_numpy, twin.variables)), rtol=1e-6)


@both_step_modes
def test_a_call_in_inference_that_nothing_differentiates_has_no_derivative(
    x, step_mode
):
    model = small(step_mode=step_mode)
    Counted.calls = 0
    outputs = untracked(model, x)
    assert Counted.calls == 0
    np.testing.assert_allclose(outputs, model.predict(x, verbose=0), rtol=1e-5)


def test_a_call_follows_what_is_assigned_to_a_model_and_to_its_neurons(x):
    model = small()
    for change in (
        lambda: setattr(model, "timesteps", 7),
        lambda: model.get_layer("neurons").set_threshold(0.5),
        lambda: setattr(model, "return_sequences", True),
    ):
        before = to_numpy(model(x))
        change()
        outputs = to_numpy(model(x))
        assert not np.array_equal(outputs, before)
        np.testing.assert_allclose(outputs, model.predict(x, verbose=0), rtol=1e-5)


@only_on("jax", "elsewhere calls compile no loops")
def test_a_second_call_compiles_nothing(x):
    import jax

    events = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, seconds, **_: events.append(event)
    )
    for step_mode in ("multi", "single"):
        model = small(step_mode=step_mode)
        for training in (False, True):
            model(x, training=training)
            events.clear()
            model(x, training=training)
            assert not [event for event in events if "compile" in event]
