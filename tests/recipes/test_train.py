"""Recipes, trained through the function of the command line, on real digits and on IDX
files written by the tests."""

import contextlib
import csv
import dataclasses
import io
import signal
import time

import keras
import numpy as np
import pytest
from helpers import rate_and_bptt, to_numpy
from keras import ops
from numpy.testing import assert_allclose, assert_array_equal

from recipes import (
    batches,
    catalogue,
    command_line,
    convert,
    evaluate,
    optimizers,
    run,
)
from recipes.data import digits
from recipes.data.dataset import Dataset
from recipes.train import main
from tests.recipes.recipe_runs import QUICKLY, error_of, trained


@pytest.fixture(autouse=True)
def _default_precision():
    """A recipe sets JAX's."""
    yield
    if keras.backend.backend() == "jax":
        import jax

        jax.config.update("jax_enable_x64", False)


# Training


CHANGES = {
    "gradient": "bptt",
    "timesteps": 2,
    "epochs": 2,
    "seed": 5,
    "batch_size": 32,
    "width": 0.5,
    "train_images": 512,
}
MEASURES = (
    "accuracy loss test_accuracy test_loss seconds images_per_second learning_rate "
    "firing_rate"
)


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory):
    """`(folder, record, output)` of a run with other settings than the recipe's."""
    folder, printed = tmp_path_factory.mktemp("digits"), io.StringIO()
    settings = [f"{name}={value}" for name, value in CHANGES.items()]
    with contextlib.redirect_stdout(printed):
        record = trained(folder, "digits", "--set", *settings)
    return folder, record, printed.getvalue()


def test_the_record_the_log_and_tensorboard_describe_the_run(digits_run):
    folder, record, _ = digits_run
    backend, curve = keras.backend.backend(), record["curve"]
    software = {"python", "numpy", "keras", "keras_ratesnn", backend}
    assert (record["backend"], set(record["versions"])) == (backend, software)
    assert record["diverged"] is None
    assert set(curve) == set(MEASURES.split())
    scores = record["test_accuracy"], record["best_test_accuracy"]
    assert scores == (curve["test_accuracy"][-1], max(curve["test_accuracy"]))
    model = keras.saving.load_model(folder / "last.keras")
    sizes = ("parameters", "train_images", "test_images")
    assert [record[name] for name in sizes] == [model.count_params(), 512, 360]
    assert record["seconds"] == pytest.approx(sum(curve["seconds"]), abs=0.1)
    assert all(0 < rate < 1 for rate in curve["firing_rate"])
    assert all(isinstance(number, int) for number in curve["images_per_second"])
    assert record["peak_memory_mib"] > 100
    with open(folder / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "1"]
    accuracies = [float(row["val_accuracy"]) for row in rows]
    assert accuracies == curve["test_accuracy"]
    assert list((folder / "tensorboard").rglob("events.*"))


@pytest.mark.backends(3)
def test_settings_take_effect(digits_run):
    folder, record, printed = digits_run
    assert record["settings"] == {**catalogue.find("digits").settings(), **CHANGES}
    assert {len(values) for values in record["curve"].values()} == {2}
    model = keras.saving.load_model(folder / "last.keras")
    assert (model.timesteps, repr(model.gradient)) == (2, "BPTT(recompute=False)")
    # 512 images in batches of 32.
    assert int(model.optimizer.iterations) == 2 * 16

    backend = keras.backend.backend()
    first, second, *lines = printed.splitlines()
    run = "gradient bptt, T = 2, 2 epochs of batches of 32, seed 5"
    assert first == f"digits: {backend} backend, {run}"
    sizes = f"{record['parameters']:,} parameters, 512 training images"
    assert second == f"{sizes}, 360 test images"
    assert any("16/16" in line for line in lines)
    assert str(folder) in lines[-2]
    assert lines[-1] == f"test accuracy: {record['test_accuracy']:.4f}"


@pytest.mark.backends(3)
def test_float64_has_64_bits():
    recipe = catalogue.find("digits").with_settings(["precision=float64", *QUICKLY])
    model = run.build(recipe, digits.load())
    # Gradients and momenta are of the same type.
    model.train_on_batch(np.zeros((2, 8, 8, 1)), np.zeros(2, int))
    for variable in (*model.trainable_variables, *model.optimizer.variables):
        if "iteration" not in variable.path and "learning_rate" not in variable.path:
            assert to_numpy(variable).dtype == np.float64, variable.path
    kernel = to_numpy(model.trainable_variables[0])
    assert (kernel != kernel.astype("float32")).any()


@pytest.mark.parametrize("taught", ["teacher_weight=None", "teacher_weight=0.5"])
def test_the_first_epochs_have_two_windows_and_the_others_one(taught):
    """From membranes at half the threshold."""
    ordinary = "no" if taught.endswith("None") else "beside"
    settings = ["timesteps=2", "epochs=4", "train_images=64", "batch_size=64"]
    first = ["two_window_epochs=2", "initial_membrane=0.5", f"ordinary={ordinary}"]
    recipe = catalogue.find("digits").with_settings([*settings, *first, taught])
    data, methods = recipe.load(None), []
    model = run.build(recipe, data)
    neurons = filter(lambda layer: hasattr(layer, "cell"), model.network.layers)
    membranes = {layer.cell.initial_membrane for layer in neurons}
    fitted = run.to_fit(model, recipe, data)
    note = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: methods.append(str(model.gradient))
    )
    callbacks = [*run._changes_in_time(recipe), note]
    examples = batches.training_batches(data, recipe)
    options = {"steps_per_epoch": 1, "shuffle": False, "verbose": 0}
    fitted.fit(examples, epochs=4, callbacks=callbacks, **options)
    assert ["windows=2" in method for method in methods] == [True, True, False, False]
    assert membranes == {0.5}


@pytest.mark.slow
@rate_and_bptt
@pytest.mark.parametrize("seed", [0, 1])
def test_the_whole_digits_recipe_reaches_its_accuracy(tmp_path, gradient, seed):
    settings = f"gradient={gradient}", f"seed={seed}"
    record = trained(tmp_path, "digits", "--set", *settings)
    assert record["test_accuracy"] >= 0.97


def test_weight_decay_is_on_kernels_only():
    settings = ["width=0.25", "learning_rate=0.5", "weight_decay=0.5"]
    recipe = catalogue.find("digits").with_settings(settings)
    network = recipe.network()
    variables = network.trainable_variables
    optimizer = optimizers.build(recipe, network, steps=10)
    optimizer.build(variables)
    for variable in variables:
        variable.assign(np.ones(variable.shape))
    optimizer.apply([ops.zeros(variable.shape) for variable in variables])
    for variable in variables:
        wanted = 0.75 if variable.path.endswith("/kernel") else 1.0
        value = ops.convert_to_numpy(variable)
        assert_allclose(value, wanted, err_msg=variable.path)


def test_the_learning_rate_falls_to_zero_and_restarts_at_half():
    recipe = catalogue.find("digits").with_settings(
        ["epochs=5", "restart_at=0.6", "batch_size=100", "width=0.1"]
    )
    schedule = run.build(recipe, digits.load()).optimizer._learning_rate
    assert float(schedule(0)) == pytest.approx(recipe.learning_rate)
    assert 0 < float(schedule(3 * 15 - 1)) < 0.01 * recipe.learning_rate
    assert float(schedule(3 * 15)) == pytest.approx(recipe.learning_rate / 2)
    assert 0 < float(schedule(5 * 15 - 1)) < 0.01 * recipe.learning_rate


def test_the_authors_settings_give_the_authors_steps():
    """Their loop in NumPy against a Keras optimizer, with a constant gradient and a
    weight in equilibrium."""
    timesteps, learning_rate, weight_decay, gradient = 4, 0.1, 0.1, 3.0
    theirs, velocity = 1.0, 0.0
    for _ in range(500):
        velocity = 0.9 * velocity + gradient / timesteps + weight_decay * theirs
        theirs -= learning_rate * velocity
    rate, decay = optimizers.paper_rates(learning_rate, weight_decay, timesteps)
    optimizer = keras.optimizers.SGD(rate, momentum=0.9, weight_decay=decay)
    ours = keras.Variable(1.0, name="kernel")
    optimizer.build([ours])
    for _ in range(500):
        optimizer.apply([ops.convert_to_tensor(gradient)])
    assert float(ops.convert_to_numpy(ours)) == pytest.approx(theirs, rel=0.02)


# Batches


def test_every_epoch_has_all_images_with_their_labels_in_its_own_order():
    numbers, orders = np.arange(200), []
    images = numbers.reshape(-1, 1, 1, 1)
    data = Dataset(images, numbers, images[:2], numbers[:2])
    for seed in (0, 1):
        settings = ["epochs=2", "batch_size=80", "augment=none", f"seed={seed}"]
        recipe = catalogue.find("digits").with_settings(settings)
        pairs = batches.training_batches(data, recipe, 0).unbatch()
        shown, labels = zip(*pairs.as_numpy_iterator(), strict=True)
        assert_array_equal(np.ravel(shown), labels)
        orders += np.split(np.array(labels), 2)
    for order in orders:
        assert sorted(order) == numbers.tolist()
    assert len({order.tobytes() for order in orders}) == 4


@pytest.mark.parametrize(
    ("augment", "mix"), [("fashion_mnist", "mixup"), ("random_erasing", "cutmix")]
)
def test_batches_that_start_later_are_the_same(augment, mix):
    recipe = dataclasses.replace(
        catalogue.find("digits"),
        epochs=2,
        batch_size=60,
        train_images=290,
        augment=augment,
        mix=mix,
    )
    data = recipe.load(None)
    whole, later = (
        list(batches.training_batches(data, recipe, first_epoch).as_numpy_iterator())
        for first_epoch in (0, 1)
    )
    assert len(whole) == 10
    for batch, later_batch in zip(whole[-5:], later, strict=True):
        for array, later_array in zip(batch, later_batch, strict=True):
            assert_array_equal(array, later_array)


def test_batches_larger_than_the_data_are_all_of_it():
    recipe = catalogue.find("digits").with_settings(["batch_size=10000000000"])
    dataset = recipe.load(None)
    ((images, _),) = batches.evaluation_batches(dataset, recipe)
    assert len(images) == dataset.test_size


# What follows a run


def test_evaluate_gives_the_accuracies_of_the_record(digits_run, capsys):
    folder, record, _ = digits_run
    assert evaluate.main([str(folder)]) == 0
    assert f"test accuracy: {record['test_accuracy']:.4f}" in capsys.readouterr().out
    options = ["--checkpoint", "best", "--timesteps", "1", "2"]
    assert evaluate.main([str(folder), *options]) == 0
    at_one, as_trained = capsys.readouterr().out.split("T = 2")
    assert "T = 1" in at_one
    assert at_one.count("test accuracy: ") == 1
    assert f"test accuracy: {record['best_test_accuracy']:.4f}" in as_trained


def test_a_score_of_held_out_images_is_not_called_a_test_score(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert main(["digits", "--set", "held_out=360", "epochs=1", *QUICKLY]) == 0
    # The default folder is named after the recipe.
    assert (tmp_path / "runs" / "digits" / "result.json").exists()
    printed = capsys.readouterr().out
    assert "held-out accuracy: " in printed
    assert "test accuracy" not in printed


# Mistakes


MISTAKES = """
digits --set train_images=99999 | at most the number of training images, 1437.
digits --set normalization=online | threshold_stabilizer
digits --set augment=imagenet | which changes it to (224, 224, 1)
digits --set augment=cifar10 | AutoAugment's images must have three channels
digits --set start_from=nothing | `name` must be one of 'digits'
digits --set start_from=digits width=0.5 | `start_from` must be a pretrained
digits --set branches=3 width=0.1 | `branches` must be at most 2
digits --set epochs=0 | epochs=0
digits --epochs 0 | epochs=0
digits --data-dir somewhere | Received: --data-dir somewhere
digits_detection --set image_side=48 | `image_side` of scenes is 64
digits_detection --data-dir nowhere | There is no file nowhere/train.json
"""


@pytest.mark.parametrize("line", MISTAKES.strip().splitlines())
def test_a_mistake_costs_no_run_and_occupies_no_folder(line, tmp_path, capsys):
    """Not even with --restart, in the folder of an earlier run or in one that is
    none."""
    arguments, said = line.split(" | ")
    folder = tmp_path / "runs" / "run"
    command = [*arguments.split(), "--output", folder]
    error = error_of(command, capsys)
    assert said in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
    (folder / "ordinary").mkdir(parents=True)
    (folder / "result.json").write_text("{}")
    assert said in error_of([*command, "--restart"], capsys)
    assert {path.name for path in folder.iterdir()} == {"result.json", "ordinary"}


def test_a_restart_deletes_nothing_where_no_run_is(tmp_path):
    (tmp_path / "ordinary").mkdir()
    (tmp_path / "ordinary" / "thesis.txt").write_text("mine")
    trained(tmp_path, "digits", "--restart", "--set", "epochs=1", *QUICKLY)
    assert (tmp_path / "ordinary" / "thesis.txt").read_text() == "mine"


def test_the_error_names_an_output_folder_that_cannot_be_created(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        error = error_of(["digits", "--output", str(folder)], capsys)
        assert str(folder) in error
        assert "--output" in error


def test_images_with_channels_first_are_not_taken_for_others(monkeypatch, capsys):
    monkeypatch.setattr(keras.config, "image_data_format", lambda: "channels_first")
    for command in (main, convert.main):
        error = error_of(["digits"], capsys, command)
        assert "Recipes take images (height, width, channels). Received: image" in error


# Ctrl-C


def test_ctrl_c_is_not_lost_where_python_ignores_exceptions():
    class Freed:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    def work(arguments):
        Freed()
        time.sleep(5)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    command = command_line.command(None, "none", "None.", lambda parser: None, work)
    assert command([]) == 130
    signal.signal(signal.SIGINT, before)
