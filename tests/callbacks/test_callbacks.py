"""Callbacks for `fit`: what they put in the logs, and that training goes on as without
them."""

import builtins
import time
import warnings

import keras
import numpy as np
import pytest
from helpers import compiled, data, mlp, spiking, to_numpy
from keras import layers

import keras_ratesnn as rsnn


@pytest.mark.parametrize("step_mode", ["multi", "single"])
def test_the_firing_rate_of_each_epoch_is_that_of_all_neurons_of_the_trained_network(
    step_mode,
):
    model = compiled(spiking(mlp(), step_mode=step_mode))
    x, y = data()
    history = model.fit(
        x, y, epochs=2, callbacks=[rsnn.callbacks.FiringRate(x)], verbose=0
    ).history
    rates = history["firing_rate"]
    assert len(rates) == 2
    assert [*history] == ["loss", "firing_rate"]
    (layer,) = rsnn.describe(model, x, verbose=False).layers
    assert rates[-1] == pytest.approx(layer.firing_rate)
    assert 0 < rates[-1] < 1


def network():
    inputs = keras.Input((6,))
    x = rsnn.layers.LIF(name="first")(
        layers.BatchNormalization()(layers.Dense(8, name="a")(inputs))
    )
    x = layers.Dropout(0.3, seed=1)(x)
    return keras.Model(
        inputs,
        layers.Dense(3, name="c")(
            rsnn.layers.LIF(name="second")(layers.Dense(8, name="b")(x))
        ),
    )


def test_rates_and_agreement_are_in_the_logs_and_training_goes_on_as_without(tmp_path):
    x, y = data(24)
    callbacks = [
        rsnn.callbacks.FiringRate(x, by_layer=True, log_dir=tmp_path),
        rsnn.callbacks.GradientAgreement(x, y, every=2),
        rsnn.callbacks.AccuracyOverTime(x, y),
        rsnn.callbacks.Throughput(24),
        keras.callbacks.CSVLogger(str(tmp_path / "log.csv")),
    ]
    trained = []
    for given in ([], callbacks):
        keras.utils.set_random_seed(0)
        model = compiled(spiking(network()), metrics=["accuracy"])
        options = {"validation_data": (x, y), "epochs": 3, "batch_size": 8}
        logs = model.fit(x, y, callbacks=given, verbose=0, **options).history
        trained.append([to_numpy(model.variables), logs["loss"], logs["val_loss"]])
    keras.tree.map_structure(np.testing.assert_array_equal, *trained)
    rates = rsnn.analysis.firing_rates(model, x)
    last_rates = [logs[f"firing_rate/{name}"][-1] for name in rates.layers]
    assert last_rates == pytest.approx(rates.mean.tolist())
    agreement = rsnn.analysis.gradient_agreement(model, x, y)
    for index, name in enumerate(agreement.layers):
        first, second, last = logs[f"gradient_cosine/{name}"]
        assert first == second
        assert last == pytest.approx(agreement.cosine[index], abs=1e-5)
        ratio = logs[f"gradient_norm_ratio/{name}"][-1]
        assert ratio == pytest.approx(agreement.norm_ratio[index], rel=1e-4)
    header = (tmp_path / "log.csv").read_text().splitlines()[0].split(",")
    assert {"firing_rate/first", "gradient_cosine/a", "val_loss"} <= set(header)


@pytest.mark.parametrize("teacher", [False, True])
def test_what_is_measured_reaches_the_callbacks_that_stand_before_it(teacher, tmp_path):
    x, y = data(24)
    student = compiled(spiking(network()))
    log = tmp_path / "log.csv"
    callbacks = [
        keras.callbacks.CSVLogger(str(log)),
        rsnn.callbacks.FiringRate(x),
        keras.callbacks.EarlyStopping("firing_rate", mode="min"),
        rsnn.callbacks.Throughput(24),
    ]
    model = distiller_of(student) if teacher else student
    model.fit(x, y, epochs=1, callbacks=callbacks, verbose=0)
    header = log.read_text().splitlines()[0].split(",")
    assert {"firing_rate", "samples_per_second"} <= set(header)


def order_in_fit(callbacks):
    """The callbacks, in the order in which `fit` calls them."""
    order, x, y = [], *data()

    def noted(callback, method):
        def on_epoch_end(epoch, logs=None):
            order.append(callback)
            method(epoch, logs)

        return on_epoch_end

    for callback in dict.fromkeys(keras.tree.flatten(callbacks)):
        callback.on_epoch_end = noted(callback, callback.on_epoch_end)
    compiled(spiking(mlp())).fit(x, y, callbacks=callbacks, verbose=0)
    return order


def test_callbacks_move_only_in_front_of_those_of_keras_that_only_read_the_logs(
    tmp_path,
):
    own, stop = keras.callbacks.Callback(), keras.callbacks.EarlyStopping("loss")
    log = keras.callbacks.CSVLogger(str(tmp_path / "log.csv"))
    throughput = rsnn.callbacks.Throughput(24)
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
    own, random = keras.callbacks.Callback(), rsnn.callbacks.RandomTimesteps(1, 2)
    assert order_in_fit([own, random]) == [random, own]
    schedule = rsnn.callbacks.TimestepSchedule([1], [1, 2])
    said = "`callbacks` may have one .* Received: RandomTimesteps and TimestepSchedule"
    with pytest.raises(ValueError, match=said):
        order_in_fit([random, own, schedule])


def test_histograms_are_those_of_the_rates_of_single_neurons(tmp_path):
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    x, y = data(24)
    model = compiled(spiking(network()))
    callback = rsnn.callbacks.FiringRate(x, log_dir=tmp_path)
    model.fit(x, y, epochs=2, callbacks=[callback], verbose=0)
    # A training that goes on writes a file of its own.
    model.fit(x, y, epochs=3, initial_epoch=2, callbacks=[callback], verbose=0)
    found = {}
    for path in sorted(tmp_path.iterdir()):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                found[value.tag, event.step] = np.frombuffer(
                    value.tensor.tensor_content
                ).reshape(-1, 3)
    assert sorted(found) == [
        (f"firing_rate/{name}", step)
        for name in ("first", "second")
        for step in range(3)
    ]
    rates = rsnn.analysis.firing_rates(model, x).by_neuron[0]
    histogram = found["firing_rate/first", 2]
    assert histogram[:, 2].sum() == 8
    assert histogram[0, 0] == pytest.approx(rates.min())
    assert histogram[-1, 1] == pytest.approx(rates.max())


def messages_of_death(weights, callbacks):
    """The warnings of a training in which a layer gets other weights after its first
    epoch, before or after what the callbacks do then."""
    x, y = data(24)
    model = compiled(spiking(network()))
    layer = model.network.get_layer("b")

    def change(epoch, logs):
        if epoch == 0:
            layer.set_weights(weights)

    change_weights = keras.callbacks.LambdaCallback(on_epoch_end=change)
    given = [change_weights if one is None else one for one in callbacks]
    with pytest.warns(UserWarning, match="DEAD") as warned:
        model.fit(x, y, epochs=3, callbacks=given, verbose=0)
    messages = [str(warning.message) for warning in warned]
    return [message for message in messages if "DEAD" in message]


def test_a_layer_is_warned_of_when_it_dies_and_not_again():
    callback = rsnn.callbacks.FiringRate(data(24)[0], by_layer=True)
    weights = [np.zeros((8, 8)), np.full(8, -10.0)]
    (message,) = messages_of_death(weights, [callback, None])
    assert "DEAD after epoch 2: no neuron spikes any more in second" in message
    assert "put a BatchNormalization before it" in message


def test_a_layer_that_dies_of_nan_is_warned_of_as_such(tmp_path):
    callback = rsnn.callbacks.FiringRate(data(24)[0], by_layer=True, log_dir=tmp_path)
    weights = [np.full((8, 8), np.nan), np.zeros(8)]
    message, *_ = messages_of_death(weights, [None, callback])
    assert "DEAD after epoch 1: the rate is NaN in second" in message
    assert "The weights b/kernel are NaN or infinite" in message
    assert "BatchNormalization" not in message


def test_a_folder_for_histograms_without_tensorboard_is_an_error(monkeypatch, tmp_path):
    original = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("tensorboard"):
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match="`log_dir` needs TensorBoard"):
        rsnn.callbacks.FiringRate(data()[0], log_dir=tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rsnn.callbacks.FiringRate(data()[0])


def test_the_accuracy_after_each_step_is_in_the_logs_at_the_epochs_asked_for():
    x, y = data(24)
    model = compiled(spiking(network()))

    class Schedule(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            model.timesteps = 2 + epoch

    callbacks = [rsnn.callbacks.AccuracyOverTime(x, y, every=2), Schedule()]
    columns = [f"accuracy_over_time/t{t}" for t in range(1, model.timesteps + 1)]
    history = model.fit(
        x, y, epochs=3, batch_size=8, callbacks=callbacks, verbose=0
    ).history
    assert [name for name in history if name != "loss"] == columns
    expected = rsnn.analysis.accuracy_over_time(
        model, x, y, timesteps=len(columns), verbose=0
    )
    for name, accuracy in zip(columns, expected.accuracy, strict=True):
        first, second, last = history[name]
        assert first == second
        assert last == pytest.approx(accuracy)


CROSSENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.mark.parametrize(
    "make", [rsnn.callbacks.AccuracyOverTime, rsnn.callbacks.GradientAgreement]
)
def test_labels_that_do_not_fit_end_a_run_before_its_first_epoch(make):
    x, y = data(24)
    epochs = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda *_: pytest.fail("the training has begun")
    )
    for labels, message in (
        (y[:9], "the same number of samples"),
        (y + 5, "`y` must be labels from 0 to 2"),
    ):
        model = spiking(network())
        model.compile("sgd", CROSSENTROPY)
        with pytest.raises(ValueError, match=message):
            model.fit(x, y, callbacks=[make(x, labels), epochs], verbose=0)


def distiller_of(student):
    distiller = rsnn.distillation.Distiller(
        spiking(network()), student, keras.distillation.LogitsDistillation()
    )
    distiller.compile("sgd", CROSSENTROPY)
    return distiller


MEASURING = {
    "FiringRate": lambda x: rsnn.callbacks.FiringRate(x, by_layer=True),
    "AccuracyOverTime": lambda x: rsnn.callbacks.AccuracyOverTime(x, data(24)[1]),
    "GradientAgreement": lambda x: rsnn.callbacks.GradientAgreement(x, data(24)[1]),
}


def test_of_a_distiller_the_student_is_measured_and_training_goes_on_as_without():
    x, y = data(24)
    trained = []
    for callbacks in ([], [make(x) for make in MEASURING.values()]):
        keras.utils.set_random_seed(0)
        student = spiking(network())
        options = {"epochs": 2, "batch_size": 8, "verbose": 0}
        logs = distiller_of(student).fit(x, y, callbacks=callbacks, **options).history
        trained.append(to_numpy(student.variables))
    keras.tree.map_structure(np.testing.assert_array_equal, *trained)
    rates = rsnn.analysis.firing_rates(student, x)
    accuracy = rsnn.analysis.accuracy_over_time(student, x, y, verbose=0).accuracy
    agreement = rsnn.analysis.gradient_agreement(student, x, y, loss=CROSSENTROPY)
    for names, expected in (
        (["firing_rate"], [rates.mean.mean()]),
        ([f"firing_rate/{name}" for name in rates.layers], rates.mean),
        ([f"accuracy_over_time/t{t}" for t in range(1, 4)], accuracy),
        ([f"gradient_cosine/{name}" for name in agreement.layers], agreement.cosine),
    ):
        last = [logs[name][-1] for name in names]
        np.testing.assert_allclose(last, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("make", MEASURING.values(), ids=MEASURING)
def test_a_student_without_neurons_is_an_error_that_says_so(make):
    x, y = data(24)
    distiller = distiller_of(keras.Sequential([keras.Input((6,)), layers.Dense(3)]))
    with pytest.raises(TypeError, match="`model` must be a SpikingModel"):
        distiller.fit(x, y, callbacks=[make(x)], verbose=0)


def test_throughput_counts_the_samples_of_the_steps_and_leaves_out_what_follows_them(
    monkeypatch,
):
    seconds = iter([10.0, 12.0, 15.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(seconds))
    callback = rsnn.callbacks.Throughput(100)
    callback.set_params({"steps": 4})
    in_batch, of_epoch = {}, {}
    callback.on_epoch_begin(0)
    callback.on_train_batch_end(0, in_batch)
    callback.on_train_batch_end(3, {})
    callback.on_epoch_end(0, of_epoch)
    assert in_batch == {"samples_per_second": 25 / 2}
    assert of_epoch == {"samples_per_second": 100 / 5}


def test_the_bar_of_fit_shows_throughput_and_firing_rate(capsys):
    x, y = data(24)
    model = compiled(spiking(network()))
    callbacks = [rsnn.callbacks.FiringRate(x), rsnn.callbacks.Throughput(24)]
    history = model.fit(
        x, y, epochs=1, batch_size=8, callbacks=callbacks, verbose=1
    ).history
    last = capsys.readouterr().out.splitlines()[-1]
    assert f"firing_rate: {history['firing_rate'][0]:.4f}" in last
    assert f"samples_per_second: {history['samples_per_second'][0]:.4f}" in last


def test_arguments_that_make_no_sense_are_an_error():
    with pytest.raises(ValueError, match="`samples` must be 1 or more"):
        rsnn.callbacks.Throughput(0)
    with pytest.raises(ValueError, match="`every` must be 1 or more"):
        rsnn.callbacks.GradientAgreement(*data(), every=0)
    with pytest.raises(ValueError, match="`gradient` must be one of"):
        rsnn.callbacks.GradientAgreement(*data(), other="backprop")
