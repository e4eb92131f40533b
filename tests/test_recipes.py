"""Recipes: trained through the command line's own function, on real digits and on IDX files that the tests write."""

import dataclasses
import gzip
import json
import pathlib
import subprocess
import sys
import types
import urllib.error

import keras
import numpy as np
import pytest

from recipes import catalogue, optimizers, output, run
from recipes.data import digits, fashion_mnist
from recipes.data.idx import read_idx
from recipes.recipe import Recipe
from recipes.train import main

ROOT = pathlib.Path(__file__).parent.parent
DIGITS_EPOCHS = 4
FEW_IMAGES = 320
QUICKLY = ("--timesteps", "1", "--batch-size", "512")
"""For runs whose accuracy does not matter."""


def trained(folder, *arguments):
    """The record of a run of the command line into `folder`."""
    assert main([*arguments, "--output", str(folder)]) == 0
    return json.loads((folder / "history.json").read_text())


def error_of(arguments, capsys):
    """What the command line says of a user's mistake."""
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    return captured.err


def write_idx(path, array):
    content = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def made_clothes(images, seed):
    """Noise with a bright bar, whose row tells the class."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 10, images).astype("uint8")
    pixels = generator.integers(0, 60, (images, 28, 28)).astype("uint8")
    for image, label in zip(pixels, labels, strict=True):
        image[4 + 2 * label : 6 + 2 * label, 4:24] = 250
    return pixels, labels


def write_clothes(folder, suffix=""):
    for names, images in ((fashion_mnist.FILES[:2], FEW_IMAGES), (fashion_mnist.FILES[2:], FEW_IMAGES // 4)):
        for name, array in zip(names, made_clothes(images, seed=images), strict=True):
            write_idx(folder / f"{name}{suffix}", array)
    return folder


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory):
    """Folder and record of a few epochs of the digits."""
    folder = tmp_path_factory.mktemp("digits")
    return folder, trained(folder, "digits", "--epochs", str(DIGITS_EPOCHS))


@pytest.fixture
def clothes(tmp_path):
    folder = tmp_path / "clothes"
    folder.mkdir()
    return write_clothes(folder)


# Training


def test_digits_are_learnt_within_a_few_epochs(digits_run):
    _, record = digits_run
    assert record["test_accuracy"] > 0.9
    assert record["curve"]["loss"][-1] < record["curve"]["loss"][0] / 2


def test_the_record_says_how_the_result_came_about(digits_run):
    folder, record = digits_run
    assert record["settings"] == {**catalogue.find("digits").settings(), "epochs": DIGITS_EPOCHS}
    assert record["backend"] == keras.backend.backend()
    assert {"python", "numpy", "keras", "keras_ratesnn", keras.backend.backend()} == set(record["versions"])
    assert {name: len(values) for name, values in record["curve"].items()} == dict.fromkeys(
        ("accuracy", "loss", "test_accuracy", "test_loss"), DIGITS_EPOCHS
    )
    assert record["test_accuracy"] == record["curve"]["test_accuracy"][-1]
    assert record["parameters"] == keras.saving.load_model(folder / "model.keras").count_params()
    assert (record["train_images"], record["test_images"]) == (1437, 360)
    assert record["seconds"] > 0


def test_the_saved_model_gives_the_same_test_accuracy(digits_run):
    folder, record = digits_run
    model = keras.saving.load_model(folder / "model.keras")
    data = digits.load()
    _, accuracy = model.evaluate(data.test_images, data.test_labels, verbose=0)
    assert accuracy == pytest.approx(record["test_accuracy"], abs=1e-6)


def test_options_do_what_they_say(tmp_path, capsys):
    options = ("--gradient", "bptt", "--timesteps", "2", "--epochs", "1", "--seed", "5", "--batch-size", "128")
    record = trained(tmp_path, "digits", *options)
    expected = {"gradient": "bptt", "timesteps": 2, "epochs": 1, "seed": 5, "batch_size": 128}
    assert record["settings"] == {**catalogue.find("digits").settings(), **expected}
    assert len(record["curve"]["loss"]) == 1
    model = keras.saving.load_model(tmp_path / "model.keras")
    assert model.timesteps == 2
    assert repr(model.gradient) == "BPTT()"
    # 1,437 images in batches of 128.
    assert int(model.optimizer.iterations) == 12

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (f"digits: {keras.backend.backend()} backend, gradient bptt, T = 2, 1 epochs of batches of 128, seed 5")
    assert lines[1] == f"{record['parameters']:,} parameters, 1,437 images for training, 360 for testing"
    assert any("12/12" in line for line in lines)
    assert str(tmp_path) in lines[-2]
    assert lines[-1] == f"test accuracy: {record['test_accuracy']:.4f}"


def test_the_seed_decides_the_curve(tmp_path, monkeypatch):
    options = ("digits", "--epochs", "3", *QUICKLY)
    first = trained(tmp_path / "first", *options, "--seed", "1")["curve"]["loss"]
    other = trained(tmp_path / "other", *options, "--seed", "2")["curve"]["loss"]
    # The default folder is named after the recipe.
    monkeypatch.chdir(tmp_path)
    assert main([*options, "--seed", "1"]) == 0
    again = json.loads(pathlib.Path("runs", "digits", "history.json").read_text())["curve"]["loss"]
    # Threads may add in another order: the same to rounding, not to the bit.
    np.testing.assert_allclose(again, first, rtol=1e-3)
    assert not np.allclose(other, first, rtol=1e-2)


def test_fashion_mnist_trains_from_a_folder_of_idx_files(tmp_path):
    write_clothes(tmp_path, suffix=".gz")
    options = ("--data-dir", str(tmp_path), "--epochs", "4", "--timesteps", "2", "--batch-size", "32")
    record = trained(tmp_path / "run", "fashion_mnist", *options)
    assert (record["train_images"], record["test_images"]) == (FEW_IMAGES, FEW_IMAGES // 4)
    assert record["test_accuracy"] > 0.8


@pytest.mark.slow
@pytest.mark.parametrize("gradient", ["rate", "bptt"])
@pytest.mark.parametrize("seed", ["0", "1"])
def test_the_whole_digits_recipe_reaches_its_accuracy(tmp_path, gradient, seed):
    assert trained(tmp_path, "digits", "--gradient", gradient, "--seed", seed)["test_accuracy"] >= 0.97


NO_TENSORFLOW = """
import importlib.machinery
import sys

finder = importlib.machinery.PathFinder
find_spec = finder.find_spec
finder.find_spec = lambda name, *arguments: None if name == "tensorflow" else find_spec(name, *arguments)
from recipes.train import main

sys.exit(main(sys.argv[1:]))
"""
"""The command line as it runs where TensorFlow is not installed."""


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="the backend is TensorFlow")
def test_digits_need_no_tensorflow(tmp_path):
    command = [sys.executable, "-c", NO_TENSORFLOW, "digits", "--epochs", "1", *QUICKLY, "--output", str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "test accuracy: " in result.stdout


def test_weight_decay_is_on_kernels_only():
    network = catalogue.find("digits").build_network()
    optimizer = optimizers.sgd_with_cosine_decay(network, steps=10, learning_rate=0.5, weight_decay=0.5)
    optimizer.build(network.trainable_variables)
    for variable in network.trainable_variables:
        variable.assign(np.ones(variable.shape))
    optimizer.apply([keras.ops.zeros(variable.shape) for variable in network.trainable_variables])
    for variable in network.trainable_variables:
        expected = 0.75 if variable.path.endswith("/kernel") else 1.0
        np.testing.assert_allclose(keras.ops.convert_to_numpy(variable), expected, err_msg=variable.path)


def test_the_learning_rate_falls_to_zero_over_the_whole_run():
    recipe = dataclasses.replace(catalogue.find("digits"), epochs=3, batch_size=100)
    schedule = run.build(recipe, digits.load()).optimizer._learning_rate
    assert float(schedule(0)) == pytest.approx(recipe.learning_rate)
    assert float(schedule(3 * 15 - 1)) > 0
    assert float(schedule(3 * 15)) == pytest.approx(0, abs=1e-9)


# Data


def test_the_split_of_the_digits_is_fixed_and_stratified():
    first = digits.load()
    keras.utils.set_random_seed(17)
    second = digits.load()
    np.testing.assert_array_equal(first.test_images, second.test_images)
    images = np.concatenate([first.train_images, first.test_images])
    assert images.shape == (1797, 8, 8, 1)
    assert images.max() == digits.LARGEST_PIXEL
    shares = np.bincount(first.test_labels) / np.bincount(np.concatenate([first.train_labels, first.test_labels]))
    np.testing.assert_allclose(shares, 0.2, atol=0.005)


@pytest.mark.parametrize("name", ["array-idx", "array-idx.gz"])
@pytest.mark.parametrize("shape", [(7,), (300, 28, 28), (2, 3, 4, 5)])
def test_an_idx_file_is_read_as_it_was_written(tmp_path, name, shape):
    array = np.random.default_rng(0).integers(0, 256, shape).astype("uint8")
    write_idx(tmp_path / name, array)
    read = read_idx(tmp_path / name)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, array)


def test_compression_is_told_from_the_bytes_not_the_name(tmp_path):
    array = np.arange(6, dtype="uint8")
    write_idx(tmp_path / "compressed.gz", array)
    (tmp_path / "compressed.gz").rename(tmp_path / "array-idx")
    np.testing.assert_array_equal(read_idx(tmp_path / "array-idx"), array)


def test_fashion_mnist_keeps_images_and_labels_together(clothes):
    data = fashion_mnist.load(clothes)
    pixels, labels = made_clothes(FEW_IMAGES, seed=FEW_IMAGES)
    np.testing.assert_array_equal(data.train_images[..., 0], pixels)
    np.testing.assert_array_equal(data.train_labels, labels)
    assert data.test_images.shape == (FEW_IMAGES // 4, 28, 28, 1)
    assert data.test_labels.shape == (FEW_IMAGES // 4,)


def tensorflow_datasets_stand_in(prepared):
    """What the loader uses of TensorFlow Datasets, with made pictures in the place of a download."""
    splits = [(pixels[..., np.newaxis], labels) for pixels, labels in (made_clothes(20, seed=0), made_clothes(10, seed=1))]
    return types.SimpleNamespace(
        builder=lambda name: types.SimpleNamespace(is_prepared=lambda: prepared),
        image_classification=types.SimpleNamespace(FashionMNIST=types.SimpleNamespace(URL="http://host.invalid/")),
        load=lambda name, **kwargs: splits,
        as_numpy=lambda values: values,
    )


def no_network(url, timeout):
    raise urllib.error.URLError("no network")


def test_data_that_tensorflow_datasets_has_needs_no_network(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", tensorflow_datasets_stand_in(prepared=True))
    monkeypatch.setattr("urllib.request.urlopen", no_network)
    data = fashion_mnist.load()
    assert data.train_images.shape == (20, 28, 28, 1)
    assert data.test_labels.shape == (10,)


def test_without_a_network_the_error_names_the_other_way(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", tensorflow_datasets_stand_in(prepared=False))
    monkeypatch.setattr("urllib.request.urlopen", no_network)
    error = error_of(["fashion_mnist", "--output", str(tmp_path)], capsys)
    assert "no network" in error
    assert "--data-dir" in error
    assert all(name in error for name in fashion_mnist.FILES)


def test_without_tensorflow_datasets_the_error_says_what_to_install(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    error = error_of(["fashion_mnist", "--output", str(tmp_path)], capsys)
    assert "pip install" in error
    assert "--data-dir" in error


# Mistakes


def test_an_unknown_recipe_is_told_the_known_ones(capsys):
    error = error_of(["digit"], capsys)
    assert "'digit'" in error
    assert all(name in error for name in catalogue.RECIPES)


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--epochs", "0", "epochs=0"),
        ("--timesteps", "-1", "timesteps=-1"),
        ("--batch-size", "0", "batch_size=0"),
        ("--seed", "-1", "seed=-1"),
        ("--seed", "4294967296", "seed=4294967296"),
        ("--gradient", "ratee", "'ratee'"),
        ("--data-dir", "somewhere", "--data-dir somewhere"),
    ],
)
def test_a_wrong_value_is_named(option, value, said, tmp_path, capsys):
    assert said in error_of(["digits", option, value, "--output", str(tmp_path)], capsys)


@pytest.mark.parametrize("arguments", [[], ["digits", "--epochs", "many"], ["digits", "--steps", "2"]])
def test_a_wrong_command_line_exits_with_the_usage(arguments, capsys):
    with pytest.raises(SystemExit) as exit_info:
        main(arguments)
    assert exit_info.value.code == 2
    assert "usage: python -m recipes.train" in capsys.readouterr().err


def test_a_wrong_number_in_a_recipe_file_is_found_too():
    with pytest.raises(TypeError, match="epochs"):
        Recipe(**{**vars(catalogue.find("digits")), "epochs": 1.5})


def test_an_output_folder_that_cannot_be_made_is_named(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        error = error_of(["digits", "--output", str(folder)], capsys)
        assert str(folder) in error
        assert "--output" in error


def test_an_output_folder_that_cannot_be_written_in_is_named(tmp_path, monkeypatch):
    def denied(dir):
        raise PermissionError(13, "Permission denied")

    # Rights would not stop a test that runs as the superuser.
    monkeypatch.setattr(output.tempfile, "TemporaryFile", denied)
    with pytest.raises(OSError, match="Permission denied") as error_info:
        output.prepare(tmp_path)
    assert str(tmp_path) in str(error_info.value)


def test_a_data_folder_that_is_not_there_is_named(tmp_path, capsys):
    folder = tmp_path / "nowhere"
    error = error_of(["fashion_mnist", "--data-dir", str(folder), "--output", str(tmp_path)], capsys)
    assert str(folder) in error
    assert "does not exist" in error
    (tmp_path / "file").write_text("")
    error = error_of(["fashion_mnist", "--data-dir", str(tmp_path / "file"), "--output", str(tmp_path)], capsys)
    assert f"{tmp_path / 'file'} is not a folder" in error


@pytest.mark.parametrize("name", fashion_mnist.FILES)
def test_a_data_file_that_is_missing_is_named(name, clothes, tmp_path, capsys):
    (clothes / name).unlink()
    error = error_of(["fashion_mnist", "--data-dir", str(clothes), "--output", str(tmp_path)], capsys)
    assert str(clothes / name) in error


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "0 bytes"),
        (b"PK\3\4 a zip file", "50 4b"),
        (bytes([0, 0, 13, 1, 0, 0, 0, 0]), "type 13"),
        (bytes([0, 0, 8, 3, 0, 0, 0, 1]), "header of 3 dimensions takes 16"),
        (bytes([0, 0, 8, 1, 0, 0, 0, 5, 1, 2, 3]), "(5,), 13 bytes in all, and it has 11"),
        (bytes([0, 0, 8, 1, 0, 0, 0, 1, 1, 2, 3]), "(1,), 9 bytes in all, and it has 11"),
        (gzip.compress(bytes(1000))[:-9], "gzip cannot decompress"),
        (gzip.compress(bytes(1000))[:-8] + bytes(8), "gzip cannot decompress"),
        (b"\x1f\x8b\x08\x00 not gzip any more", "gzip cannot decompress"),
    ],
)
@pytest.mark.parametrize("name", fashion_mnist.FILES[:2])
def test_a_damaged_data_file_is_named_and_what_is_wrong(name, content, said, clothes, tmp_path, capsys):
    (clothes / name).write_bytes(content)
    error = error_of(["fashion_mnist", "--data-dir", str(clothes), "--output", str(tmp_path)], capsys)
    assert str(clothes / name) in error
    assert said in error


@pytest.mark.parametrize(
    ("name", "array", "said"),
    [
        (fashion_mnist.FILES[0], np.zeros((3, 32, 32), "uint8"), "(3, 32, 32)"),
        (fashion_mnist.FILES[0], np.zeros((0, 28, 28), "uint8"), "(0, 28, 28)"),
        (fashion_mnist.FILES[1], np.zeros(3, "uint8"), "(3,)"),
        (fashion_mnist.FILES[3], np.full(FEW_IMAGES // 4, 10, "uint8"), "largest is 10"),
    ],
)
def test_a_data_file_that_holds_something_else_is_named(name, array, said, clothes, tmp_path, capsys):
    write_idx(clothes / name, array)
    error = error_of(["fashion_mnist", "--data-dir", str(clothes), "--output", str(tmp_path)], capsys)
    assert str(clothes / name) in error
    assert said in error
