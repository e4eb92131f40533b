"""Callbacks for `fit`: what they put in the logs, and that training goes on as without
them."""

import builtins
import time
import warnings

import keras
import numpy as np
import pytest
from helpers import (
    CROSSENTROPY,
    chain,
    compiled,
    data,
    distiller,
    mlp,
    spiking,
    to_numpy,
)
from keras import layers

import keras_ratesnn as rsnn
from keras_ratesnn import analysis
from keras_ratesnn.callbacks import (
    AccuracyOverTime,
    FiringRate,
    GradientAgreement,
    RandomTimesteps,
    Throughput,
    TimestepSchedule,
)

X, Y = data(24)


def network():
    return chain(
        layers.Dense(8, name="a"),
        layers.BatchNormalization(),
        rsnn.layers.LIF(name="first"),
        layers.Dropout(0.3, seed=1),
        layers.Dense(8, name="b"),
        rsnn.layers.LIF(name="second"),
        layers.Dense(3, name="c"),
    )


@pytest.mark.parametrize(
    ("is_student", "step_mode"), [(False, "multi"), (True, "single")]
)
def test_measurements_are_in_the_logs_and_training_goes_on_as_without(
    is_student, step_mode, tmp_path
):
    log = tmp_path / "log.csv"
    callbacks = [
        # It stands before what is measured.
        keras.callbacks.CSVLogger(str(log)),
        FiringRate(X, by_layer=True, log_dir=tmp_path),
        GradientAgreement(X, Y, every=2),
        AccuracyOverTime(X, Y),
        keras.callbacks.EarlyStopping("firing_rate", mode="min", patience=9),
        Throughput(24),
    ]
    trained = []
    for given in ([], callbacks):
        keras.utils.set_random_seed(0)
        model = spiking(network(), step_mode=step_mode)
        taught = distiller(model, spiking(network()))
        fitted = compiled(taught if is_student else model)
        options = {"validation_data": (X, Y), "epochs": 3, "batch_size": 8}
        logs = fitted.fit(X, Y, callbacks=given, verbose=0, **options).history
        trained.append([to_numpy(model.variables), logs["loss"], logs["val_loss"]])
    keras.tree.map_structure(np.testing.assert_array_equal, *trained)
    rates = analysis.firing_rates(model, X)
    accuracy = analysis.accuracy_over_time(model, X, Y, verbose=0).accuracy
    agreement = analysis.gradient_agreement(model, X, Y, loss=CROSSENTROPY)
    cosines = [f"gradient_cosine/{name}" for name in agreement.layers]
    ratios = [f"gradient_norm_ratio/{name}" for name in agreement.layers]
    for names, expected in (
        ([f"firing_rate/{name}" for name in rates.layers], rates.mean),
        ([f"accuracy_over_time/t{t}" for t in range(1, 4)], accuracy),
        (cosines, agreement.cosine),
        (ratios, agreement.norm_ratio),
    ):
        last = [logs[name][-1] for name in names]
        np.testing.assert_allclose(last, expected, rtol=1e-4, atol=1e-5)
    for name in cosines:
        first, second, _ = logs[name]
        assert first == second
    header = log.read_text().splitlines()[0].split(",")
    assert set(logs) <= set(header)


def order_in_fit(callbacks):
    """The callbacks, in the order in which `fit` calls them."""
    order = []

    def noted(callback, method):
        def on_epoch_end(epoch, logs=None):
            order.append(callback)
            method(epoch, logs)

        return on_epoch_end

    for callback in dict.fromkeys(keras.tree.flatten(callbacks)):
        callback.on_epoch_end = noted(callback, callback.on_epoch_end)
    compiled(spiking(mlp())).fit(X, Y, callbacks=callbacks, verbose=0)
    return order


def test_callbacks_move_only_in_front_of_those_of_keras_that_only_read_the_logs(
    tmp_path,
):
    own, stop = keras.callbacks.Callback(), keras.callbacks.EarlyStopping("loss")
    log = keras.callbacks.CSVLogger(str(tmp_path / "log.csv"))
    throughput = Throughput(24)
    assert order_in_fit(throughput) == [throughput]
    assert order_in_fit([own, throughput, log]) == [own, throughput, log]
    order = order_in_fit([own, log, [stop, throughput], own])
    assert order == [own, throughput, log, stop, own]
    # It may change what is measured, as keras.callbacks.SwapEMAWeights does.
    said = "CSVLogger will not see what Throughput adds .* and Callback between them"
    with pytest.warns(UserWarning, match=said):
        order = order_in_fit([log, own, stop, throughput])
    assert order == [log, own, throughput, stop]
    own.adds_to_logs = True
    assert order_in_fit([log, own]) == [own, log]


def test_the_callback_that_sets_the_time_steps_of_a_batch_comes_first_and_is_alone():
    own, random = keras.callbacks.Callback(), RandomTimesteps(1, 2)
    assert order_in_fit([own, random]) == [random, own]
    said = "`callbacks` may have one .* Received: RandomTimesteps and TimestepSchedule"
    with pytest.raises(ValueError, match=said):
        order_in_fit([random, own, TimestepSchedule([1], [1, 2])])


def test_histograms_of_the_rates_of_single_neurons_are_written(tmp_path):
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    model = compiled(spiking(network()))
    callback = FiringRate(X, log_dir=tmp_path)
    model.fit(X, Y, epochs=2, callbacks=[callback], verbose=0)
    # A training that goes on writes a file of its own.
    model.fit(X, Y, epochs=3, initial_epoch=2, callbacks=[callback], verbose=0)
    events = [
        event
        for path in sorted(tmp_path.iterdir())
        for event in EventFileLoader(str(path)).Load()
    ]
    histograms = {}
    for event in events:
        for value in event.summary.value:
            numbers = np.frombuffer(value.tensor.tensor_content)
            histograms[value.tag, event.step] = numbers.reshape(-1, 3)
    tags = "firing_rate/first", "firing_rate/second"
    assert sorted(histograms) == [(tag, step) for tag in tags for step in range(3)]
    counts = histograms["firing_rate/first", 2][:, 2]
    assert counts.sum() == 8


@pytest.mark.parametrize(
    ("kernel", "bias", "comes_first", "said", "advice"),
    [
        (0.0, -10.0, True, "epoch 2: no neuron spikes any more in second", True),
        (np.nan, 0.0, False, "epoch 1: the rate is NaN in second", False),
    ],
    ids=["silent", "nan"],
)
def test_a_layer_is_warned_of_when_it_dies_and_not_again(
    kernel, bias, comes_first, said, advice, tmp_path
):
    """It gets other weights after the first epoch."""
    model = compiled(spiking(network()))
    weights = [np.full((8, 8), kernel), np.full(8, bias)]

    def change(epoch, logs):
        if epoch == 0:
            model.network.get_layer("b").set_weights(weights)

    measure = FiringRate(X, by_layer=True, log_dir=None if advice else tmp_path)
    callbacks = [keras.callbacks.LambdaCallback(on_epoch_end=change)]
    callbacks.insert(0 if comes_first else 1, measure)
    with pytest.warns(UserWarning, match="DEAD") as warned:
        model.fit(X, Y, epochs=3, callbacks=callbacks, verbose=0)
    texts = [str(warning.message) for warning in warned]
    message, *again = [text for text in texts if "DEAD" in text]
    assert f"DEAD after {said}" in message
    assert ("put a BatchNormalization before it" in message) == advice
    if advice:
        assert not again
    else:
        assert "The weights b/kernel are NaN or infinite" in message


def test_a_folder_for_histograms_without_tensorboard_is_an_error(monkeypatch, tmp_path):
    original = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("tensorboard"):
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match="`log_dir` needs TensorBoard"):
        FiringRate(X, log_dir=tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        FiringRate(X)


def test_the_accuracy_after_each_step_is_in_the_logs_at_the_epochs_asked_for():
    """Of the steps at the beginning, whatever they become."""
    model = compiled(spiking(network()))

    def more_steps(epoch, logs):
        model.timesteps = 2 + epoch

    schedule = keras.callbacks.LambdaCallback(on_epoch_begin=more_steps)
    callbacks = [AccuracyOverTime(X, Y, every=2), schedule]
    logs = model.fit(X, Y, epochs=3, callbacks=callbacks, verbose=0).history
    columns = [f"accuracy_over_time/t{t}" for t in (1, 2, 3)]
    assert [name for name in logs if name != "loss"] == columns
    expected = analysis.accuracy_over_time(model, X, Y, timesteps=3, verbose=0)
    for name, accuracy in zip(columns, expected.accuracy, strict=True):
        first, second, last = logs[name]
        assert first == second
        assert last == pytest.approx(accuracy)


@pytest.mark.parametrize("make", [AccuracyOverTime, GradientAgreement])
def test_labels_that_do_not_fit_end_a_run_before_its_first_epoch(make):
    epochs = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda *_: pytest.fail("the training has begun")
    )
    model = compiled(spiking(network()))
    with pytest.raises(ValueError, match="`y` must be labels from 0 to 2"):
        model.fit(X, Y, callbacks=[make(X, Y + 5), epochs], verbose=0)


def test_a_student_without_neurons_is_an_error_that_says_so():
    model = compiled(distiller(chain(layers.Dense(3))))
    with pytest.raises(TypeError, match="`model` must be a SpikingModel"):
        model.fit(X, Y, callbacks=[FiringRate(X)], verbose=0)


def test_throughput_counts_the_samples_of_the_steps_and_leaves_out_what_follows_them(
    monkeypatch,
):
    seconds = iter([10.0, 12.0, 15.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(seconds))
    callback = Throughput(100)
    callback.set_params({"steps": 4})
    in_batch, in_epoch = {}, {}
    callback.on_epoch_begin(0)
    callback.on_train_batch_end(0, in_batch)
    callback.on_train_batch_end(3, {})
    callback.on_epoch_end(0, in_epoch)
    assert in_batch == {"samples_per_second": 25 / 2}
    assert in_epoch == {"samples_per_second": 100 / 5}


def test_arguments_that_make_no_sense_are_an_error():
    with pytest.raises(ValueError, match="`samples` must be 1 or more"):
        Throughput(0)
    with pytest.raises(ValueError, match="`gradient` must be one of"):
        GradientAgreement(X, Y, other="backprop")
