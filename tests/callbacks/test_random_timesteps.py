"""RandomTimesteps: another number of time steps in each batch."""

import keras
import numpy as np
import pytest
from helpers import assert_close, compiled, data, mlp, spiking, to_numpy
from keras import layers

import keras_ratesnn as rsnn
from keras_ratesnn.callbacks import RandomTimesteps

X, Y = data(20)


class Seen(keras.callbacks.Callback):
    """The time steps of the model, at each call."""

    def __init__(self):
        super().__init__()
        self.training, self.otherwise = [], []

    def on_train_batch_begin(self, batch, logs=None):
        self.training.append(self.model.timesteps)

    def _look(self, *args, **kwargs):
        self.otherwise.append(self.model.timesteps)

    on_train_batch_end = on_test_begin = on_test_batch_begin = on_epoch_begin = (
        on_epoch_end
    ) = _look


def trained(model, callback, epochs=2, **kwargs):
    """The losses of the epochs and the T of all batches."""
    seen = Seen()
    history = model.fit(
        X,
        Y,
        batch_size=5,
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=[seen, callback],
        **kwargs,
    ).history
    assert set(seen.otherwise) == {3}
    assert model.timesteps == 3
    return history, seen.training


@pytest.mark.runs_once
def test_all_numbers_are_drawn_alike_and_the_same_everywhere():
    callback = RandomTimesteps(2, 5)
    drawn = [
        callback.timesteps_of(epoch, batch)
        for epoch in range(20)
        for batch in range(100)
    ]
    counts = np.bincount(drawn)
    assert counts[:2].tolist() == [0, 0]
    assert len(counts) == 6
    assert (abs(counts[2:] - 500) < 80).all()
    assert drawn[:8] == [5, 5, 2, 4, 2, 5, 4, 5]
    assert [
        RandomTimesteps(2, 5, seed=1).timesteps_of(0, batch) for batch in range(8)
    ] != drawn[:8]


@pytest.mark.parametrize("return_sequences", [False, True])
def test_each_batch_has_its_number_of_steps_and_all_else_that_of_the_model(
    return_sequences,
):
    loss = rsnn.losses.TemporalDistillation() if return_sequences else None
    model = spiking(return_sequences=return_sequences)
    compiled(model, keras.optimizers.SGD(0.0), loss)
    callback = RandomTimesteps(1, 4)
    history, drawn = trained(model, callback, validation_data=(X, Y))
    batches = list(np.ndindex(2, 4))
    assert drawn == [callback.timesteps_of(*batch) for batch in batches]
    assert len(set(drawn)) > 2
    losses = []
    for timesteps, (_, batch) in zip(drawn, batches, strict=True):
        model.timesteps = timesteps
        rows = slice(5 * batch, 5 * batch + 5)
        losses.append(model.evaluate(X[rows], Y[rows], verbose=0))
    expected = np.reshape(losses, (2, 4)).mean(axis=1)
    np.testing.assert_allclose(history["loss"], expected, rtol=1e-5)
    model.timesteps = 3
    validated = [model.evaluate(X, Y, verbose=0)] * 2
    np.testing.assert_allclose(history["val_loss"], validated, rtol=1e-5)


def test_each_number_is_compiled_once():
    model = compiled(spiking())
    _, drawn = trained(model, RandomTimesteps(1, 3), epochs=3)
    assert len(model.train_function._functions) == len(set(drawn)) == 3
    before = dict(model.train_function._functions)
    trained(model, RandomTimesteps(1, 3, seed=7), epochs=2)
    assert model.train_function._functions == before


def test_one_number_is_that_of_the_plain_network():
    results = []
    for callbacks in ([], [RandomTimesteps(3, 3)]):
        keras.utils.set_random_seed(0)
        model = compiled(spiking(timesteps=3))
        model.fit(X, Y, batch_size=5, epochs=2, verbose=0, callbacks=callbacks)
        results.append(model.trainable_variables)
    assert_close(*results, rtol=0)


def test_a_resumed_run_is_that_without_an_interruption():
    results = []
    for parts in ([(0, 3)], [(0, 1), (1, 3)]):
        keras.utils.set_random_seed(0)
        model, drawn = compiled(spiking()), []
        for first, last in parts:
            callback = RandomTimesteps(1, 4)
            drawn += trained(model, callback, epochs=last, initial_epoch=first)[1]
        results.append([drawn, to_numpy(model.trainable_variables)])
    keras.tree.map_structure(np.testing.assert_array_equal, *results)


def test_half_precision_batches_are_those_of_models_with_these_steps_and_one_scale():
    """Gradients overflow at first, so that some steps change nothing but the scale,
    which carries over to the next T."""
    keras.config.set_dtype_policy("mixed_float16")

    def start():
        keras.utils.set_random_seed(0)
        optimizer = keras.optimizers.LossScaleOptimizer(
            keras.optimizers.Adam(0.05), 2.0**18, dynamic_growth_steps=3
        )
        return compiled(spiking(mlp(threshold=0.5)), optimizer)

    callback, model = RandomTimesteps(2, 3), start()
    losses = trained(model, callback)[0]["loss"]
    alone, scales, expected, models = start(), [], [], {}
    for timesteps in (2, 3):
        one = spiking(alone.network, timesteps)
        models[timesteps] = compiled(one, alone.optimizer)
    for epoch, batch in np.ndindex(2, 4):
        rows = slice(5 * batch, 5 * batch + 5)
        one = models[callback.timesteps_of(epoch, batch)]
        expected.append(float(one.train_on_batch(X[rows], Y[rows])))
        scales.append(float(to_numpy(alone.optimizer.dynamic_scale.value)))
    assert scales[0] < 2.0**18, "no step overflows"
    assert max(np.diff(scales)) > 0, "the scale never grows again"
    means = np.reshape(expected, (2, 4)).mean(axis=1)
    np.testing.assert_allclose(losses, means, rtol=1e-6)
    variables = (one.variables + one.optimizer.variables for one in (model, alone))
    assert_close(*variables, rtol=0)


class Fails(keras.callbacks.Callback):
    def on_train_batch_begin(self, batch, logs=None):
        if batch == 1:
            raise KeyboardInterrupt


def test_after_an_error_the_model_has_its_own_number():
    callback = RandomTimesteps(5, 5)
    model = compiled(spiking())
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y, batch_size=5, verbose=0, callbacks=[callback, Fails()])
    assert model.timesteps == 3
    trained(model, callback, epochs=1)


def test_the_student_of_a_distiller_is_trained_with_random_numbers():
    teacher = keras.Sequential([keras.Input((6,)), layers.Dense(3)])
    student, seen = spiking(), []
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    logits = keras.distillation.LogitsDistillation()
    distiller = rsnn.distillation.Distiller(teacher, student, logits)
    distiller.compile("sgd", loss)
    look = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: seen.append(student.timesteps)
    )
    callback = RandomTimesteps(4, 6)
    distiller.fit(X, Y, batch_size=5, verbose=0, callbacks=[callback, look])
    assert seen == [callback.timesteps_of(0, batch) for batch in range(4)]
    assert student.timesteps == 3


@pytest.mark.runs_once
@pytest.mark.parametrize(
    ("arguments", "kind", "said"),
    [
        ((0, 4), ValueError, "`low` must be 1 or more"),
        ((5, 4), ValueError, "`high` must be `low` or more"),
        (
            (1, 10**9),
            ValueError,
            "`high` must be below `low` \\+ 10000, since each number of time steps is "
            "compiled",
        ),
        ((1.0, 4), TypeError, "`low` must be an integer"),
        ((1, "4"), TypeError, "`high` must be an integer"),
        ((1, 4, -1), ValueError, "`seed` must be 0 or more"),
        ((1, 4, None), TypeError, "`seed` must be an integer"),
    ],
)
def test_a_wrong_argument_is_an_error_that_names_it(arguments, kind, said):
    with pytest.raises(kind, match=said):
        RandomTimesteps(*arguments)


def of_six_steps():
    inputs = keras.Input((6,))
    x = rsnn.layers.TemporalEffectiveBatchNormalization(6)(inputs)
    return keras.Model(inputs, layers.Dense(3)(rsnn.layers.LIF()(x)))


RANDOM_STEPS = rsnn.gradients.SLTT(random_steps=3)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: spiking(gradient=rsnn.gradients.Rate(windows=2)), "`windows`"),
        (lambda: spiking(gradient=RANDOM_STEPS, step_mode="single"), "`random_steps`"),
        (lambda: spiking(of_six_steps()), "`timesteps` must be at most 6"),
    ],
    ids=["windows", "random steps", "a layer"],
)
def test_numbers_that_cannot_be_trained_are_an_error_before_training(make, said):
    model = compiled(make())
    before = to_numpy(model.variables)
    message = "`low` and `high` of RandomTimesteps must be.*low=1, high=8.*"
    with pytest.raises(ValueError, match=f"(?s){message}{said}"):
        model.fit(X, Y, verbose=0, callbacks=[RandomTimesteps(1, 8)])
    assert_close(to_numpy(model.variables), before, rtol=0)


def test_inputs_with_time_are_an_error():
    frames, _ = data(20, (3, 6))
    model = compiled(spiking())
    with pytest.raises(
        ValueError,
        match=r"`x` must have no time axis with RandomTimesteps.*Received: time in",
    ):
        model.fit(frames, Y, verbose=0, callbacks=[RandomTimesteps(1, 4)])

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            return frames[:5], Y[:5]

    # Of a data set nothing is known before its batches.
    with pytest.raises(ValueError, match="one frame for each of timesteps=5") as raised:
        model.fit(Batches(), verbose=0, callbacks=[RandomTimesteps(5, 5)])
    assert any(
        "inputs must then have no time axis" in note for note in raised.value.__notes__
    )
    assert model.timesteps == 3
    model.fit(frames, Y, verbose=0)


@pytest.mark.runs_once
def test_a_metric_of_each_step_is_an_error_before_training_if_it_is_of_another_number():
    model, loss = spiking(return_sequences=True), rsnn.losses.TemporalDistillation()
    for metrics in (
        {"metrics": [rsnn.metrics.AnytimeAccuracy(3)]},
        {"weighted_metrics": [["mse", rsnn.metrics.AnytimeAccuracy(3)]]},
    ):
        compiled(model, loss=loss, **metrics)
        for callback in (
            RandomTimesteps(1, 4),
            rsnn.callbacks.TimestepSchedule([1], [1, 3]),
        ):
            with pytest.raises(
                ValueError,
                match=r"`metrics` must be without AnytimeAccuracy with "
                r".*AccuracyOverTime",
            ):
                model.fit(X, Y, verbose=0, callbacks=[callback])
    trained(
        compiled(model, loss=loss, metrics=[rsnn.metrics.AnytimeAccuracy(3)]),
        RandomTimesteps(3, 3),
        epochs=1,
    )


def test_an_error_that_it_cannot_cause_gets_no_note_about_inputs():
    class FailsOtherwise(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            raise ValueError("of something else")

    with pytest.raises(ValueError, match="of something else") as raised:
        compiled(spiking()).fit(
            X, Y, verbose=0, callbacks=[RandomTimesteps(5, 5), FailsOtherwise()]
        )
    assert not getattr(raised.value, "__notes__", [])


def test_another_model_is_an_error():
    network = mlp()
    outer = keras.Sequential([keras.Input((6,)), spiking(network)])
    outer.compile("sgd", "mse")
    with pytest.raises(
        TypeError,
        match="`callbacks` may have RandomTimesteps in `fit` of a SpikingModel",
    ):
        outer.fit(X, np.zeros((20, 3)), verbose=0, callbacks=[RandomTimesteps(1, 4)])
