"""Accuracy against time, by methods of this library and in others: trainings, their
resumption, times, table and figure."""

import contextlib
import json
import shutil

import pytest

from recipes.compare import time_to_accuracy, training
from tests.recipes.made_clothes import write_clothes
from tests.recipes.recipe_runs import error_of

pytestmark = pytest.mark.runs_once

PEERS = ("spikingjelly", "spikingjelly-memopt", "snntorch")
SETTINGS = (
    "width=0.0625",
    "epochs=2",
    "restart_at=None",
    "batch_size=32",
    "jit_compile=False",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_clothes(tmp_path_factory.mktemp("clothes"), images=40)


def arguments(folder, output, *others, settings=SETTINGS, methods=PEERS):
    data = (
        "fashion_mnist",
        "--data-dir",
        str(folder),
        "--output",
        str(folder / output),
        "--timesteps",
        "2",
    )
    return [*data, "--methods", *methods, *others, "--set", *settings]


def result(folder, output, run):
    return json.loads((folder / output / "T2" / run / "result.json").read_text())


@pytest.fixture(scope="module")
def trained(folder):
    """The output of a comparison of other libraries with one seed."""
    for package in ("spikingjelly", "snntorch", "matplotlib"):
        pytest.importorskip(package)
    with open(folder / "printed", "w") as printed, contextlib.redirect_stdout(printed):
        assert time_to_accuracy.main(arguments(folder, "trained")) == 0
    return "trained"


def test_each_epoch_of_a_comparison_is_a_line_of_its_output(folder, trained):
    lines = [
        line
        for line in (folder / "printed").read_text().splitlines()
        if "epoch" in line and "method" in line
    ]
    where = [
        line.partition(", about")[0] for line in lines if line.endswith("min left")
    ]
    methods = (
        "method 1 of 3, spikingjelly at T = 2",
        "method 3 of 3, snntorch at T = 2",
    )
    assert where == [
        f"{method}, seed 0: epoch {epoch} of 2"
        for method in methods
        for epoch in (1, 2)
    ]


def test_an_interrupted_training_resumes_bit_identically(folder, trained, monkeypatch):
    from recipes.compare import peer_training

    accuracy = peer_training.accuracy

    def stop(network, recipe, dataset):
        if (
            folder / "stopped" / "T2" / "spikingjelly-0" / peer_training.STATE
        ).exists():
            raise KeyboardInterrupt
        return accuracy(network, recipe, dataset)

    with monkeypatch.context() as patch:
        patch.setattr(peer_training, "accuracy", stop)
        assert time_to_accuracy.main(arguments(folder, "stopped")) == 130
    assert not (folder / "stopped" / "T2" / "spikingjelly-0" / "result.json").exists()
    assert (
        time_to_accuracy.main(arguments(folder, "stopped", methods=["spikingjelly"]))
        == 0
    )
    assert (
        result(folder, "stopped", "spikingjelly-0")["curve"]
        == result(folder, trained, "spikingjelly-0")["curve"]
    )
    # The optimized memory has the same gradient, and so no training of its own.
    assert sorted(path.name for path in (folder / trained / "T2").iterdir()) == [
        "snntorch-0",
        "spikingjelly-0",
    ]


def test_other_settings_in_the_same_folder_are_an_error(folder, trained, capsys):
    changed = [*SETTINGS, "learning_rate=0.2"]
    error = error_of(
        arguments(folder, trained, settings=changed), capsys, time_to_accuracy.main
    )
    assert "spikingjelly-0 contains a run with other settings" in error
    assert "learning_rate=0.1, now 0.2" in error


def test_our_methods_are_trained_as_by_the_recipe(folder, monkeypatch):
    asked = []

    def train(given, path, settings):
        asked.append((path.path.relative_to(folder), settings))
        return 2

    monkeypatch.setattr(training, "train", train)
    assert (
        time_to_accuracy.main(arguments(folder, "ours", methods=["rate-multi-2"])) == 2
    )
    settings = [
        "gradient=rate",
        "step_mode=multi",
        "windows=2",
        "timesteps=2",
        "seed=0",
    ]
    assert [(str(path), given) for path, given in asked] == [
        ("ours/T2/rate-multi-2-0", settings)
    ]


def test_steps_are_timed_in_turn_once_and_multiplied(
    folder, trained, monkeypatch, capsys
):
    """The figure, and the columns of the table, are of the trainings that are there and
    of these times."""
    output = shutil.copytree(folder / trained, folder / "timed")
    options = arguments(
        folder,
        "timed",
        "--time",
        "--rounds",
        "2",
        "--plot",
        str(folder / "seen.png"),
        methods=["rate-multi", *PEERS],
    )
    assert time_to_accuracy.main(options) == 0
    times = json.loads((output / "T2" / "steps.json").read_text())["rows"]
    for method, row in times.items():
        assert row["epoch_seconds"] > row["seconds"]["lower_quartile"] > 0, method
        assert row["start_seconds"] >= 0, method
    # In an epoch one batch has 32 images, and the other 8.
    steps = {method: row["epoch_flops"] * 32 / 40 for method, row in times.items()}
    assert (
        steps["rate-multi"]
        < steps["spikingjelly"]
        == steps["snntorch"]
        < steps["spikingjelly-memopt"]
    )
    assert len({row["parameters"] for row in times.values()}) == 1
    assert (
        times["spikingjelly-memopt"]["memory_bytes"]
        < times["spikingjelly"]["memory_bytes"]
    )
    assert (folder / "seen.svg").stat().st_size > 10_000
    rows = [
        line.split(" | ")
        for line in capsys.readouterr().out.splitlines()
        if line.startswith(("| rate", "| spiking", "| snn"))
    ]
    ours, theirs, optimized, _ = rows
    assert ours[1:3] == ["0", ""]
    assert ours[3]
    assert theirs[2] == optimized[2]
    whole = (
        times["spikingjelly"]["start_seconds"]
        + 2 * times["spikingjelly"]["epoch_seconds"]
    )
    assert theirs[5] == f"{whole:.1f}"
    # What is there is not measured again.
    monkeypatch.setattr("recipes.compare.step_times.write", None)
    assert time_to_accuracy.main(options) == 0
    capsys.readouterr()
    longer = [*SETTINGS[:1], "epochs=2", *SETTINGS[2:], "batch_size=16"]
    shutil.rmtree(output / "T2" / "spikingjelly-0")
    error = error_of(
        arguments(folder, "timed", "--show", settings=longer, methods=["spikingjelly"]),
        capsys,
        time_to_accuracy.main,
    )
    assert (
        "steps.json has times of other settings of spikingjelly: batch_size=32, now 16"
        in error
    )


def test_the_goal_is_reached_in_the_first_epoch_whose_mean_is_there():
    times = {
        "start_seconds": 3.0,
        "epoch_seconds": 10.0,
        "epoch_flops": 1e12,
        "memory_bytes": 2**20,
        "parameters": 9,
    }
    times["seconds"] = {"median": 0.1, "lower_quartile": 0.1, "upper_quartile": 0.1}

    def row(method, *curve):
        epochs = range(1, len(curve) + 1)
        costs = {
            "seconds": [3.0 + 10.0 * epoch for epoch in epochs],
            "flops": [1e12 * epoch for epoch in epochs],
        }
        return {
            "method": method,
            "times": times,
            "accuracies": [curve[-1]],
            "curve": curve,
            **costs,
        }

    rows = [
        row("rate-multi", 0.5, 0.8985, 0.89),
        row("bptt-multi", 0.5, 0.6, 0.7),
        row("spikingjelly", 0.5, 0.6, 0.9),
    ]
    cells = [
        [cell.strip() for cell in line.split("|")[-4:-1]]
        for line in time_to_accuracy.table(rows).splitlines()[2:]
    ]
    assert cells == [
        ["2", "23.0", "0.70"],
        ["not reached", "", ""],
        ["3", "33.0", "1.00"],
    ]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            ["fashion_mnist_resnet13"],
            "`ordinary` must be 'no'. Received: ordinary='first'",
        ),
        (
            ["fashion_mnist", "--set", "levels=2"],
            "`levels` must be None. Received: levels=2",
        ),
        (
            ["fashion_mnist", "--set", "teachers=digits", "teacher_weight=1"],
            "`teacher_weight` must be None. Received: teac",
        ),
        (
            ["fashion_mnist", "--set", "held_out=9"],
            "`held_out` must be None. Received: held_out=9. The accuracies are",
        ),
        (["fashion_mnist", "--set", "gradient=bptt"], "Name the method with --methods"),
        (["fashion_mnist", "--methods", "rate"], "`methods` must be one of"),
        (
            ["dvs_gesture"],
            "`recipe` must be one of images or of sequences of unequal length. "
            "Received: recipe='dvs_gesture'",
        ),
    ],
)
def test_a_mistake_is_named(given, said, capsys, tmp_path):
    assert said in error_of(
        [*given, "--output", str(tmp_path / "runs")], capsys, time_to_accuracy.main
    )
    assert not (tmp_path / "runs").exists()
