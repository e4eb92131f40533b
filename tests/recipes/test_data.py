"""The data of recipes: files are read correctly, and errors name damaged or missing
ones."""

import gzip
import sys
import types
import urllib.error

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from recipes import catalogue
from recipes.data import fashion_mnist, order
from recipes.data.dataset import StreamedDataset
from tests.recipes.made_clothes import (
    FEW_IMAGES,
    made_clothes,
    write_clothes,
    write_idx,
)
from tests.recipes.recipe_runs import changed, error_of

pytestmark = pytest.mark.runs_once


@pytest.fixture
def clothes(tmp_path):
    folder = tmp_path / "clothes"
    folder.mkdir()
    return write_clothes(folder)


def test_held_out_images_replace_the_test_images_and_are_not_trained_on(clothes):
    pixels, labels = made_clothes(FEW_IMAGES, seed=FEW_IMAGES)
    whole = fashion_mnist.load(clothes)
    assert_array_equal(whole.train_images[..., 0], pixels)
    assert_array_equal(whole.train_labels, labels)
    tests = made_clothes(FEW_IMAGES // 4, seed=FEW_IMAGES // 4)
    assert_array_equal(whole.test_images[..., 0], tests[0])
    assert_array_equal(whole.test_labels, tests[1])
    recipe = catalogue.find("fashion_mnist").with_settings(["held_out=20"])
    assert recipe.load(clothes).train_size == FEW_IMAGES - 20
    data = recipe.with_settings(["train_images=250"]).load(clothes)
    assert_array_equal(data.test_images[..., 0], pixels[-20:])
    assert_array_equal(data.test_labels, labels[-20:])
    assert_array_equal(data.train_images[..., 0], pixels[:250])


def test_no_part_of_a_stream_is_taken_and_no_batch():
    stream, name = StreamedDataset(10, 10, 2, None, None), "imagenet_sew_resnet34"
    with changed(name, load_data=lambda folder: stream):
        recipe = catalogue.find(name)
        for setting in ("held_out=5", "train_images=5"):
            with pytest.raises(ValueError, match=setting):
                recipe.with_settings([setting]).load(None)
        with pytest.raises(ValueError, match=r"recipes.probe takes.* read as a stream"):
            recipe.load(None, in_memory_for="probe")


def test_of_the_data_of_order_only_the_order_tells_the_class():
    dataset = catalogue.find("order").load(None)
    x, y = dataset.train_images, dataset.train_labels
    rates = [x[y == label].mean(axis=(0, 1)) for label in (0, 1)]
    assert_array_equal(*rates)
    assert x.shape == (32, order.T, 4)
    assert_array_equal(x, dataset.test_images)
    for data_dir, timesteps, said in (("data", 8, "The data are made"), (None, 4, "8")):
        with pytest.raises(ValueError, match=said):
            order.load(data_dir, timesteps)


@pytest.fixture
def datasets(monkeypatch):
    """A stand-in for TensorFlow Datasets, of artificial images, without a network."""
    splits = {"train": made_clothes(20, seed=0), "test": made_clothes(10, seed=1)}

    def as_dataset(split, as_supervised, batch_size):
        pixels, labels = splits[split]
        batches = [(pixels[..., np.newaxis], labels)]
        return types.SimpleNamespace(as_numpy_iterator=lambda: iter(batches))

    def no_network(url, timeout):
        raise urllib.error.URLError("no network")

    label = types.SimpleNamespace(names=list("abcdefghij"))
    builder = types.SimpleNamespace(
        is_prepared=lambda: True,
        as_dataset=as_dataset,
        info=types.SimpleNamespace(features={"label": label}),
    )
    library = types.SimpleNamespace(builder=lambda name, data_dir: builder)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", library)
    monkeypatch.setattr("urllib.request.urlopen", no_network)
    return builder


def test_data_of_tensorflow_datasets_need_no_network_or_the_error_names_other_ways(
    datasets, monkeypatch, tmp_path, capsys
):
    data = fashion_mnist.load()
    assert data.train_images.shape == (20, 28, 28, 1)
    assert (data.test_labels.shape, data.classes) == ((10,), 10)
    datasets.is_prepared = lambda: False
    command = ["fashion_mnist", "--output", tmp_path]
    error = error_of(command, capsys)
    assert all(name in error for name in (*fashion_mnist.FILES, "no network"))
    assert "--data-dir" in error
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    error = error_of(command, capsys)
    assert "pip install" in error
    assert "--data-dir" in error


ZIPPED = gzip.compress(bytes(1000), mtime=0)
"""Without the time of day: tests are collected in several processes, and must have the
same names in each."""


def _image(name, array):
    return name, lambda path: write_idx(path, array)


def _bytes(*contents):
    return fashion_mnist.FILES[0], lambda path: path.write_bytes(b"".join(contents))


IMAGES, LABELS, _, TEST_LABELS = fashion_mnist.FILES


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ((IMAGES, lambda path: path.unlink()), "There is no file"),
        (_bytes(), "not a whole IDX file"),
        (_bytes(b"PK\3\4 a zip file"), "50 4b"),
        (_bytes(bytes([0, 0, 8, 3, 0, 0, 0, 1])), "not a whole IDX file"),
        (_bytes(ZIPPED[:-8], bytes(8)), "not a whole IDX file"),
        (_image(IMAGES, np.zeros((3, 32, 32), "uint8")), "(3, 32, 32)"),
        (_image(LABELS, np.zeros(3, "uint8")), "(3,)"),
        (_image(TEST_LABELS, np.full(FEW_IMAGES // 4, 10, "uint8")), "largest is 10"),
    ],
)
def test_the_error_names_a_damaged_file_and_the_problem(damage, said, clothes):
    name, change = damage
    change(clothes / name)
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        fashion_mnist.load(clothes)
    assert str(clothes / name) in str(error.value)
    assert said in str(error.value)
