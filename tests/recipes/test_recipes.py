"""Recipes, trained through the function of the command line, on real digits and on IDX
files written by the tests."""

import csv
import dataclasses
import importlib
import json
import pathlib
import re
import shutil
import subprocess
import sys
import types

import keras
import numpy as np
import pytest
from made_once import made_once

from recipes import (
    catalogue,
    checkpoint,
    convert,
    evaluate,
    methods,
    optimizers,
    pipeline,
    run,
    run_folder,
    windows,
)
from recipes import list as list_command
from recipes.benchmark import against_timesteps
from recipes.compare import __main__ as compare
from recipes.compare import results, training
from recipes.data import digits
from recipes.progress import Progress
from recipes.recipe import Recipe
from recipes.train import main
from tests.recipes.made_clothes import FEW_IMAGES, write_clothes
from tests.recipes.recipe_runs import QUICKLY, error_of, fast_programs, trained

pytestmark = pytest.mark.runs_once

DIGITS_EPOCHS = 3


@pytest.fixture(autouse=True)
def _default_precision():
    """A recipe sets the global policy, and JAX's."""
    yield
    keras.config.set_dtype_policy("float32")
    if keras.backend.backend() == "jax":
        import jax

        jax.config.update("jax_enable_x64", False)


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory, request):
    """Folder and record of a run of a few epochs on the digits."""

    def make(folder):
        with fast_programs():
            trained(folder / "run", "digits", "--set", f"epochs={DIGITS_EPOCHS}")

    shared = made_once("digits", make, tmp_path_factory, request)
    folder = pathlib.Path(
        shutil.copytree(
            shared / "run", tmp_path_factory.mktemp("digits_of_a_worker") / "run"
        )
    )
    return folder, json.loads((folder / "result.json").read_text())


# Training


def test_digits_are_learnt_within_a_few_epochs(digits_run):
    _, record = digits_run
    assert record["test_accuracy"] > 0.9
    assert record["curve"]["loss"][-1] < record["curve"]["loss"][0] / 2


def test_the_record_describes_the_run(digits_run):
    folder, record = digits_run
    assert record["settings"] == {
        **catalogue.find("digits").settings(),
        "epochs": DIGITS_EPOCHS,
    }
    assert record["backend"] == keras.backend.backend()
    assert {
        "python",
        "numpy",
        "keras",
        "keras_ratesnn",
        keras.backend.backend(),
    } == set(record["versions"])
    here = {name: record[name] for name in ("backend", "device", "versions")}
    assert record["parts"] == [{"first_epoch": 1, **here}]
    assert record["diverged"] is None
    curve = record["curve"]
    measures = {"accuracy", "loss", "test_accuracy", "test_loss"}
    measures |= {"seconds", "images_per_second", "learning_rate", "firing_rate"}
    assert {name: len(values) for name, values in curve.items()} == dict.fromkeys(
        measures, DIGITS_EPOCHS
    )
    assert record["test_accuracy"] == curve["test_accuracy"][-1]
    assert record["best_test_accuracy"] == max(curve["test_accuracy"])
    assert (
        record["parameters"]
        == keras.saving.load_model(folder / "last.keras").count_params()
    )
    assert (record["train_images"], record["test_images"]) == (1437, 360)
    assert record["seconds"] == pytest.approx(sum(curve["seconds"]), abs=0.1)
    assert all(0 < rate < 1 for rate in curve["firing_rate"])
    assert record["peak_memory_mib"] > 100
    assert record["device"]


def test_the_log_has_a_row_and_tensorboard_a_file(digits_run):
    folder, record = digits_run
    with open(folder / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == list(range(DIGITS_EPOCHS))
    assert [float(row["val_accuracy"]) for row in rows] == record["curve"][
        "test_accuracy"
    ]
    assert list((folder / "tensorboard").rglob("events.*"))


def test_the_saved_models_give_the_test_accuracies_of_the_record(digits_run):
    folder, record = digits_run
    data = digits.load()
    for name, expected in (
        ("last", record["test_accuracy"]),
        ("best", record["best_test_accuracy"]),
    ):
        model = keras.saving.load_model(folder / f"{name}.keras")
        _, accuracy = model.evaluate(data.test_images, data.test_labels, verbose=0)
        assert accuracy == pytest.approx(expected, abs=1e-6)


@pytest.mark.on_each_backend
def test_settings_take_effect(tmp_path, capsys):
    settings = (
        "gradient=bptt",
        "timesteps=2",
        "epochs=1",
        "seed=5",
        "batch_size=128",
        "width=0.5",
        "train_images=512",
    )
    record = trained(tmp_path, "digits", "--set", *settings)
    expected = {
        "gradient": "bptt",
        "timesteps": 2,
        "epochs": 1,
        "seed": 5,
        "batch_size": 128,
        "width": 0.5,
        "train_images": 512,
    }
    assert record["settings"] == {**catalogue.find("digits").settings(), **expected}
    assert len(record["curve"]["loss"]) == 1
    assert record["train_images"] == 512
    model = keras.saving.load_model(tmp_path / "last.keras")
    assert model.timesteps == 2
    assert repr(model.gradient) == "BPTT()"
    # 512 images in batches of 128.
    assert int(model.optimizer.iterations) == 4

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        f"digits: {keras.backend.backend()} backend, gradient bptt, T = 2, 1 epochs of "
        "batches of 128, seed 5"
    )
    assert (
        lines[1]
        == f"{record['parameters']:,} parameters, 512 training images, 360 test images"
    )
    assert ("data are read by TensorFlow" in lines[2]) == (
        keras.backend.backend() != "tensorflow"
    )
    assert any("4/4" in line for line in lines)
    assert str(tmp_path) in lines[-2]
    assert lines[-1] == f"test accuracy: {record['test_accuracy']:.4f}"


def test_the_seed_determines_the_curve(tmp_path, monkeypatch):
    options = ("digits", "--set", "epochs=2", *QUICKLY)
    first = trained(tmp_path / "first", *options, "--set", "seed=1")["curve"]["loss"]
    other = trained(tmp_path / "other", *options, "--set", "seed=2")["curve"]["loss"]
    # The default folder is named after the recipe.
    monkeypatch.chdir(tmp_path)
    assert main([*options, "seed=1"]) == 0
    again = run_folder.read_json(pathlib.Path("runs", "digits", "result.json"))[
        "curve"
    ]["loss"]
    # Threads may add in another order: the same to rounding, not to the bit.
    np.testing.assert_allclose(again, first, rtol=1e-4)
    assert not np.allclose(other, first, rtol=1e-3)


@pytest.mark.on_each_backend
def test_precision_is_that_of_the_whole_network(tmp_path):
    trained(
        tmp_path, "digits", "--set", "epochs=1", "precision=mixed_bfloat16", *QUICKLY
    )
    model = keras.saving.load_model(tmp_path / "last.keras")
    assert {layer.compute_dtype for layer in model.network.layers} == {"bfloat16"}


@pytest.mark.on_each_backend
def test_float64_has_64_bits():
    model = run.build(
        catalogue.find("digits").with_settings(["precision=float64", *QUICKLY]),
        digits.load(),
    )
    # Gradients and momenta are of the same type.
    model.train_on_batch(np.zeros((2, 8, 8, 1)), np.zeros(2, int))
    for variable in (*model.trainable_variables, *model.optimizer.variables):
        if "iteration" not in variable.path and "learning_rate" not in variable.path:
            assert keras.ops.convert_to_numpy(variable).dtype == np.float64, (
                variable.path
            )
    kernel = keras.ops.convert_to_numpy(model.trainable_variables[0])
    assert (kernel != kernel.astype("float32")).any()


def test_fashion_mnist_trains_from_a_folder_of_idx_files_with_augmentation(tmp_path):
    write_clothes(tmp_path, suffix=".gz")
    settings = ("epochs=3", "timesteps=2", "batch_size=32", "width=0.25")
    record = trained(
        tmp_path / "run",
        "fashion_mnist",
        "--data-dir",
        str(tmp_path),
        "--set",
        *settings,
    )
    assert (record["train_images"], record["test_images"]) == (
        FEW_IMAGES,
        FEW_IMAGES // 4,
    )
    assert record["curve"]["loss"][-1] < record["curve"]["loss"][0]


@pytest.mark.slow
@pytest.mark.parametrize("gradient", ["rate", "bptt"])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_whole_digits_recipe_reaches_its_accuracy(tmp_path, gradient, seed):
    assert (
        trained(tmp_path, "digits", "--set", f"gradient={gradient}", f"seed={seed}")[
            "test_accuracy"
        ]
        >= 0.97
    )


@pytest.mark.parametrize("mix", ["mixup", "cutmix"])
def test_images_can_be_mixed(mix, tmp_path):
    record = trained(tmp_path, "digits", "--set", "epochs=1", f"mix={mix}", *QUICKLY)
    assert np.isfinite(record["curve"]["loss"]).all()


def test_weight_decay_is_on_kernels_only():
    network = catalogue.find("digits").build_network(0.25)
    optimizer = optimizers.sgd_with_cosine_decay(
        network, steps=10, learning_rate=0.5, weight_decay=0.5
    )
    optimizer.build(network.trainable_variables)
    for variable in network.trainable_variables:
        variable.assign(np.ones(variable.shape))
    optimizer.apply(
        [keras.ops.zeros(variable.shape) for variable in network.trainable_variables]
    )
    for variable in network.trainable_variables:
        expected = 0.75 if variable.path.endswith("/kernel") else 1.0
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(variable), expected, err_msg=variable.path
        )


def test_the_learning_rate_falls_to_zero_over_the_whole_run():
    recipe = dataclasses.replace(catalogue.find("digits"), epochs=3, batch_size=100)
    schedule = run.build(recipe, digits.load()).optimizer._learning_rate
    assert float(schedule(0)) == pytest.approx(recipe.learning_rate)
    assert float(schedule(3 * 15 - 1)) > 0
    assert float(schedule(3 * 15)) == pytest.approx(0, abs=1e-9)


def test_a_warm_restart_starts_at_half_the_learning_rate():
    recipe = catalogue.find("digits").with_settings(
        ["epochs=5", "restart_at=0.6", "batch_size=100"]
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
    rate, decay = optimizers.of_the_paper(learning_rate, weight_decay, timesteps)
    optimizer = keras.optimizers.SGD(rate, momentum=0.9, weight_decay=decay)
    ours = keras.Variable(1.0, name="kernel")
    optimizer.build([ours])
    for _ in range(500):
        optimizer.apply([keras.ops.convert_to_tensor(gradient)])
    assert float(keras.ops.convert_to_numpy(ours)) == pytest.approx(theirs, rel=0.02)


# The pipeline


def batches(recipe, first_epoch=0):
    data = recipe.load(None)
    return [
        (images, labels)
        for images, labels in pipeline.training_batches(
            data, recipe, first_epoch
        ).as_numpy_iterator()
    ]


def test_every_epoch_has_all_images_in_its_own_order():
    recipe = dataclasses.replace(catalogue.find("digits"), epochs=2, batch_size=500)
    labels = np.concatenate([labels for _, labels in batches(recipe)])
    first, second = labels[:1437], labels[1437:]
    counts = np.bincount(digits.load().train_labels)
    np.testing.assert_array_equal(np.bincount(first), counts)
    np.testing.assert_array_equal(np.bincount(second), counts)
    assert (first != second).any()


@pytest.mark.parametrize(
    ("augment", "mix"),
    [
        ("fashion_mnist", "none"),
        ("fashion_mnist", "mixup"),
        ("random_erasing", "cutmix"),
    ],
)
def test_a_pipeline_that_starts_later_gives_the_same_batches(augment, mix):
    recipe = dataclasses.replace(
        catalogue.find("digits"),
        epochs=2,
        batch_size=60,
        train_images=290,
        augment=augment,
        mix=mix,
    )
    whole, later = batches(recipe), batches(recipe, first_epoch=1)
    assert len(whole) == 10
    for (images, labels), (later_images, later_labels) in zip(
        whole[-5:], later, strict=True
    ):
        np.testing.assert_array_equal(images, later_images)
        np.testing.assert_array_equal(labels, later_labels)


def test_two_seeds_give_two_orders_and_augmentations():
    first, second = (
        np.concatenate(
            [
                images
                for images, _ in batches(
                    dataclasses.replace(catalogue.find("digits"), epochs=1, seed=seed)
                )
            ]
        )
        for seed in (0, 1)
    )
    assert (first != second).any()


def test_images_and_labels_stay_together():
    data = digits.load()
    labels_of = {
        image.tobytes(): label
        for image, label in zip(data.train_images, data.train_labels, strict=True)
    }
    for images, labels in batches(
        dataclasses.replace(catalogue.find("digits"), epochs=1)
    ):
        for image, label in zip(images, labels, strict=True):
            assert labels_of[image.tobytes()] == label


# The other commands


def test_evaluate_gives_the_accuracy_of_the_record(digits_run, capsys):
    folder, record = digits_run
    assert evaluate.main([str(folder)]) == 0
    assert f"test accuracy: {record['test_accuracy']:.4f}" in capsys.readouterr().out
    assert (
        evaluate.main(
            [
                str(folder),
                "--checkpoint",
                "best",
                "--timesteps",
                "2",
                str(record["settings"]["timesteps"]),
            ]
        )
        == 0
    )
    at_two, as_trained = capsys.readouterr().out.split(
        f"T = {record['settings']['timesteps']}"
    )
    assert "T = 2" in at_two
    assert at_two.count("test accuracy: ") == as_trained.count("test accuracy: ") == 1


def test_evaluate_needs_positive_numbers_of_time_steps(digits_run, capsys):
    error = error_of([digits_run[0], "--timesteps", "2", "0"], capsys, evaluate.main)
    assert "`--timesteps` must be 1 or more. Received: --timesteps=0" in error


def test_fewer_time_steps_than_random_steps_are_tested(tmp_path, capsys):
    settings = (
        "gradient=sltt",
        "random_steps=3",
        "timesteps=4",
        "epochs=1",
        *QUICKLY[1:],
    )
    trained(tmp_path, "digits", "--set", *settings)
    assert evaluate.main([str(tmp_path), "--timesteps", "2"]) == 0
    assert "T = 2" in capsys.readouterr().out


def test_a_score_of_held_out_images_is_not_called_a_test_score(tmp_path, capsys):
    trained(tmp_path, "digits", "--set", "held_out=360", "epochs=1", *QUICKLY)
    printed = capsys.readouterr().out
    assert "held-out accuracy: " in printed
    assert "test accuracy" not in printed


def test_evaluate_names_a_folder_without_a_run(tmp_path, capsys):
    assert str(tmp_path) in error_of([tmp_path], capsys, evaluate.main)


@pytest.mark.parametrize(
    "text",
    ["[]", "{}", '{"name": 3}', '{"name": "digit"}', '{"name": "digits", "colour": 1}'],
)
def test_evaluate_names_settings_with_the_wrong_format(text, tmp_path, capsys):
    (tmp_path / "settings.json").write_text(text)
    error = error_of([tmp_path], capsys, evaluate.main)
    assert str(tmp_path / "settings.json") in error
    assert error.count("\n") == 1


def test_a_file_of_the_catalogue_with_one_recipe_has_its_name_and_others_have_several():
    folder = pathlib.Path(catalogue.__file__).parent
    modules = {
        path.stem: importlib.import_module(f"recipes.catalogue.{path.stem}")
        for path in folder.glob("[!_]*.py")
    }
    alone = {stem for stem, module in modules.items() if not hasattr(module, "RECIPES")}
    assert all(modules[stem].RECIPE.name == stem for stem in alone)
    several = [
        recipe.name
        for stem, module in modules.items()
        if stem not in alone
        for recipe in module.RECIPES
    ]
    assert sorted([*alone, *several]) == list(catalogue.RECIPES)


def test_list_names_every_recipe(capsys):
    list_command.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(catalogue.RECIPES)


def test_compare_trains_every_method_once_and_prints_a_table(
    tmp_path, capsys, monkeypatch
):
    # Here, not in processes of their own: they would each start TensorFlow anew.
    monkeypatch.setattr(
        training.subprocess,
        "run",
        lambda command, **_: types.SimpleNamespace(returncode=main(command[3:])),
    )
    command = [
        "digits",
        "--seeds",
        "1",
        "--output",
        str(tmp_path),
        "--set",
        "epochs=1",
        "train_images=64",
        "width=0.125",
        *QUICKLY[:2],
    ]
    assert compare.main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [
        line
        for line in lines
        if line.startswith(
            "method 2 of 3, rate-single, seed 0: epoch 1 of 1, about 0 min left"
        )
    ]
    table = lines[-3:]
    assert [row.split(" | ")[1:3] for row in table] == [
        ["bptt", "multi"],
        ["rate", "multi"],
        ["rate", "single"],
    ]
    stamps = [
        path.stat().st_mtime_ns for path in sorted(tmp_path.glob("*/result.json"))
    ]
    assert len(stamps) == 3
    assert compare.main([*command, "--methods", "rate-multi"]) == 0
    assert stamps == [
        path.stat().st_mtime_ns for path in sorted(tmp_path.glob("*/result.json"))
    ]
    # Other runs in the folder are not part of this comparison.
    ruler, row = capsys.readouterr().out.splitlines()[-2:]
    assert (ruler[:4], row.split(" | ")[1:3]) == ("|---", ["rate", "multi"])


def test_compare_tells_differences_between_runs_with_the_same_seed():
    scores = {
        "width=1-rate-multi": {0: 0.5, 1: 0.6, 2: 0.9},
        "width=1-rate-multi-1+3": {0: 0.6, 1: 0.9},
        "width=2-rate-multi-1+3": {0: 0.7, 1: 0.8},
    }
    rows = list(training.differences(scores, ["rate-multi", "rate-multi-1+3"]))
    assert rows == [("width=1-rate-multi-1+3", "+0.2000 ± 0.1000", "+0.1000, +0.3000")]


@pytest.mark.parametrize("who", ["the comparison", "its run"])
def test_ctrl_c_ends_a_comparison_with_one_line(who, tmp_path, capsys, monkeypatch):
    def run(command, **options):
        if who == "the comparison":
            raise KeyboardInterrupt
        return types.SimpleNamespace(returncode=130)

    monkeypatch.setattr(training.subprocess, "run", run)
    assert compare.main(["digits", "--output", str(tmp_path)]) == 130
    captured = capsys.readouterr()
    assert captured.out.strip() == "interrupted; repeat the command to start or resume"
    assert captured.err == ""


@pytest.mark.parametrize("module", ["recipes.train", "recipes.compare.__main__"])
def test_ctrl_c_is_handled_while_keras_is_imported(module):
    program = f"import sys, {module}; sys.exit('keras' in sys.modules)"
    assert (
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=pathlib.Path(run.__file__).parent.parent,
        ).returncode
        == 0
    )


def test_compare_continues_if_a_run_diverges_and_stops_if_one_fails(
    tmp_path, capsys, monkeypatch
):
    diverged, crashed = "diverged", 1
    outcomes = {
        "rate-multi-0": 0,
        "bptt-multi-0": diverged,
        "rate-multi-1": diverged,
        "bptt-multi-1": 0,
    }
    started = []

    def run(command, **options):
        folder = pathlib.Path(command[command.index("--output") + 1])
        started.append(folder.name)
        outcome = outcomes[folder.name]
        if outcome in (0, diverged):
            settings = {
                **catalogue.find("digits").settings(),
                "gradient": folder.name.split("-")[0],
                "seed": int(folder.name[-1]),
            }
            record = {
                "settings": settings,
                "backend": "jax",
                "device": "made",
                "train_images": 1,
                "seconds_per_epoch": 1.0,
            }
            accuracy = 0.75 if outcome == 0 else None
            # A run may stop with its ordinary network.
            written = folder / "ordinary" if folder.name == "rate-multi-1" else folder
            written.mkdir(parents=True)
            record |= {
                "curve": {"accuracy": [0.5, 0.75]},
                "peak_memory_mib": 1,
                "test_accuracy": accuracy,
            }
            (written / "result.json").write_text(json.dumps(record))
        return types.SimpleNamespace(returncode=1 if outcome == diverged else outcome)

    monkeypatch.setattr(training.subprocess, "run", run)
    command = [
        "digits",
        "--seeds",
        "2",
        "--methods",
        "rate-multi",
        "bptt-multi",
        "--output",
    ]
    assert compare.main([*command, str(tmp_path / "first")]) == 1
    assert started == list(outcomes)
    rows = capsys.readouterr().out.splitlines()[-2:]
    assert [(row.split(" | ")[1], row.split(" | ")[10]) for row in rows] == [
        ("bptt", "0.7500"),
        ("rate", "0.7500"),
    ]
    for status in (2, crashed):
        outcomes["bptt-multi-0"] = status
        started.clear()
        folder = tmp_path / str(status)
        assert compare.main([*command, str(folder)]) == 2
        assert started == ["rate-multi-0", "bptt-multi-0"]
        error = capsys.readouterr().err
        # A run that ends in a mistake of the user has named it.
        assert (
            f"error: the run in {folder / 'bptt-multi-0'} failed with exit status 1"
            in error
        ) == (status == crashed)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["digits", "--seeds", "0"],
            "`--seeds` must be 1 or more. Received: --seeds=0",
        ),
        (["digits", "--seeds", "-1"], "--seeds=-1"),
        (
            ["digits", "--seeds", "two"],
            "`--seeds` must be an integer. Received: --seeds='two'",
        ),
        (
            ["digits", "--set", "seed=3"],
            "`seed` cannot be set here. Received: --set seed=3. Pass --seeds.",
        ),
        (
            ["digits", "--set", "gradient=sltt"],
            "Received: --set gradient=sltt. Name the method with --methods.",
        ),
        (["digits", "--set", "step_mode=single"], "--methods"),
        (
            ["digits", "--methods", "rate-multi-2", "--set", "windows=3"],
            "`windows` cannot be set here",
        ),
        (
            ["digits", "--methods", "rate-multi-2+x"],
            "in their sizes, like rate-multi-1+3",
        ),
        (
            ["digits", "--methods", "rate-multi", "rate-multi-1"],
            "Received: rate-multi and rate-multi-1, which are the same",
        ),
        (
            ["digits_segmentation"],
            "recipes.compare takes spiking networks that classify images",
        ),
    ],
)
def test_compare_refuses_a_mistake_before_anything_is_trained(
    arguments, said, tmp_path, capsys
):
    assert said in error_of(
        [*arguments, "--output", tmp_path / "runs"], capsys, compare.main
    )
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("command", [convert.main, against_timesteps.main])
def test_a_training_that_diverges_is_no_accuracy(
    command, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    settings = (
        "learning_rate=1e30",
        "epochs=1",
        "train_images=80",
        "batch_size=40",
        "width=0.125",
        "restart_at=None",
    )
    assert command(["digits", "--timesteps", "2", "--set", *settings]) == 1
    assert "error: the training diverged" in capsys.readouterr().err


NOT_CONVERTED = (
    "gradient=bptt",
    "step_mode=single",
    "windows=2",
    "branches=1",
    "ordinary=first",
)


def test_convert_prints_accuracies_before_and_after(capsys):
    settings = ("epochs=4", "width=0.5", "batch_size=64", "train_images=1408")
    with fast_programs():
        assert (
            convert.main(
                [
                    "digits",
                    "--timesteps",
                    "4",
                    "--fine-tuning-epochs",
                    "1",
                    "--set",
                    *settings,
                ]
            )
            == 0
        )
    *_, first, _, _, _, row = capsys.readouterr().out.splitlines()
    ordinary = float(first.rpartition(" ")[2])
    _, timesteps, converted, tuned, _ = row.split("|")
    assert int(timesteps) == 4
    assert ordinary > 0.9
    # Taken over, not learnt anew: a guess is right one time in ten.
    assert float(converted) > 0.5
    assert float(tuned) > 0.9


def test_convert_quantises_weights_after_calibration_and_trains_at_each_t(
    capsys, monkeypatch
):
    models = []
    monkeypatch.setattr(
        run, "trained_accuracy", lambda model, *arguments: models.append(model) or 0.5
    )
    monkeypatch.setattr(run, "scores", lambda *arguments: {"accuracy": 0.25})
    settings = ("weights=int4", "width=0.1", "as_the_authors=True")
    assert convert.main(["digits", "--timesteps", "2", "--set", *settings]) == 0
    assert "| 2 | 0.2500 | 0.5000 |" in capsys.readouterr().out
    ordinary, tuned = models
    found = [
        getattr(layer, "weight_type", None)
        for layer in tuned.network.layers
        if getattr(layer, "kernel", None) is not None
    ]
    assert found == ["int8", "int4", "int4", "int8"]
    assert not any(hasattr(layer, "weight_type") for layer in ordinary.layers)
    # The authors' program divides by T.
    rates = [
        float(keras.ops.convert_to_numpy(model.optimizer.learning_rate))
        for model in models
    ]
    np.testing.assert_allclose(rates, [0.1, 0.01 / 2], rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--timesteps", "4", "0"],
            "`--timesteps` must be 1 or more. Received: --timesteps=0",
        ),
        (["--fine-tuning-epochs", "0"], "`--fine-tuning-epochs` must be 1 or more"),
        (["--set", "augment=event_drop"], "`augment` and `mix` must fit the images"),
        (
            ["--set", "width=1000"],
            "`width` must be small enough for the network to fit in memory",
        ),
        (
            ["--set", "timesteps=8"],
            "`timesteps` cannot be set here. Received: --set timesteps=8. Pass "
            "--timesteps.",
        ),
        *(
            (["--set", setting], f"Received: --set {setting}. The converted network")
            for setting in NOT_CONVERTED
        ),
    ],
)
def test_convert_refuses_a_mistake_before_the_ordinary_network_is_trained(
    arguments, said, capsys
):
    assert said in error_of(["digits", *arguments], capsys, convert.main)


def test_the_table_has_a_row_for_the_seeds_of_the_same_settings(digits_run):
    _, record = digits_run
    other_seed = {
        **record,
        "settings": {**record["settings"], "seed": 1},
        "test_accuracy": record["test_accuracy"] - 0.02,
    }
    other_method = {**record, "settings": {**record["settings"], "gradient": "bptt"}}
    rows = results.table([other_seed, record, other_method]).splitlines()[2:]
    assert len(rows) == 2
    mean = record["test_accuracy"] - 0.01
    assert f"{mean:.4f} ± 0.0141" in rows[1]


def test_rows_of_the_table_are_in_the_order_of_their_numbers(digits_run):
    _, record = digits_run
    many, few = (
        {**record, "settings": {**record["settings"], "timesteps": number}}
        for number in (16, 2)
    )
    assert results.table([many, few], ("T",)).splitlines()[2:] == ["| 2 |", "| 16 |"]


MADE = "made by python -m recipes.compare.results -->"
PAGE = f"""before
<!-- results of digits, epochs=3, gradient=rate|bptt: {MADE}

old

<!-- end of results -->
<!-- results of digits, epochs=3, normalization=weight: {MADE}

old

<!-- end of results -->
after
"""


@pytest.mark.runs_once
def test_an_empty_place_for_a_table_takes_nothing_of_the_text_after_it():
    begin = "<!-- results of tasks: made by python -m recipes.compare.results -->\n\n"
    end = "<!-- end of results -->\n"
    page = f"before\n{begin}{end}between\n{begin}old\n\n{end}after\n"
    written = results.with_tables(page, [])
    assert [
        line
        for line in written.splitlines()
        if line in ("before", "between", "old", "after")
    ] == [
        "before",
        "between",
        "after",
    ]
    assert results.with_tables(written, []) == written


def test_results_are_copied_and_written_into_the_pages(
    digits_run, tmp_path, monkeypatch, capsys
):
    folder, record = digits_run
    page = tmp_path / "README.md"
    page.write_text(PAGE)
    monkeypatch.setattr(results, "PAGES", (page,))
    monkeypatch.setattr(results, "FOLDER", tmp_path / "results")
    assert results.main([str(folder)]) == 0
    text = page.read_text()
    assert [line for line in text.splitlines() if line and line[0] not in "|<"] == [
        "before",
        "after",
    ]
    short, other = (
        [line for line in place.split("<!-- end")[0].splitlines()[4:] if line]
        for place in text.split("<!-- res")[1:]
    )
    assert short == [f"| rate | {record['test_accuracy']:.4f} |"]
    assert other == []
    with (tmp_path / "results" / results.TABLE).open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["recipe"] == "digits"
    assert row["of each seed"] == f"{record['test_accuracy']:.4f}"
    trained = record["curve"]["accuracy"]
    assert (row["training accuracy, epoch 1"], row["last epoch"]) == (
        f"{trained[0]:.3f}",
        f"{trained[-1]:.3f}",
    )
    # As it is written, so it is found the next time.
    assert results.main([]) == 0
    assert page.read_text() == text
    capsys.readouterr()
    assert "not finished" in error_of([tmp_path], capsys, results.main)


def test_a_result_replaces_that_of_the_same_settings_alone(
    digits_run, tmp_path, monkeypatch, capsys
):
    folder, record = digits_run
    monkeypatch.setattr(results, "FOLDER", tmp_path / "results")
    monkeypatch.setattr(results, "PAGES", ())
    changed = {**record["settings"], "augment": "cutout", "learning_rate": 0.2}
    other, run = {**record, "settings": changed}, tmp_path / "run"
    run.mkdir()
    (run / "result.json").write_text(json.dumps(other))
    for _ in range(2):
        assert results.main([str(folder), str(run)]) == 0
    assert results.committed() == [record, other]
    capsys.readouterr()
    # As of a network that recipes.quantize trains: its tables would be an error from
    # then on.
    del other["curve"]
    (run / "result.json").write_text(json.dumps(other))
    assert f"The result in {run} has no curve" in error_of([run], capsys, results.main)
    assert len(results.committed()) == 2


def test_a_method_is_named_after_its_settings(digits_run):
    _, record = digits_run
    by_sizes = {**record, "settings": {**record["settings"], "windows": [2, 2]}}
    rows = results.table([by_sizes], ("gradient", "step mode")).splitlines()
    assert rows[-1] == "| rate 2+2 windows | multi |"


def test_no_two_committed_results_are_of_the_same_run():
    records = results.committed()
    identities = {repr(results.identity(record)) for record in records}
    assert len(identities) == len(records)


def test_the_result_of_an_ordinary_network_is_not_one_of_a_spiking_network(
    digits_run, tmp_path, capsys
):
    _, record = digits_run
    record = {**record, "settings": {**record["settings"], "ordinary": "only"}}
    (tmp_path / "result.json").write_text(json.dumps(record))
    assert "of an ordinary network" in error_of([tmp_path], capsys, results.main)


def test_results_with_an_ordinary_network_are_compared_with_it(digits_run):
    _, record = digits_run
    scores = {"accuracy": 0.5, "loss": 1.0}
    compared = {
        **record,
        "comparison": {
            "ordinary": {**scores, "accuracy": 0.75},
            "spiking": {"1": scores},
        },
    }
    compared["settings"] = {
        **record["settings"],
        "ordinary": "first",
        "teacher_weight": 0.5,
    }
    begin, end = (
        ": made by python -m recipes.compare.results -->\n\nold",
        "\n\n<!-- end of results -->\n",
    )
    page = "".join(
        f"<!-- results of {of}{begin}{end}"
        for of in ("digits", "digits and its ordinary network", "tasks")
    )
    all_runs, own, tasks = (
        place.splitlines()[4:-2]
        for place in results.with_tables(page, [record, compared]).split("<!-- res")[1:]
    )
    assert sorted(row.split(" | ")[0] for row in all_runs) == [
        "| rate",
        "| rate with teacher, from ordinary weights",
    ]
    assert own == [
        f"| digits | rate with teacher | {DIGITS_EPOCHS} | {record['train_images']:,} "
        "| accuracy | 0.7500 | 0.5000 |"
    ]
    assert tasks == []


def test_a_result_on_held_out_images_is_not_a_test_result(digits_run, tmp_path, capsys):
    _, record = digits_run
    record = {**record, "settings": {**record["settings"], "held_out": 100}}
    (tmp_path / "result.json").write_text(json.dumps(record))
    assert "100 held-out training images" in error_of([tmp_path], capsys, results.main)


def test_the_committed_pages_are_those_of_the_committed_results():
    records = results.committed()
    assert records
    for page in results.PAGES:
        text = page.read_text()
        assert results.PLACE.search(text)
        assert results.with_tables(text, records) == text
    assert (results.FOLDER / results.TABLE).read_text() == results.whole_table(records)


# Mistakes


def test_the_error_for_an_unknown_recipe_lists_the_known_ones(capsys):
    error = error_of(["digit"], capsys)
    assert "'digit'" in error
    assert all(name in error for name in catalogue.RECIPES)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("epochs=0", "epochs=0"),
        ("restart_at=0", "restart_at=0"),
        ("restart_at=1", "restart_at=1"),
        ("restart_at=half", "restart_at='half'"),
        ("epochs=many", "epochs='many'"),
        ("timesteps=-1", "timesteps=-1"),
        ("batch_size=0", "batch_size=0"),
        ("batch_size=1.5", "batch_size=1.5"),
        ("train_images=0", "train_images=0"),
        ("learning_rate=0", "learning_rate=0"),
        ("learning_rate=1e999", "`learning_rate` must be > 0 and finite"),
        ("optimizer={}", "`optimizer` must be one of"),
        ("weight_decay=-1", "weight_decay=-1"),
        ("width=0", "width=0"),
        ("seed=-1", "seed=-1"),
        ("seed=4294967296", "seed=4294967296"),
        ("gradient=ratee", "'ratee'"),
        ("step_mode=all", "'all'"),
        ("augment=everything", "'everything'"),
        ("precision=float8", "'float8'"),
        ("as_the_authors=1", "as_the_authors=1"),
        ("steps=2", "the keys are: learning_rate"),
        ("name=other", "the keys are: learning_rate"),
        ("epochs", "'epochs'"),
    ],
)
def test_the_error_names_a_wrong_setting(setting, said, tmp_path, capsys):
    assert said in error_of(
        ["digits", "--set", setting, "--output", tmp_path / "run"], capsys
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        (
            "train_images=99999",
            "`train_images` must be at most the number of training images, 1437. "
            "Received: train_images=9",
        ),
        ("normalization=online", "threshold_stabilizer"),
        ("augment=cifar10", "`augment`"),
    ],
)
def test_a_mistake_costs_no_run_and_occupies_no_folder(setting, said, tmp_path, capsys):
    """Not even with --restart, in the folder of an earlier run or in one that is
    none."""
    run = tmp_path / "runs" / "run"
    command = ["digits", "--output", run, "--set", setting]
    assert said in error_of(command, capsys)
    assert list(tmp_path.iterdir()) == []

    (run / "ordinary").mkdir(parents=True)
    assert said in error_of([*command, "--restart"], capsys)
    assert [path.name for path in run.iterdir()] == ["ordinary"]
    (run / "result.json").write_text("{}")
    assert said in error_of([*command, "--restart"], capsys)
    assert {path.name for path in run.iterdir()} == {"lock", "result.json", "ordinary"}


def test_a_restart_deletes_nothing_where_no_run_is(tmp_path):
    (tmp_path / "ordinary").mkdir()
    (tmp_path / "ordinary" / "thesis.txt").write_text("mine")
    trained(tmp_path, "digits", "--restart", "--set", "epochs=1", *QUICKLY)
    assert (tmp_path / "ordinary" / "thesis.txt").read_text() == "mine"


def test_batches_larger_than_the_data_are_all_of_it():
    recipe = catalogue.find("digits").with_settings(["batch_size=10000000000"])
    dataset = recipe.load(None)
    ((images, _),) = pipeline.evaluation_batches(dataset, recipe)
    assert len(images) == dataset.test_size
    assert (
        len(next(iter(pipeline.training_batches(dataset, recipe)))[0])
        == dataset.train_size
    )


def test_digits_are_not_in_a_folder(tmp_path, capsys):
    assert "--data-dir somewhere" in error_of(
        ["digits", "--data-dir", "somewhere", "--output", tmp_path], capsys
    )


@pytest.mark.parametrize(
    "arguments", [[], ["digits", "--epochs", "2"], ["digits", "--set"]]
)
def test_a_wrong_command_line_exits_with_the_usage(arguments, capsys):
    with pytest.raises(SystemExit) as exit_info:
        main(arguments)
    assert exit_info.value.code == 2
    assert "usage: python -m recipes.train" in capsys.readouterr().err


def test_a_wrong_number_in_a_recipe_file_is_found_too():
    with pytest.raises(TypeError, match="epochs"):
        Recipe(**{**vars(catalogue.find("digits")), "epochs": 1.5})


def test_the_error_names_an_output_folder_that_cannot_be_created(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        error = error_of(["digits", "--output", str(folder)], capsys)
        assert str(folder) in error
        assert "--output" in error


def test_the_error_names_an_output_folder_that_is_not_writable(
    tmp_path, monkeypatch, capsys
):
    def denied(path, flags, mode):
        raise PermissionError(13, "Permission denied")

    # Rights would not stop a test that runs as the superuser.
    monkeypatch.setattr(run_folder.os, "open", denied)
    error = error_of(["digits", "--output", tmp_path], capsys)
    assert "Permission denied" in error
    assert str(tmp_path) in error


def test_images_with_channels_first_are_not_taken_for_others(monkeypatch, capsys):
    monkeypatch.setattr(keras.config, "image_data_format", lambda: "channels_first")
    for command in (main, convert.main, windows.main):
        assert (
            "Recipes take images (height, width, channels). Received: image"
            in error_of(["digits"], capsys, command)
        )


def test_a_disk_without_room_for_the_checkpoints_is_reported_before_training(
    tmp_path, monkeypatch, capsys
):
    usage = shutil.disk_usage(tmp_path)._replace(free=2**20)
    monkeypatch.setattr(run_folder.shutil, "disk_usage", lambda path: usage)
    error = error_of(["digits", "--output", tmp_path], capsys)
    assert str(tmp_path) in error
    assert "1 MiB free" in error


def test_a_network_too_large_for_memory_is_refused_before_it_is_built(tmp_path, capsys):
    error = error_of(["digits", "--output", tmp_path, "--set", "width=1000"], capsys)
    assert (
        "`width` must be small enough for the network to fit in memory. Received: "
        "width=1000" in error
    )
    assert error.count("\n") == 1
    estimated = catalogue.find("digits").build_network(1.0).count_params() * 16
    assert catalogue.find("digits").build_network(4.0).count_params() == pytest.approx(
        estimated, rel=0.05
    )


@pytest.mark.parametrize(
    ("augment", "said"),
    [
        ("cifar10", "AutoAugment's images must have three channels"),
        ("imagenet", "which changes it to (224, 224, 1)"),
    ],
)
def test_an_augmentation_that_does_not_fit_is_refused(augment, said, tmp_path, capsys):
    error = error_of(
        ["digits", "--output", tmp_path, "--set", f"augment={augment}"], capsys
    )
    assert f"Received: augment='{augment}', mix='none'" in error
    assert "(8, 8, 1)" in error
    assert said in error
    assert error.count("\n") == 1


def test_ctrl_c_before_training_is_no_traceback(tmp_path, capsys, monkeypatch):
    def stop(data_dir):
        raise KeyboardInterrupt

    monkeypatch.setitem(
        catalogue.RECIPES,
        "digits",
        dataclasses.replace(catalogue.find("digits"), load_data=stop),
    )
    assert main(["digits", "--output", str(tmp_path)]) == 130
    captured = capsys.readouterr()
    assert captured.out.strip().startswith("interrupted before training began")
    assert captured.err == ""


@pytest.mark.parametrize("kind", [OSError, RuntimeError])
def test_the_error_names_a_checkpoint_that_cannot_be_written_and_the_last_is_kept(
    kind, tmp_path
):
    path = tmp_path / "last.keras"
    path.write_bytes(b"of the epoch before")

    class Model:
        def save(self, part):
            part.write_bytes(b"half of it")
            raise kind("no space\nleft on device")

    with pytest.raises(
        OSError,
        match=re.escape(
            f"{path} cannot be written (no space left on device). Free some space"
        ),
    ):
        checkpoint.save(model := Model(), Progress({}, 1), path, model)
    assert path.read_bytes() == b"of the epoch before"
    assert list(tmp_path.iterdir()) == [path]


def test_logs_that_cannot_be_written_give_a_one_line_error_and_the_epoch_is_saved(
    tmp_path, capsys, monkeypatch
):
    import tensorflow as tf

    def full(path):
        raise tf.errors.ResourceExhaustedError(
            None,
            None,
            f"{{{{an operation}}}} {path}; No space left on device\n\tFlushing",
        )

    monkeypatch.setattr(tf.summary, "create_file_writer", full)
    command = ["digits", "--output", str(tmp_path), "--set", "epochs=1", *QUICKLY]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert error.startswith(
        f"error: {tmp_path / 'tensorboard'} cannot be written (No space left on "
        "device)."
    )
    assert error.count("\n") == 1
    # With some space the run comes to its end.
    monkeypatch.undo()
    assert main(command) == 0
    assert "resumes after 1 epochs" in capsys.readouterr().out


def test_windows_prints_the_similarity_of_each_choice_to_bptt(capsys):
    assert (
        windows.main(["digits", "--images", "16", "--set", "width=0.25", "timesteps=3"])
        == 0
    )
    rows = [
        line.strip("| ").split(" | ")
        for line in capsys.readouterr().out.splitlines()[2:]
    ]
    assert [row[0] for row in rows] == ["1", "2", "(1, 2)", "3"]
    assert {float(cosine) for cosine in rows[-1][1:]} == {1.0}
    # An integer gives the first step a window of its own.
    assert rows[1][1:] == rows[2][1:]
    assert sum(float(cosine) for cosine in rows[0][1:]) < sum(
        float(cosine) for cosine in rows[1][1:]
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["digits", "--images", "0"],
            "`--images` must be 1 or more. Received: --images=0",
        ),
        (["digits", "--images", "-3"], "--images=-3"),
        (
            ["digits", "--set", "windows=2"],
            "`windows` cannot be set here. Received: --set windows=2. It does not "
            "change",
        ),
        (["digits", "--set", "epochs=2"], "`epochs` cannot be set here"),
        (
            ["digits", "--set", "normalization=online"],
            "`normalization` must be 'batch' or 'weight'",
        ),
        (
            ["digits", "--plot", "nowhere/windows.png"],
            "The folder nowhere of the figure windows.png does not exist",
        ),
        (
            ["digits", "--plot", "windows.csv"],
            "windows.csv must have one of these suffixes",
        ),
        (
            ["runs/digts"],
            "neither a run in a folder runs/digts nor a recipe of this name",
        ),
    ],
)
def test_windows_refuses_a_mistake_before_it_compares(arguments, said, capsys):
    if "--plot" in arguments:
        pytest.importorskip("matplotlib")
    assert said in error_of(arguments, capsys, windows.main)


def test_windows_sums_up_the_cosines_of_many_kernels():
    by_kernel = {str(index): index / 20 for index in range(windows.MOST_COLUMNS)}
    assert windows.table({1: (by_kernel, 0.5)}).count("0.") == windows.MOST_COLUMNS + 1
    table = windows.table({1: ({**by_kernel, "silent": float("nan")}, 0.5)})
    assert table.splitlines()[::2] == [
        "| windows | smallest | median | norm ratio |",
        "| 1 | 0.000 | 0.275 | 0.50 |",
    ]


@pytest.mark.parametrize(
    "setting", ["timesteps=8", "width=1.0", "normalization=weight", "seed=1"]
)
def test_the_network_of_a_run_is_compared_as_it_is(setting, digits_run, capsys):
    folder, _ = digits_run
    error = error_of([folder, "--set", setting], capsys, windows.main)
    assert f"Received: --set {setting}. The run has its own." in error


def test_windows_draws_a_plot_or_says_how_to_install_matplotlib(
    monkeypatch, tmp_path, capsys
):
    arguments = [
        "digits",
        "--images",
        "8",
        "--set",
        "width=0.1",
        "timesteps=2",
        "--plot",
        str(tmp_path / "windows.png"),
    ]
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert windows.main(arguments) == 2
    assert "pip install -e '.[plots]'" in capsys.readouterr().err
    exact = {"first": 1.0, "last": 1.0}
    figure, compared = (
        FigureOfLines(),
        {1: ({"first": 0.9, "last": 1.0}, 1.0), (1, 3): ({}, 1.0), 4: (exact, 1.0)},
    )
    windows.draw(figure, compared, timesteps=4)
    agreement, cost = figure.panels
    assert agreement.lines == [([1, 4], [0.9, 1.0]), ([1, 4], [1.0, 1.0])]
    assert cost.lines == [([1, 4], [6, 12])]


class FigureOfLines:
    """Replaces a Matplotlib figure, so that the tests do not need Matplotlib; records
    the lines."""

    def subplots(self, rows, columns):
        self.panels = [PanelOfLines() for _ in range(rows * columns)]
        return self.panels


class PanelOfLines:
    def __init__(self):
        self.lines = []

    def plot(self, x, y, **style):
        self.lines.append((x, y))

    def __getattr__(self, name):
        return lambda *args, **kwargs: None


def test_a_recipe_accepts_every_method_and_its_normalisation():
    digits = catalogue.find("digits")
    for method in ("sltt-single-2", "ottt", "os"):
        recipe = digits.with_settings(
            [f"{key}={value}" for key, value in methods.settings_of(method).items()]
        )
        model = run.build(dataclasses.replace(recipe, width=0.1), recipe.load(None))
        assert model.step_mode == "single"
    assert (
        digits.with_settings(
            ["gradient=sltt", "random_steps=2"]
        ).spiking.gradient.random_steps
        == 2
    )
    assert "OnlineRenormalization" in {
        type(layer).__name__ for layer in model.network.layers
    }
    for wrong in (
        ["random_steps=2"],
        ["gradient=sltt", "random_steps=9"],
        ["gradient=ottt", "random_steps=1"],
    ):
        with pytest.raises(ValueError, match="random_steps"):
            digits.with_settings(wrong)
    imagenet = catalogue.find("imagenet_sew_resnet34").with_settings(
        ["normalization=weight"]
    )
    with pytest.raises(
        ValueError,
        match="`normalization` must be 'batch' in recipe 'imagenet_sew_resnet34'",
    ):
        imagenet.network(width=0.1)


OWN_METHODS = """
import keras
from keras_ratesnn import gradients

@keras.saving.register_keras_serializable(package="my_methods")
class Half(gradients.GradientMethod):
    def call(self, run):
        outputs = gradients.BPTT().call(run)
        return gradients.graft(keras.ops.stop_gradient(outputs), outputs, 0.5)

class Unregistered(Half):
    pass

@keras.saving.register_keras_serializable(package="my_methods")
class WithArguments(Half):
    def __init__(self, factor):
        self.factor = factor

class Nothing:
    pass
"""


@pytest.fixture
def own_methods(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("methods")
    (folder / "my_methods.py").write_text(OWN_METHODS)
    (folder / "my_package.py").write_text("from my_methods import Half")
    monkeypatch.syspath_prepend(folder)
    yield
    for module in ("my_methods", "my_package"):
        sys.modules.pop(module, None)


@pytest.mark.filterwarnings("ignore:DEAD:UserWarning")
def test_a_method_of_ones_own_is_compared_and_evaluated(
    own_methods, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(
        training.subprocess,
        "run",
        lambda command, **_: types.SimpleNamespace(returncode=main(command[3:])),
    )
    command = [
        "digits",
        "--seeds",
        "1",
        "--output",
        str(tmp_path),
        "--methods",
        "my_methods:Half-multi",
        "bptt-multi",
    ]
    assert (
        compare.main(
            [
                *command,
                "--set",
                "epochs=1",
                "train_images=64",
                "width=0.5",
                "timesteps=2",
            ]
        )
        == 0
    )
    table = capsys.readouterr().out.splitlines()[-2:]
    assert {tuple(row.split(" | ")[1:3]) for row in table} == {
        ("bptt", "multi"),
        ("my_methods:Half", "multi"),
    }
    run_folder = tmp_path / "my_methods.Half-multi-0"
    # Elsewhere the settings of the run say what to import before its model is loaded.
    keras.saving.get_custom_objects().pop("my_methods>Half")
    sys.modules.pop("my_methods")
    assert evaluate.main([str(run_folder)]) == 0
    written = json.loads((run_folder / "settings.json").read_text())
    assert written["gradient"] == "my_methods:Half"
    # Also by another name.
    assert (
        catalogue.find("digits")
        .with_settings(["gradient=my_package:Half"])
        .settings()["gradient"]
        == "my_methods:Half"
    )


@pytest.mark.parametrize(
    ("gradient", "said"),
    [
        ("my_methods:Missing", "a class that can be imported, package.module:Class"),
        (
            "no_such_module:Half",
            "Received: gradient='no_such_module:Half'. ModuleNotFoundError: No module "
            "named",
        ),
        (":Half", "package.module:Class"),
        (
            "my_methods:Nothing",
            "must be a subclass of keras_ratesnn.gradients.GradientMethod",
        ),
        (
            "my_methods:Unregistered",
            "Decorate it with @keras.saving.register_keras_serializable",
        ),
        ("my_methods:WithArguments", "made without arguments"),
        (
            "halves",
            "`gradient` must be one of 'rate', 'bptt', 'sltt', 'ottt', "
            "'package.module:Class'",
        ),
    ],
)
def test_the_error_for_a_method_of_ones_own_says_what_it_must_be(
    gradient, said, own_methods, tmp_path, capsys
):
    assert said in error_of(
        ["digits", "--set", f"gradient={gradient}", "--output", tmp_path / "run"],
        capsys,
    )
    if ":" in gradient:
        assert said in error_of(
            ["digits", "--methods", f"{gradient}-multi"], capsys, compare.main
        )
        assert "must end in -multi or -single" in error_of(
            ["digits", "--methods", gradient], capsys, compare.main
        )


def test_a_recipe_takes_windows_of_the_rate_gradient():
    digits = catalogue.find("digits")
    assert digits.with_settings(["windows=2"]).spiking.gradient.windows == 2
    assert digits.with_settings(
        ["windows=(1, 3)", "timesteps=4"]
    ).spiking.gradient.windows == (1, 3)
    # As a run writes them down.
    assert digits.with_settings(["windows=[1, 3]"]).spiking.gradient.windows == (1, 3)
    for wrong in (
        ["windows=9"],
        ["windows=(1, 1)"],
        ["windows=2", "gradient=bptt"],
        ["windows=0"],
    ):
        with pytest.raises(ValueError, match="windows"):
            digits.with_settings(wrong)


@pytest.mark.parametrize(
    "changes",
    [[], ["ordinary=beside", "branches=1", "temperature=2"], ["ordinary=only"]],
)
def test_a_recipe_is_read_from_the_settings_that_its_run_writes(changes):
    settings = catalogue.find("digits").with_settings(changes).settings()
    written = json.loads(json.dumps(settings))
    again = catalogue.find("digits").with_settings(
        f"{key}={value}" for key, value in written.items() if key != "name"
    )
    assert again.settings() == settings


def test_a_recipes_own_settings_of_another_kind_of_training_are_left_out():
    alone = (
        catalogue.find("fashion_mnist_resnet13")
        .with_settings(["ordinary=no"])
        .settings()
    )
    assert {
        alone[name]
        for name in ("ordinary_epochs", "ordinary_learning_rate", "teacher_weight")
    } == {None}
    assert (
        catalogue.find("digits_detection")
        .with_settings(["gradient=bptt"])
        .settings()["windows"]
        == 1
    )
    assert (
        catalogue.find("fashion_mnist")
        .with_settings(["optimizer=adamw"])
        .settings()["restart_at"]
        is None
    )
