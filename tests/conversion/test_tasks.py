"""Tasks: spikify keeps the compile, loss, steps and decoding of a model's class."""

import copy
import functools
import importlib.util

import conversions
import keras
import numpy as np
import pytest
from helpers import BACKEND, assert_close, registered, saved_and_loaded, to_numpy
from keras import layers, ops
from numpy.testing import assert_allclose, assert_array_equal
from own_step import OwnStep

import keras_ratesnn as rsnn
from keras_ratesnn import spikify
from tests.conversion.test_inside_layers import Outer

converted = functools.partial(spikify, timesteps=2, verbose=False)

X = np.random.default_rng(0).random((8, 6), dtype="float32")
Y = {"target": np.random.default_rng(1).random((8, 3), dtype="float32")}


@registered
class Regression(keras.Model):
    """Overrides what keras-cv's detectors override: `compile`, steps, loss and
    decoding, with layers of its own."""

    def __init__(self, width, decoder=None, normalized=False, **kwargs):
        inputs = keras.Input((6,))
        backbone = keras.Sequential(
            [keras.Input((6,)), layers.Dense(width, activation="relu")], name="backbone"
        )
        hidden = backbone(inputs)
        normalization = layers.BatchNormalization(name="normalization")
        if normalized:
            hidden = layers.Dense(width, name="dense")(hidden)
            hidden = layers.ReLU()(normalization(hidden))
        super().__init__(inputs, layers.Dense(3, name="head")(hidden), **kwargs)
        self.normalized = normalized
        self.normalization = normalization if normalized else None
        self.width = width
        self.backbone = backbone
        self.shared = keras.Model(backbone.inputs, backbone.layers[0].output)
        self.decoder = decoder or layers.Rescaling(2.0)
        self.seen = {"loss": [keras.metrics.Mean(name="seen")]}
        self.factor = self.add_weight(shape=(), initializer="ones", name="factor")

    def compile(self, power, **kwargs):
        self.power = power
        super().compile(loss="mse", **kwargs)

    def train_step(self, *args):
        *state, (x, y) = args
        return super().train_step(*state, (x, {"target": 1.0 * y["target"]}))

    def compute_loss(self, x, y, y_pred, sample_weight=None, **kwargs):
        loss = super().compute_loss(
            x, y["target"], self.factor * y_pred, sample_weight, **kwargs
        )
        self.seen["loss"][0].update_state(loss)
        return self.power * loss

    def decode(self, outputs):
        return {"decoded": self.decoder(outputs)}

    def predict_step(self, *args):
        outputs = super().predict_step(*args)
        if isinstance(outputs, tuple):
            # On JAX a step also returns the state.
            return self.decode(outputs[0]), *outputs[1:]
        return self.decode(outputs)

    def get_config(self):
        decoder = keras.saving.serialize_keras_object(self.decoder)
        return {"width": self.width, "decoder": decoder, "normalized": self.normalized}

    @classmethod
    def from_config(cls, config):
        return cls(
            config["width"],
            keras.saving.deserialize_keras_object(config["decoder"]),
            config["normalized"],
        )


def regression(**kwargs):
    return converted(Regression(5), **kwargs)


def compiled(model, **kwargs):
    model.compile(3.0, optimizer=keras.optimizers.Adam(0.01), **kwargs)
    return model


def decoded(model):
    return model.predict(X, verbose=0)["decoded"]


def assert_equal(actual, expected):
    keras.tree.map_structure(assert_array_equal, actual, expected)


def two_histories(model, loaded, y):
    """Of the same training."""
    settings = {"epochs": 2, "shuffle": False, "verbose": 0}
    return [task.fit(X, y, **settings).history for task in (model, loaded)]


def scalar(value):
    return float(ops.convert_to_numpy(value))


def arrays(model):
    return to_numpy(model.get_weights())


# What is kept.


def test_a_folded_task_is_a_task_that_trains_and_is_saved():
    model = compiled(converted(Regression(5, normalized=True)))
    model.fit(X, Y, verbose=0)
    folded = rsnn.deploy.fold_batch_normalization(model, verbose=False)
    assert (type(folded), folded.normalization) == (type(model), None)
    assert_close([folded(X)], [model(X)], rtol=1e-5, atol=1e-6)
    compiled(folded).fit(X, Y, verbose=0)
    assert_equal(decoded(saved_and_loaded(folded)), decoded(folded))


@pytest.mark.parametrize(
    ("settings", "policy"),
    [
        ({}, "mixed_bfloat16"),
        ({"gradient": "sltt", "step_mode": "single"}, "float32"),
    ],
)
def test_a_task_fits_evaluates_and_predicts(settings, policy):
    keras.config.set_dtype_policy(policy)
    model = compiled(regression(**settings))
    assert model.compute_dtype == policy.removeprefix("mixed_")
    before = arrays(model.network)
    history = model.fit(X, Y, epochs=2, verbose=0).history
    assert set(history) == {"loss", "seen"}
    assert np.isfinite([*history.values()]).all()
    for new, old in zip(arrays(model.network), before, strict=True):
        assert (new != old).any()
    assert scalar(model.factor) != 1.0
    assert np.isfinite(model.evaluate(X, Y, verbose=0)).all()
    predicted = decoded(model)
    if policy == "float32":
        assert_allclose(predicted, 2 * to_numpy(model(X)), rtol=1e-5)


def test_a_spiking_task_has_the_class_and_attributes_of_its_task():
    """They belong to the spiking network."""
    task = Regression(5)
    model = converted(task)
    assert isinstance(model, rsnn.SpikingModel)
    assert isinstance(model, Regression)
    assert type(converted(Regression(4), timesteps=3)) is type(model)
    assert model.task is model
    assert model.width == 5
    assert model.backbone is model.network.get_layer("backbone")
    names = [layer.name for layer in model.backbone.layers]
    assert [layer.name for layer in model.shared.layers[1:]] == names
    assert model.shared.layers[1] is model.backbone.layers[0]
    assert model.shared.layers[1] is not task.shared.layers[1]
    assert model.decoder is task.decoder
    assert model.seen["loss"][0] is not task.seen["loss"][0]
    assert model.factor is not task.factor
    assert len(model.trainable_variables) == len(task.trainable_variables) == 5
    model.backbone.trainable = False
    assert len(model.trainable_variables) == 3


def test_a_saved_task_predicts_and_trains_as_before_and_leaves_its_task_as_it_was():
    def state():
        return arrays(task), scalar(task.seen["loss"][0].result())

    task = Regression(5)
    compiled(task).fit(X, Y, verbose=0)
    before = state()
    model = converted(task, calibrate=X)
    assert not model.compiled
    compiled(model).fit(X, Y, verbose=0)
    model.decoder = layers.Rescaling(5.0)
    loaded = saved_and_loaded(model)
    assert type(loaded) is type(model)
    assert loaded.power == 3.0
    assert loaded.shared.layers[1] is loaded.backbone.layers[0]
    assert_equal(decoded(loaded), decoded(model))
    original, continued = two_histories(model, loaded, Y)
    assert original == continued
    assert_equal(arrays(model), arrays(loaded))
    assert_equal(state(), before)


def test_a_task_is_copied():
    model = regression()
    assert_equal(to_numpy(copy.deepcopy(model)(X)), to_numpy(model(X)))
    with pytest.raises(TypeError, match=r"copy.deepcopy\(model\)"):
        keras.models.clone_model(model)


# Kinds of tasks.
@registered
class Doubled(keras.Sequential):
    def predict_step(self, *args):
        outputs = super().predict_step(*args)
        if isinstance(outputs, tuple):
            return 2 * outputs[0], *outputs[1:]
        return 2 * outputs


def test_a_sequential_subclass_is_a_task():
    hidden = layers.Dense(4, activation="relu")
    task = Doubled([keras.Input((6,)), hidden, layers.Dense(3)])
    model = converted(task)
    assert isinstance(model, Doubled)
    model.compile("sgd", "mse")
    actual = model.predict(X, verbose=0)
    assert_allclose(actual, 2 * to_numpy(model(X)), rtol=1e-5)
    loaded = saved_and_loaded(model)
    assert_equal(loaded.predict(X, verbose=0), actual)
    assert loaded.loss == "mse"


class Built(keras.Model):
    def __init__(self, initializer):
        inputs = keras.Input((6,))
        x = layers.Dense(4, "relu", kernel_initializer=initializer)(inputs)
        super().__init__(inputs, layers.Dense(3)(x))


def test_a_class_that_only_builds_a_graph_is_no_task():
    model = converted(Built(keras.initializers.Ones()))
    assert type(model) is rsnn.SpikingModel
    assert_equal(to_numpy(saved_and_loaded(model)(X)), to_numpy(model(X)))


@registered
class Pipeline(keras.Model):
    """As KerasHub's tasks: it preprocesses data, compiles itself, and hides layers from
    Keras until it has a graph. Its config asks a layer that becomes neurons."""

    def __init__(self, scale=1.0, top=2.0, **kwargs):
        self.head, self.relu = layers.Dense(3, name="head"), layers.ReLU(top)
        inputs = keras.Input((6,))
        hidden = self.relu(layers.Dense(4)(inputs))
        super().__init__(inputs, self.head(hidden), **kwargs)
        self.tower = layers.Dense(2)
        self.tower.build((None, 6))
        self.methods = (self.fit,)
        self.made = True
        self.scale = scale
        self.compile()

    def __setattr__(self, name, value):
        if hasattr(self, "made"):
            super().__setattr__(name, value)
        else:
            object.__setattr__(self, name, value)

    def compile(self, optimizer="sgd", loss="mse", **kwargs):
        super().compile(optimizer, loss, **kwargs)

    def fit(self, x, y, **kwargs):
        return super().fit(self.scale * x, y, **kwargs)

    def predict(self, x, **kwargs):
        return super().predict(self.scale * x, **kwargs)

    def get_config(self):
        top = float(self.relu.max_value)
        return {"scale": self.scale, "name": self.name, "top": top}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


def test_a_task_that_hides_its_layers_and_preprocesses_its_data_is_trained_and_saved():
    task, y = Pipeline(0.5), Y["target"]
    model = converted(task)
    assert model.methods[0].__self__ is model
    assert model.tower is not task.tower
    assert_equal(model.tower.get_weights(), task.tower.get_weights())
    model.compile(keras.optimizers.Adam(0.01))
    assert len(model.trainable_variables) == 4
    before = to_numpy(model.head.bias)
    model.fit(X, y, verbose=0)
    assert (to_numpy(model.head.bias) != before).all()
    predicted = model.predict(X, verbose=0)
    assert_allclose(predicted, to_numpy(model(0.5 * X)), rtol=1e-5)
    assert model.head is model.network.get_layer("head")
    loaded = saved_and_loaded(model)
    assert_equal(loaded.predict(X, verbose=0), predicted)
    original, continued = two_histories(model, loaded, y)
    assert original == continued


class WholeStep(OwnStep, keras.Model):
    pass


def test_a_whole_training_step_of_its_own_trains_the_spiking_network():
    task, y = with_graph(WholeStep), Y["target"]
    model = converted(task)
    usual = converted(keras.Model(task.inputs, task.outputs))
    for network in (model, usual):
        network.compile(keras.optimizers.SGD(0.1), "mse")
    assert set(model.fit(X, y, verbose=0).history) == {"own"}
    usual.fit(X, y, verbose=0)
    assert_close(arrays(model), arrays(usual), rtol=1e-5, atol=1e-6)


# What cannot be kept is said.
def with_graph(cls, *args, **kwargs):
    inputs = keras.Input((6,))
    hidden = layers.Dense(4, activation="relu")(inputs)
    return cls(inputs, layers.Dense(3)(hidden), *args, **kwargs)


class Called(keras.Model):
    def call(self, inputs):
        return 2 * super().call(inputs)


class Shaped(keras.Model):
    def compute_output_shape(self, input_shape):
        return input_shape


class Stepped(keras.Model):
    def decode(self, outputs):
        return outputs


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (Called, "Called, which overrides `call`"),
        (Shaped, r"Shaped, which overrides \['compute_output_shape'\]"),
        (Stepped, r"Stepped with \['timesteps'\]"),
    ],
)
def test_a_task_that_is_called_otherwise_or_has_names_of_ours_is_an_error(cls, message):
    task = with_graph(cls)
    if cls is Stepped:
        task.timesteps = 1
    with pytest.raises(TypeError, match=message):
        converted(task)


class WithOuter(keras.Model):
    def __init__(self, attribute):
        inputs = keras.Input((6,))
        outer = Outer(name="outer")
        outputs = outer({"a": inputs, "b": inputs})["deep"]
        super().__init__(inputs, layers.Dense(3)(outputs))
        self.wanted = attribute(outer)
        # Keras itself does not see it.
        vars(self)["itself"] = self

    def predict_step(self, *args):
        return super().predict_step(*args)


def test_an_attribute_that_is_one_of_two_inner_layers_of_the_same_name_is_an_error():
    model = converted(WithOuter(lambda outer: outer.two))
    assert any(isinstance(layer, rsnn.layers.Neuron) for layer in model.wanted.layers)
    assert model.itself is model
    message = "an attribute that is one of several layers 'first' inside of layer"
    for attribute in (lambda outer: outer.one.first, lambda outer: outer.two.first):
        with pytest.raises(TypeError, match=message):
            converted(WithOuter(attribute))


class Unsaved(keras.Model):
    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs)
        self.function = abs

    def decode(self, outputs):
        return self.function(outputs)

    def get_config(self):
        raise NotImplementedError("no config")


def test_a_task_that_cannot_be_saved_or_whose_class_has_changed_says_so(tmp_path):
    model = converted(with_graph(Unsaved))
    message = "because Unsaved cannot be: NotImplementedError: no config"
    with pytest.raises(ValueError, match=message):
        model.save(tmp_path / "model.keras")
    saved = keras.saving.serialize_keras_object(regression())
    saved["config"]["names"].append(["another", []])
    message = r"made from a Regression with 4 operations\. Received: one with 3"
    with pytest.raises(ValueError, match=message):
        keras.saving.deserialize_keras_object(saved)


def test_a_saved_task_of_a_library_that_is_not_installed_names_the_extra(monkeypatch):
    model = regression()
    config = model.get_config()
    config["task"]["module"] = "keras_cv.src.models"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'python -m pip install "keras-cv>='):
        type(model).from_config(config)


# keras-cv.
IMAGES = np.random.default_rng(0).random((2, 32, 32, 3), dtype="float32")
BOXES = {
    "boxes": np.array([[[2, 2, 20, 20]], [[8, 4, 30, 28]]], "float32"),
    "classes": np.array([[1.0], [2.0]], "float32"),
}


# JAX compiles each of the many operations of a detector.
@(pytest.mark.slow if BACKEND == "jax" else lambda test: test)
def test_a_spiking_detector_has_the_losses_of_its_ann_and_decodes_boxes():
    from keras_cv import models

    backbone = models.YOLOV8Backbone(
        [4, 4, 4, 4], [1, 1, 1, 1], include_rescaling=False, input_shape=(32, 32, 3)
    )
    settings = {"num_classes": 3, "bounding_box_format": "xyxy", "fpn_depth": 1}
    ann = models.YOLOV8Detector(backbone=backbone, **settings)
    model = converted(ann)
    losses = {"box_loss": "ciou", "classification_loss": "binary_crossentropy"}
    for detector in (ann, model):
        # What is fastest.
        detector.compile(**losses, optimizer="adam", run_eagerly=BACKEND != "jax")
    images, boxes = keras.tree.map_structure(ops.convert_to_tensor, (IMAGES, BOXES))
    made = np.random.default_rng(1).uniform
    outputs = keras.tree.map_structure(
        lambda x: ops.convert_to_tensor(made(size=(2, *x.shape[1:])), "float32"),
        ann.output,
    )
    expected = scalar(ann.compute_loss(images, boxes, outputs))
    assert scalar(model.compute_loss(images, boxes, outputs)) == expected
    model.fit(IMAGES, BOXES, verbose=0)
    assert model.predict(IMAGES, verbose=0)["boxes"].shape == (2, 100, 4)


SHOWN = conversions.networks("keras_cv")


@pytest.mark.parametrize(
    "name",
    [
        name if "MiT" in name else pytest.param(name, marks=pytest.mark.slow)
        for name in SHOWN
    ],
)
def test_the_page_shows_what_becomes_of_the_networks_of_keras_cv(name):
    row = conversions.row(name, conversions.converted(SHOWN[name]()))
    assert conversions.is_shown(row), row
