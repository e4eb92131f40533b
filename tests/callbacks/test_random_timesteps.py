"""RandomTimesteps and TimestepSchedule: another number of time steps in each batch, or
in the first epochs."""

import keras
import numpy as np
import pytest
from helpers import (
    Batches,
    assert_close,
    chain,
    compiled,
    data,
    distiller,
    spiking,
    to_numpy,
)
from keras import layers
from numpy.testing import assert_allclose, assert_array_equal

import keras_ratesnn as rsnn
from keras_ratesnn.callbacks import RandomTimesteps, TimestepSchedule
from keras_ratesnn.gradients import SLTT, Rate
from keras_ratesnn.metrics import AnytimeAccuracy

X, Y = data(20)


class Steps(keras.callbacks.Callback):
    """The time steps of a model in each batch of training, and at other calls."""

    def __init__(self, observed):
        super().__init__()
        self.observed, self.training, self.otherwise = observed, [], []

    def on_train_batch_begin(self, batch, logs=None):
        self.training.append(self.observed.timesteps)

    def _look(self, *args, **kwargs):
        self.otherwise.append(self.observed.timesteps)

    on_train_batch_end = on_test_begin = on_test_batch_begin = on_epoch_begin = (
        on_epoch_end
    ) = _look


def trained(model, *callbacks, epochs=2, observed=None, **kwargs):
    """The losses of the epochs and the T of all batches."""
    steps = Steps(observed or model)
    options = {"batch_size": 5, "shuffle": False, "verbose": 0}
    callbacks = [steps, *callbacks]
    history = model.fit(X, Y, epochs=epochs, callbacks=callbacks, **options, **kwargs)
    assert {*steps.otherwise, steps.observed.timesteps} == {3}
    return history.history, steps.training


@pytest.mark.runs_once
def test_all_numbers_are_drawn_alike_and_the_same_everywhere():
    callback = RandomTimesteps(2, 5)
    drawn = [callback.timesteps_of(*batch) for batch in np.ndindex(20, 100)]
    numbers, counts = np.unique(drawn, return_counts=True)
    assert numbers.tolist() == [2, 3, 4, 5]
    assert (abs(counts - 500) < 80).all()
    assert drawn[:8] == [5, 5, 2, 4, 2, 5, 4, 5]
    seeded = RandomTimesteps(2, 5, seed=1)
    assert [seeded.timesteps_of(0, batch) for batch in range(8)] != drawn[:8]


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
    assert_allclose(history["loss"], expected, rtol=1e-5)
    model.timesteps = 3
    validated = [model.evaluate(X, Y, verbose=0)] * 2
    assert_allclose(history["val_loss"], validated, rtol=1e-5)


@pytest.mark.parametrize("first", [0, 2], ids=["from the start", "resumed"])
def test_each_epoch_of_a_schedule_has_its_number_and_all_else_that_of_the_model(first):
    schedule = TimestepSchedule([1, 3], [1, 2, 5])
    options = {"validation_data": (X, Y), "initial_epoch": first}
    _, steps = trained(compiled(spiking()), schedule, epochs=4, **options)
    assert steps[::4] == [1, 2, 2, 5][first:]
    assert steps == np.repeat(steps[::4], 4).tolist()


def test_a_run_may_be_resumed():
    results = []
    for parts in ([(0, 1), (1, 3)], [(0, 3)]):
        keras.utils.set_random_seed(0)
        model, drawn = compiled(spiking()), []
        for first, last in parts:
            options = {"epochs": last, "initial_epoch": first}
            drawn += trained(model, RandomTimesteps(1, 4), **options)[1]
        results.append([drawn, to_numpy(model.trainable_variables)])
    keras.tree.map_structure(assert_array_equal, *results)


class Fails(keras.callbacks.Callback):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def on_train_batch_begin(self, batch, logs=None):
        if batch == 1:
            raise self.error


def test_after_an_error_of_another_callback_the_model_has_its_own_number():
    callback = RandomTimesteps(5, 5)
    model = compiled(spiking())
    error = ValueError("of something else")
    with pytest.raises(ValueError, match="of something else") as raised:
        trained(model, callback, Fails(error))
    # It gets no note about inputs.
    assert not getattr(raised.value, "__notes__", [])
    assert model.timesteps == 3
    trained(model, callback, epochs=1)


def test_the_student_of_a_distiller_is_trained_with_random_numbers():
    student, callback = spiking(), RandomTimesteps(4, 6)
    model = compiled(distiller(student))
    _, drawn = trained(model, callback, epochs=1, observed=student)
    assert drawn == [callback.timesteps_of(0, batch) for batch in range(4)]


NOT_A_LIST = "`boundaries` must be a list or tuple of integers. .*boundaries=2 of type"


@pytest.mark.runs_once
@pytest.mark.parametrize(
    ("make", "arguments", "kind", "said"),
    [
        (RandomTimesteps, (5, 4), ValueError, "`high` must be `low` or more"),
        (RandomTimesteps, (1, 10**9), ValueError, r"`high` must be below `low` \+ 100"),
        (TimestepSchedule, ([2, 2], [1, 2, 4]), ValueError, r"grow.*=\[2, 2\]"),
        (TimestepSchedule, (2, [1, 4]), TypeError, NOT_A_LIST),
        (TimestepSchedule, ([2], [4]), ValueError, "steps more than `boundaries`"),
    ],
)
def test_a_wrong_argument_is_an_error_that_names_it(make, arguments, kind, said):
    with pytest.raises(kind, match=said):
        make(*arguments)


def network_of_six_steps():
    normalization = rsnn.layers.TemporalEffectiveBatchNormalization(6)
    return chain(normalization, rsnn.layers.LIF(), layers.Dense(3))


NUMBERS = RandomTimesteps(1, 8)
OF_NUMBERS = "`low` and `high` of RandomTimesteps must be.*low=1, high=8.*"
RANDOM_STEPS = {"gradient": SLTT(random_steps=3), "step_mode": "single"}


@pytest.mark.parametrize(
    ("callback", "make", "said"),
    [
        (NUMBERS, lambda: spiking(gradient=Rate(windows=2)), f"{OF_NUMBERS}`windows`"),
        (NUMBERS, lambda: spiking(**RANDOM_STEPS), f"{OF_NUMBERS}`random_steps`"),
        (
            NUMBERS,
            lambda: spiking(network_of_six_steps()),
            f"{OF_NUMBERS}`timesteps` must be at most 6",
        ),
        (
            TimestepSchedule([1], [1, 4]),
            lambda: spiking(gradient=Rate(windows=2), timesteps=4),
            r"`values` of TimestepSchedule must be.*values=\[1, 4\].*`windows`",
        ),
    ],
    ids=["windows", "random steps", "a layer", "schedule"],
)
def test_numbers_that_cannot_be_trained_are_an_error_before_training(
    callback, make, said
):
    model = compiled(make())
    before = to_numpy(model.variables)
    with pytest.raises(ValueError, match=f"(?s){said}"):
        model.fit(X, Y, verbose=0, callbacks=[callback])
    assert_close(to_numpy(model.variables), before, rtol=0)


def test_inputs_with_time_are_an_error():
    frames, _ = data(20, (3, 6))
    model = compiled(spiking())
    said = "`x` must have no time axis with RandomTimesteps.*Received: time in"
    with pytest.raises(ValueError, match=said):
        model.fit(frames, Y, verbose=0, callbacks=[RandomTimesteps(1, 4)])
    # Of a data set nothing is known before its batches.
    with pytest.raises(ValueError, match="one frame for each of timesteps=5") as raised:
        model.fit(Batches(frames, Y), verbose=0, callbacks=[RandomTimesteps(5, 5)])
    (note,) = raised.value.__notes__
    assert "inputs must then have no time axis" in note
    assert model.timesteps == 3
    model.fit(frames, Y, verbose=0)


@pytest.mark.runs_once
def test_a_metric_of_each_step_is_an_error_before_training_if_it_is_of_another_number():
    model, loss = spiking(return_sequences=True), rsnn.losses.TemporalDistillation()
    said = "`metrics` must be without AnytimeAccuracy with .*AccuracyOverTime"
    for metrics in (
        {"metrics": [AnytimeAccuracy(3)]},
        {"weighted_metrics": [["mse", AnytimeAccuracy(3)]]},
    ):
        compiled(model, loss=loss, **metrics)
        with pytest.raises(ValueError, match=said):
            model.fit(X, Y, verbose=0, callbacks=[RandomTimesteps(1, 4)])
    compiled(model, loss=loss, metrics=[AnytimeAccuracy(3)])
    trained(model, RandomTimesteps(3, 3), epochs=1)


def test_another_model_is_an_error():
    outer = chain(spiking())
    outer.compile("sgd", "mse")
    said = "`callbacks` may have RandomTimesteps in `fit` of a SpikingModel"
    with pytest.raises(TypeError, match=said):
        outer.fit(X, np.zeros((20, 3)), verbose=0, callbacks=[RandomTimesteps(1, 4)])
