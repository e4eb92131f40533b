"""Keras' knowledge distillation, with spiking teachers and students."""

import keras
import numpy as np
import pytest
from helpers import (
    BACKEND,
    CROSSENTROPY,
    assert_close,
    called_before,
    chain,
    data,
    recorded_early,
    saved_and_loaded,
    spiking,
    to_numpy,
)
from keras import layers
from keras.distillation import FeatureDistillation, LogitsDistillation
from numpy.testing import assert_allclose, assert_array_equal

import keras_ratesnn as rsnn
from keras_ratesnn.distillation import Distiller
from keras_ratesnn.layers import LIF

X, Y = data()
LOGITS = LogitsDistillation(temperature=3.0)
FEATURES = FeatureDistillation("mse", "features", "spikes")
SPIKES = FeatureDistillation("mse", "spikes", "spikes")


def ordinary():
    features = layers.Dense(8, activation="relu", name="features")
    return chain(layers.Dense(8), features, layers.Dense(3))


def student(**settings):
    neurons = LIF(threshold=0.3, name="spikes")
    first = [layers.Dense(8), LIF(), layers.Dense(8)]
    return spiking(chain(*first, neurons, layers.Dense(3)), **settings)


def compiled(distiller):
    distiller.compile(keras.optimizers.SGD(0.1), CROSSENTROPY, ["accuracy"])
    return distiller


def logs_of(distiller, x=X, y=Y):
    return distiller.evaluate(x, y, verbose=0, return_dict=True)


def logits_loss(teacher, student):
    """The loss by which a student learns logits."""
    soft = [keras.ops.softmax(logits / 3) for logits in (teacher, student)]
    return 9 * float(to_numpy(keras.losses.KLDivergence()(*soft)))


@pytest.mark.parametrize(
    ("gradient", "step_mode", "policy"),
    [
        ("bptt", "multi", "float32"),
        ("rate", "single", "mixed_float16"),
    ],
)
def test_the_loss_is_made_of_outputs_and_rates_over_time(gradient, step_mode, policy):
    keras.config.set_dtype_policy(policy)
    teacher, model = ordinary(), student(gradient=gradient, step_mode=step_mode)
    distiller = compiled(
        Distiller(
            teacher, model, [LOGITS, FEATURES], [0.7, 0.2], student_loss_weight=0.4
        )
    )
    neurons = model.get_layer("spikes").output
    rates = spiking(keras.Model(model.network.inputs, neurons))(X)
    units = teacher.get_layer("features").output
    features = keras.Model(teacher.input, units)(X)
    tensors = teacher(X), model(X), features, rates
    arrays = [to_numpy(tensor).astype("float32") for tensor in tensors]
    teacher_logits, logits, features, rates = arrays
    assert rates.any()
    taught = 0.7 * logits_loss(teacher_logits, logits)
    taught += 0.2 * np.square(rates - features).mean()
    wanted = 0.4 * float(CROSSENTROPY(Y, logits)) + 0.6 * taught
    tolerance = 1e-4 if policy == "float32" else 1e-3
    total = logs_of(distiller)["total_loss"]
    assert_allclose(total, wanted, rtol=tolerance)


def test_the_student_trains_and_the_teacher_does_not_and_both_are_saved():
    teacher, model = ordinary(), student()
    distiller = compiled(Distiller(teacher, model, [LOGITS, FEATURES]))
    before = to_numpy([model.trainable_variables, teacher.variables])
    # With a smaller last batch.
    options = {"batch_size": 9, "validation_data": (X[:3], Y[:3]), "verbose": 0}
    assert "val_accuracy" in distiller.fit(X, Y, **options).history
    for value, variable in zip(before[0], model.trainable_variables, strict=True):
        assert (to_numpy(variable) != value).any()
    assert_close(to_numpy(teacher.variables), before[1], rtol=0)
    loaded = saved_and_loaded(distiller)
    predicted, expected = (one.predict(X, verbose=0) for one in (loaded, distiller))
    assert_allclose(predicted, expected, rtol=1e-6)
    loaded.fit(X, Y, verbose=0)
    assert loaded(keras.Input((6,))).shape == (None, 3)


@pytest.mark.parametrize("changed", ["student", "teacher"])
def test_predictions_and_losses_follow_the_settings_of_both_models(changed):
    teacher, model = student(), student()
    losses = [FeatureDistillation("mse"), SPIKES]
    distiller = Distiller(teacher, model, losses, student_loss_weight=0.0)
    distiller.compile("sgd", "mse")
    y, totals = np.zeros((len(X), 3)), []
    for timesteps in (3, 1, 3):
        getattr(distiller, changed).timesteps = timesteps
        wanted = float(to_numpy(distiller.compute_loss(X, y, model(X))))
        assert logs_of(distiller, X, y)["total_loss"] == pytest.approx(wanted, 1e-5)
        predicted, expected = (one.predict(X, verbose=0) for one in (distiller, model))
        assert_allclose(predicted, expected, rtol=1e-5, atol=1e-6)
        totals.append(wanted)
    assert totals[0] == pytest.approx(totals[2], rel=1e-5)
    assert totals[0] != pytest.approx(totals[1], rel=1e-4)


def test_an_epoch_of_training_follows_the_settings_of_the_student():
    weights, options = [], {"shuffle": False, "verbose": 0}
    for during_fit in (False, True):
        keras.utils.set_random_seed(1)
        model = student()
        distiller = compiled(Distiller(ordinary(), model, [LOGITS, FEATURES]))

        def change(epoch, logs=None, model=model):
            if epoch == 1:
                model.timesteps = 5

        if during_fit:
            change_it = keras.callbacks.LambdaCallback(on_epoch_begin=change)
            distiller.fit(X, Y, epochs=2, callbacks=[change_it], **options)
        else:
            distiller.fit(X, Y, **options)
            change(1)
            # A new function.
            compiled(distiller).fit(X, Y, **options)
        weights.append(model.trainable_variables)
    assert_close(*weights, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("how", ["add", "other network", "nested", "nested Sequential"])
def test_features_are_those_of_the_call_in_this_network(how):
    model = spiking(called_before(how))
    distiller = Distiller(ordinary(), model, [LOGITS, FEATURES])
    features = distiller.feature_model(model, ["spikes"])
    outputs = features.predict(X, verbose=0)
    logits = outputs["final_output"]
    assert_array_equal(logits, model.predict(X, verbose=0))
    kernel, bias = model.network.layers[-1].get_weights()
    wanted = outputs["spikes"] @ kernel + bias
    assert_allclose(logits, wanted, rtol=1e-5, atol=1e-6)


def test_a_student_that_would_train_layers_of_its_frozen_teacher_is_an_error():
    teacher = student()
    said = "`student` must not train weights of `teacher`.* share dense/kernel, .* and"
    with pytest.raises(ValueError, match=f"{said} 2 more"):
        Distiller(teacher, spiking(teacher.network, timesteps=2), LOGITS)
    assert teacher.trainable_variables
    backbone = keras.Model(teacher.inputs, teacher.get_layer("spikes").output)
    backbone.trainable = False
    Distiller(teacher, spiking(chain(backbone, layers.Dense(3))), LOGITS)


def test_a_file_that_cannot_be_loaded_because_models_share_layers_is_warned_of(
    tmp_path,
):
    backbone = keras.Sequential([keras.Input((6,)), layers.Dense(4, trainable=False)])
    models = [chain(backbone, layers.Dense(3)) for _ in range(2)]
    distiller = compiled(Distiller(*models, LOGITS))
    distiller(X)
    said = "load_model will not load this file: nested models share sequential"
    with pytest.warns(UserWarning, match=said):
        distiller.save(tmp_path / "distiller.keras")


def test_features_of_padded_sequences_are_those_without_their_padding():
    teacher, model = student(), student()
    distiller = compiled(Distiller(teacher, model, [LOGITS, SPIKES]))
    x, _ = data(4, (2, 6))
    padded = np.concatenate([x, np.full((4, 1, 6), -9.0, "float32")], axis=1)
    losses = []
    for inputs in (x, padded, np.roll(padded, 1, axis=1)):
        for one in (teacher, model):
            one.timesteps = inputs.shape[1]
            one.mask_value = -9.0
        losses.append(distiller.evaluate(inputs, np.zeros(4), verbose=0))
    assert_allclose(losses[1:], losses[:1] * 2, rtol=1e-4)


def test_outputs_of_all_steps_are_compared_beside_features():
    models = student(return_sequences=True), student(return_sequences=True)
    distiller = Distiller(*models, [LOGITS, SPIKES])
    distiller.compile("sgd", rsnn.losses.TET(CROSSENTROPY))
    # As many samples as steps, or means would broadcast.
    x, y = X[:3], Y[:3]
    wanted, rates = logits_loss(*(model(x) for model in models)), []
    for model in models:
        observed = rsnn.analysis.observed(model, spikes=["spikes"])
        rates.append(to_numpy(observed(x)["spikes"]["spikes"]).mean(1))
    wanted += np.square(rates[0] - rates[1]).mean()
    loss = logs_of(distiller, x, y)["distillation_loss"]
    assert_allclose(loss, wanted, rtol=1e-4)


def test_an_ordinary_model_of_sequences_teaches_a_network_of_one_frame_and_learns():
    def model_of_sequences(*shape):
        return chain(layers.Flatten(), layers.Dense(3), shape=shape)

    teacher, x = model_of_sequences(3, 6), np.ones((4, 3, 6), "float32")
    model = spiking(chain(LIF(), layers.Dense(3)))
    distiller = Distiller(teacher, model, LOGITS, student_loss_weight=0.0)
    distiller.compile("sgd", "mse")
    # Currents of 1 make a spike in every step.
    outputs = model.network.layers[-1](np.ones((4, 6), "float32"))
    wanted = logits_loss(teacher(x), outputs)
    loss = logs_of(distiller, x, np.zeros((4, 3)))["distillation_loss"]
    assert_allclose(loss, wanted, rtol=1e-4)
    distiller.fit(x, np.zeros((4, 3)), verbose=0)
    Distiller(model, teacher, LOGITS)
    with pytest.raises(ValueError, match="Teacher and student input shapes"):
        Distiller(model_of_sequences(4, 6), model, LOGITS)


class Noting(Distiller):
    """Keeps the models that read features."""

    def feature_model(self, model, layer_names):
        READERS.append(super().feature_model(model, layer_names))
        return READERS[-1]


READERS: list[keras.Model] = []


@pytest.mark.backends(3)
def test_a_distiller_is_compiled_as_asked_with_its_models_and_when_it_is_loaded():
    READERS.clear()
    distiller = Noting(student(), student(), SPIKES)
    distiller.compile("sgd", CROSSENTROPY, jit_compile=False)
    config = distiller.get_compile_config()
    assert config["jit_compile"] is False
    assert config["optimizer"]["module"] == "keras.optimizers"
    distiller.compile_from_config(config)
    distiller.compute_loss(X, Y)
    models = distiller.teacher, distiller.student, *READERS
    assert len(models) == 4
    # On PyTorch their calls would be recorded else.
    with recorded_early():
        for model in models * 2:
            model(X)
    engine = "eager" if BACKEND == "torch" else "keras"
    assert {model.execution for model in models} == {engine}
