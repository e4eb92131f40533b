"""Keras' knowledge distillation, with spiking teachers and students."""

import keras
import numpy as np
import pytest
from helpers import (
    assert_close,
    called_before,
    data,
    saved_and_loaded,
    spiking,
    to_numpy,
)
from keras import layers
from keras.distillation import FeatureDistillation, LogitsDistillation

import keras_ratesnn as rsnn
from keras_ratesnn.distillation import Distiller


def ordinary():
    inputs = keras.Input((6,))
    x = layers.Dense(8, activation="relu", name="features")(
        layers.Dense(8, activation="relu")(inputs)
    )
    return keras.Model(inputs, layers.Dense(3, name="logits")(x))


def student(**arguments):
    inputs = keras.Input((6,))
    x = rsnn.layers.LIF()(layers.Dense(8)(inputs))
    x = rsnn.layers.LIF(threshold=0.3, name="spikes")(layers.Dense(8)(x))
    return spiking(keras.Model(inputs, layers.Dense(3, name="logits")(x)), **arguments)


def softmax(logits):
    return to_numpy(keras.ops.softmax(logits))


def of_labels(y, logits):
    return float(CROSSENTROPY(y, logits))


def of_logits(of_teacher, of_student):
    """The loss by which a student learns logits."""
    teacher, student = softmax(of_teacher / 3), softmax(of_student / 3)
    return 9 * float(keras.losses.KLDivergence()(teacher, student))


def logs_of(distiller, x, y):
    return distiller.evaluate(x, y, verbose=0, return_dict=True)


LOSSES = [
    LogitsDistillation(temperature=3.0),
    FeatureDistillation("mse", "features", "spikes"),
]


SPIKES = FeatureDistillation("mse", "spikes", "spikes")
CROSSENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def compiled(distiller):
    distiller.compile(keras.optimizers.SGD(0.1), CROSSENTROPY, ["accuracy"])
    return distiller


@pytest.mark.parametrize(
    ("gradient", "step_mode"), [("rate", "single"), ("bptt", "multi")]
)
def test_the_loss_is_made_of_outputs_and_rates_over_time(gradient, step_mode):
    teacher, model = ordinary(), student(gradient=gradient, step_mode=step_mode)
    distiller = compiled(
        Distiller(teacher, model, LOSSES, [0.7, 0.2], student_loss_weight=0.4)
    )
    x, y = data()
    neurons = model.get_layer("spikes").output
    rates = to_numpy(spiking(keras.Model(model.network.inputs, neurons), 3)(x))
    units = teacher.get_layer("features").output
    features = to_numpy(keras.Model(teacher.input, units)(x))
    logits, teacher_logits = to_numpy(model(x)), to_numpy(teacher(x))
    assert rates.any()
    taught = 0.7 * of_logits(teacher_logits, logits)
    taught += 0.2 * np.square(rates - features).mean()
    wanted = 0.4 * of_labels(y, logits) + 0.6 * taught
    np.testing.assert_allclose(
        logs_of(distiller, x, y)["total_loss"], wanted, rtol=1e-4
    )


def test_half_precision_and_a_smaller_last_batch():
    keras.config.set_dtype_policy("mixed_float16")
    teacher, model = ordinary(), student(step_mode="single")
    distiller = compiled(Distiller(teacher, model, LOSSES[:1]))
    x, y = data()
    logs = logs_of(distiller, x, y)
    logits, teacher_logits = (
        to_numpy(keras.ops.cast(one(x), "float32")) for one in (model, teacher)
    )
    np.testing.assert_allclose(logs["student_loss"], of_labels(y, logits), rtol=1e-5)
    wanted = of_logits(teacher_logits, logits)
    np.testing.assert_allclose(logs["distillation_loss"], wanted, rtol=1e-3)
    history = distiller.fit(x, y, batch_size=len(x) - 1, verbose=0).history
    assert np.isfinite(history["loss"]).all()


def test_the_student_trains_and_the_teacher_does_not():
    teacher, model = ordinary(), student()
    distiller = compiled(Distiller(teacher, model, LOSSES))
    before = to_numpy([model.trainable_variables, teacher.variables])
    x, y = data()
    history = distiller.fit(
        x, y, batch_size=4, verbose=0, validation_data=(x[:3], y[:3])
    ).history
    assert "val_accuracy" in history
    for value, variable in zip(before[0], model.trainable_variables, strict=True):
        assert (to_numpy(variable) != value).any()
    assert_close(to_numpy(teacher.variables), before[1], rtol=0)


class Sets(keras.callbacks.Callback):
    """Changes a setting of a model before the second epoch."""

    def __init__(self, model, setting, value):
        super().__init__()
        self.change = lambda: setattr(model, setting, value)

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            self.change()


CHANGES = {
    "timesteps": ("timesteps", 5),
    "a gradient that draws": ("gradient", rsnn.gradients.SLTT(random_steps=2)),
}


@pytest.mark.parametrize("changed", ["student", "teacher"])
def test_predictions_and_losses_follow_the_settings_of_both_models(changed):
    teacher, model = student(), student()
    setting = model if changed == "student" else teacher
    losses = [FeatureDistillation("mse"), SPIKES]
    distiller = Distiller(teacher, model, losses, student_loss_weight=0.0)
    distiller.compile("sgd", "mse")
    x, _ = data()
    y, results = np.zeros((len(x), 3)), []
    for timesteps in (3, 1, 3):
        setting.timesteps = timesteps
        wanted = float(to_numpy(distiller.compute_loss(x, y, model(x))))
        logs = logs_of(distiller, x, y)
        assert logs["total_loss"] == pytest.approx(wanted, rel=1e-5)
        predicted, expected = (one.predict(x, verbose=0) for one in (distiller, model))
        np.testing.assert_allclose(predicted, expected, rtol=1e-5, atol=1e-6)
        results.append(wanted)
    assert results[0] == pytest.approx(results[2], rel=1e-5)
    assert results[0] != pytest.approx(results[1], rel=1e-4)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_an_epoch_of_training_follows_the_settings_of_the_student(change):
    weights = []
    x, y = data()
    options = {"shuffle": False, "verbose": 0}
    for during_fit in (False, True):
        keras.utils.set_random_seed(1)
        model = student()
        distiller = compiled(Distiller(ordinary(), model, LOSSES))
        if during_fit:
            callbacks = [Sets(model, *change)]
            distiller.fit(x, y, epochs=2, callbacks=callbacks, **options)
        else:
            distiller.fit(x, y, **options)
            setattr(model, *change)
            # A new function.
            compiled(distiller).fit(x, y, **options)
        weights.append(model.trainable_variables)
    assert_close(*weights, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("how", ["add", "other network", "nested", "nested Sequential"])
def test_features_are_those_of_the_call_in_this_network(how):
    model = spiking(called_before(how))
    distiller = Distiller(ordinary(), model, LOSSES)
    features = dict(distiller._feature_models())[model]
    x, _ = data()
    outputs = features.predict(x, verbose=0)
    logits = outputs["final_output"]
    np.testing.assert_array_equal(logits, model.predict(x, verbose=0))
    kernel, bias = model.network.layers[-1].get_weights()
    wanted = outputs["spikes"] @ kernel + bias
    np.testing.assert_allclose(logits, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("side", ["teacher", "student"])
def test_the_error_for_a_layer_that_is_called_twice_names_it(side):
    inputs, neurons = keras.Input((6,)), rsnn.layers.LIF(name="twice")
    network = spiking(keras.Model(inputs, layers.Dense(3)(neurons(neurons(inputs)))))
    models = [network, student()] if side == "teacher" else [student(), network]
    names = ["twice", "spikes"] if side == "teacher" else ["spikes", "twice"]
    with pytest.raises(
        ValueError,
        match=f"`{side}_layer_name` must name .* calls once.*'twice', which it calls 2 "
        "times",
    ):
        Distiller(*models, FeatureDistillation("mse", *names))


def test_a_spiking_teacher_teaches_an_ordinary_student():
    teacher, model = student(timesteps=4), ordinary()
    losses = [LogitsDistillation(), FeatureDistillation("mse", "spikes", "features")]
    compiled(Distiller(teacher, model, losses)).fit(*data(), verbose=0)


def test_a_student_that_would_train_layers_of_its_frozen_teacher_is_an_error():
    teacher = student()
    with pytest.raises(
        ValueError,
        match=r"`student` must not train weights of `teacher`.* share dense/kernel, .* "
        r"and 2 more",
    ):
        Distiller(teacher, spiking(teacher.network, timesteps=2), LogitsDistillation())
    assert teacher.trainable_variables
    backbone = keras.Model(teacher.inputs, teacher.get_layer("spikes").output)
    backbone.trainable = False
    head = layers.Dense(3)(backbone(teacher.input))
    Distiller(teacher, spiking(keras.Model(teacher.input, head)), LogitsDistillation())


def test_a_file_that_cannot_be_loaded_because_models_share_layers_is_warned_of(
    tmp_path,
):
    inputs, backbone = (
        keras.Input((6,)),
        keras.Sequential([keras.Input((6,)), layers.Dense(4, trainable=False)]),
    )
    models = [keras.Model(inputs, layers.Dense(3)(backbone(inputs))) for _ in range(2)]
    distiller = compiled(Distiller(*models, LogitsDistillation()))
    distiller.fit(*data(), verbose=0)
    with pytest.warns(
        UserWarning,
        match="load_model will not load this file: nested models share sequential",
    ):
        distiller.save(tmp_path / "distiller.keras")


def test_features_of_padded_sequences_are_those_without_their_padding():
    teacher, model = student(), student()
    distiller = compiled(Distiller(teacher, model, [LogitsDistillation(), SPIKES]))
    x = np.random.default_rng(0).normal(1.0, 2.0, (4, 2, 6)).astype("float32")
    padded = np.concatenate([x, np.full((4, 1, 6), -9.0, "float32")], axis=1)
    losses = []
    for timesteps, mask_value, inputs in (
        (2, None, x),
        (3, -9.0, padded),
        (3, -9.0, np.roll(padded, 1, axis=1)),
    ):
        for one in (teacher, model):
            one.timesteps, one.mask_value = timesteps, mask_value
        losses.append(distiller.evaluate(inputs, np.zeros(4), verbose=0))
    np.testing.assert_allclose(losses[1:], losses[:1] * 2, rtol=1e-4)


def test_outputs_of_all_steps_are_compared_beside_features():
    models = student(return_sequences=True), student(return_sequences=True)
    distiller = Distiller(*models, [LogitsDistillation(), SPIKES])
    distiller.compile("sgd", rsnn.losses.TET(CROSSENTROPY))
    # As many samples as steps, or means would broadcast.
    x, y = (part[:3] for part in data())
    wanted = of_logits(*(to_numpy(one(x)) for one in models))
    rates = []
    for one in models:
        observed = rsnn.analysis.observed(one, spikes=["spikes"])
        rates.append(to_numpy(observed(x)["spikes"]["spikes"]).mean(1))
    wanted += np.square(rates[0] - rates[1]).mean()
    logs = logs_of(distiller, x, y)
    np.testing.assert_allclose(logs["distillation_loss"], wanted, rtol=1e-4)


def test_an_ordinary_model_of_sequences_teaches_a_network_of_one_frame_and_learns():
    def of_sequences(shape):
        return keras.Sequential([keras.Input(shape), layers.Flatten(), layers.Dense(3)])

    inputs, x = keras.Input((6,)), np.ones((4, 3, 6), "float32")
    teacher, neurons = of_sequences((3, 6)), layers.Dense(3)(rsnn.layers.LIF()(inputs))
    model = spiking(keras.Model(inputs, neurons))
    distiller = Distiller(teacher, model, LOSSES[:1], student_loss_weight=0.0)
    distiller.compile("sgd", "mse")
    # Currents of 1 make a spike in every step.
    outputs = to_numpy(model.network.layers[-1](np.ones((4, 6), "float32")))
    wanted = of_logits(to_numpy(teacher(x)), outputs)
    logs = logs_of(distiller, x, np.zeros((4, 3)))
    np.testing.assert_allclose(logs["distillation_loss"], wanted, rtol=1e-4)
    Distiller(model, teacher, LOSSES[:1])
    for shape in ((4, 6), (3, 5), (3, 3, 6)):
        with pytest.raises(ValueError, match="Teacher and student input shapes"):
            Distiller(of_sequences(shape), model, LOSSES[:1])


def test_a_saved_distiller_is_the_same_when_loaded():
    distiller = compiled(Distiller(ordinary(), student(), LOSSES))
    x, y = data()
    distiller.fit(x, y, verbose=0)
    loaded = saved_and_loaded(distiller)
    np.testing.assert_allclose(
        loaded.predict(x, verbose=0), distiller.predict(x, verbose=0), rtol=1e-6
    )
    loaded.fit(x, y, verbose=0)


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [({}, "auto"), ({"jit_compile": False}, False), ({"run_eagerly": True}, False)],
)
def test_a_distiller_is_compiled_as_asked_with_its_models_and_when_it_is_loaded(
    arguments, asked
):
    distiller = Distiller(student(), student(), [SPIKES])
    distiller.compile("sgd", CROSSENTROPY, **arguments)
    config = distiller.get_compile_config()
    assert config["jit_compile"] == asked
    assert config["optimizer"]["module"] == "keras.optimizers"
    distiller.compile_from_config(config)
    distiller(data()[0])
    features = [features for _, features in distiller._feature_models()]
    distiller.compute_loss(*data())
    for model in (distiller.teacher, distiller.student, *features):
        assert model._asked_jit_compile == asked


def test_a_student_whose_neurons_need_another_method_learns_from_features():
    inputs = keras.Input((6,))
    neurons = rsnn.layers.LIF(threshold_stabilizer=True, name="spikes")
    network = keras.Model(inputs, layers.Dense(3)(neurons(layers.Dense(8)(inputs))))
    distiller = Distiller(ordinary(), spiking(network, gradient="sltt"), LOSSES[1:])
    history = compiled(distiller).fit(*data(), verbose=0).history
    assert np.isfinite(history["loss"]).all()
