"""The paper's recipes and those of transformers end to end: narrow networks, a few
steps, on placeholder data.

CIFAR and ImageNet use the mock of TensorFlow Datasets, CIFAR10-DVS uses AEDAT files
written by the tests.
"""

import io
import json
import math
import types

import keras
import numpy as np
import pytest
from helpers import chain, to_numpy
from made_recordings import write_data_set

import keras_ratesnn
from recipes import catalogue
from recipes.data import cifar, events, imagenet
from tests.recipes.made_clothes import write_clothes
from tests.recipes.recipe_runs import changed, trained

tfds = pytest.importorskip("tensorflow_datasets", reason="the extra [test] installs it")

NARROW = ("width=0.125", "timesteps=2", "epochs=1", "batch_size=4")
IMAGES = 8
"""Two steps of training."""


if keras.backend.backend() != "jax":
    # Compiling takes most of the time of a test. (JAX without it compiles every
    # operation by itself.)
    NARROW += ("jit_compile=False",)

PHOTOGRAPHS = [
    name
    for name in catalogue.FILES
    if name.startswith(("cifar", "imagenet")) and "dvs" not in name
]


@pytest.fixture
def mocked(monkeypatch):
    """TensorFlow Datasets returns artificial images of the right shapes, without
    network access."""
    monkeypatch.setattr("urllib.request.urlopen", lambda url, timeout: io.BytesIO())
    with tfds.testing.mock_data(num_examples=IMAGES):
        yield


def train(name, data, *settings):
    """Trains a recipe for an epoch on data in a folder; returns the record."""
    given = ("--data-dir", str(data), "--set", *NARROW, *settings)
    record = trained(data / "run", name, *given)
    assert np.isfinite(record["curve"]["loss"]).all()
    return record["train_images"], record["test_images"]


def rarely(*names):
    """Parameters of a test that takes long."""
    return [pytest.param(name, marks=pytest.mark.slow) for name in names]


OFTEN = "cifar100_vgg11"


@pytest.mark.parametrize(
    "name", [OFTEN, *rarely(*(name for name in PHOTOGRAPHS if name != OFTEN))]
)
def test_recipes_of_photographs_train(name, mocked, tmp_path):
    assert train(name, tmp_path) == (IMAGES, IMAGES)
    # The number of classes does not depend on the labels that occur: mixing images
    # makes a target of each class.
    assert cifar.load("cifar100", tmp_path).classes == 100


def test_images_reach_the_network_of_a_recipe(mocked, tmp_path):
    """The whole recipe with a small network instead of its own, which takes long to
    compile with 18 or 34 layers."""
    name = "imagenet_maxformer"

    def small_network(width):
        layers = keras.layers
        image = layers.Rescaling(1 / 255), layers.Conv2D(4, 7, strides=16)
        spikes = keras_ratesnn.layers.LIF(), layers.GlobalAveragePooling2D()
        classes = layers.Dense(imagenet.CLASSES)
        return chain(*image, *spikes, classes, shape=imagenet.IMAGE_SHAPE)

    with changed(name, build_network=small_network):
        assert train(name, tmp_path) == (IMAGES, IMAGES)


DVS = [f"cifar10_dvs_{name}" for name in ("maxformer", "spikformer", "qkformer")]


@pytest.mark.parametrize("name", ["cifar10_dvs_vggsnn", DVS[0], *rarely(*DVS[1:])])
def test_the_dvs_recipes_train_on_aedat_files(name, tmp_path):
    write_data_set(tmp_path, events.CIFAR10_DVS.class_names)
    assert train(name, tmp_path, "train_images=10", "batch_size=5") == (10, 10)


@pytest.mark.parametrize("name", ["resnet13", *rarely("maxformer")])
def test_deep_networks_train_on_fashion_mnist(name, tmp_path):
    write_clothes(tmp_path, images=32)
    more = ("ordinary_epochs=1",) if name == "resnet13" else ()
    assert train(f"fashion_mnist_{name}", tmp_path, "batch_size=16", *more) == (32, 8)


@pytest.mark.parametrize("name", catalogue.FILES)
def test_every_network_is_built_and_takes_raw_pixels(name):
    recipe = catalogue.find(name)
    assert recipe.name == json.loads(json.dumps(recipe.settings()))["name"] == name
    # Networks of other tasks depend on the images and the classes.
    images = np.zeros((1, 64, 64, 1), "uint8")
    scenes = types.SimpleNamespace(train_images=images, classes=10)
    network = recipe.network(scenes, width=0.0625)
    assert all(np.isfinite(to_numpy(weight)).all() for weight in network.weights)
    if name.startswith("imagenet"):
        assert network.input_shape[1:] == imagenet.IMAGE_SHAPE
        assert network.output_shape == (None, imagenet.CLASSES)
    if name in PHOTOGRAPHS and name.startswith("cifar1"):
        assert network.input_shape[1:] == cifar.IMAGE_SHAPE
        data_set = name.partition("_")[0]
        assert network.output_shape == (None, cifar.CLASSES[data_set])
        kind = keras.layers.Rescaling
        (scale,) = [layer for layer in network.layers if isinstance(layer, kind)]
        pixels = np.full((1, 1, 1, 3), cifar.PIXELS[data_set][0])
        np.testing.assert_allclose(to_numpy(scale(pixels)), 0.0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("fashion_mnist_maxformer", 1_650_178),
        pytest.param("cifar10_maxformer", 6_568_282, marks=pytest.mark.slow),
        ("cifar100_qkformer", 6_740_884),
        # Without layer normalisations that the authors' program does not use.
        ("cifar10_spikformer", 9_330_874 - 4 * 4 * 384),
        ("cifar10_dvs_maxformer", 1_455_626),
        pytest.param("cifar10_dvs_qkformer", 1_504_138, marks=pytest.mark.slow),
        pytest.param("imagenet_maxformer", 16_237_240, marks=pytest.mark.slow),
    ],
)
def test_transformers_have_the_size_and_the_optimizer_of_their_authors(
    name, parameters
):
    recipe = catalogue.find(name)
    weights = recipe.network().trainable_weights
    assert sum(math.prod(weight.shape) for weight in weights) == parameters
    assert recipe.optimizer == "adamw"
    assert recipe.timesteps == (16 if "dvs" in name else 4)
