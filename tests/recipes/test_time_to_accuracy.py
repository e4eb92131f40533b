"""Accuracy against time, by methods of this library and in others: trainings, their
resumption, times, table and figure."""

import json
import shutil

import pytest

from recipes.compare import time_to_accuracy
from tests.benchmark.tiny_network import measure_quickly
from tests.recipes.made_clothes import write_clothes
from tests.recipes.recipe_runs import error_of

PEERS = ("spikingjelly", "spikingjelly-memopt", "snntorch")
SETTINGS = "width=0.0625 epochs=2 restart_at=None batch_size=32 jit_compile=False"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_clothes(tmp_path_factory.mktemp("clothes"), images=40)


def arguments(folder, output, *more, changed="", methods=PEERS):
    data = f"fashion_mnist --data-dir {folder} --output {folder}/{output}"
    options = [*data.split(), "--timesteps", "2", "--methods", *methods, *more]
    return [*options, "--set", *SETTINGS.split(), *changed.split()]


@pytest.fixture(scope="module")
def trained(folder):
    """The output of a comparison of other libraries with one seed."""
    for package in ("spikingjelly", "snntorch", "matplotlib"):
        pytest.importorskip(package)
    assert time_to_accuracy.main(arguments(folder, "trained")) == 0
    return "trained"


def test_a_finished_training_is_not_repeated_and_not_mixed_with_other_settings(
    folder, trained, monkeypatch, capsys
):
    from recipes.compare import peer_training

    monkeypatch.setattr(peer_training, "train", None)
    assert time_to_accuracy.main(arguments(folder, trained)) == 0
    # The optimized memory has the same gradient, and so no training of its own.
    names = sorted(path.name for path in (folder / trained / "T2").iterdir())
    assert names == ["snntorch-0", "spikingjelly-0"]
    end = capsys.readouterr().out.splitlines()[-1]
    assert "has 2 of 2 trainings, and steps are timed for 0 of 1" in end
    assert end.endswith("To time the others, repeat the command with --time.")
    command = arguments(folder, trained, changed="learning_rate=0.2")
    error = error_of(command, capsys, time_to_accuracy.main)
    assert "spikingjelly-0 contains a run with other settings" in error
    assert "learning_rate=0.1, now 0.2" in error


def test_steps_are_timed_in_turn_once_and_multiplied(
    folder, trained, monkeypatch, capsys
):
    """The figure, and the columns of the table, are of the trainings that are there and
    of these times."""
    measure_quickly(monkeypatch)
    output = shutil.copytree(folder / trained, folder / "timed")
    methods = ["rate-multi", "spikingjelly", "spikingjelly-memopt"]
    timed = ("--time", "--rounds", "2")
    options = arguments(folder, "timed", *timed, methods=methods)
    assert time_to_accuracy.main(options) == 0
    times = json.loads((output / "T2" / "steps.json").read_text())["rows"]
    for method, row in times.items():
        assert row["epoch_seconds"] > row["seconds"]["lower_quartile"] > 0, method
        assert row["start_seconds"] >= 0, method
    # In an epoch one batch has 32 images, and the other 8.
    ours, theirs, optimized = (times[method] for method in methods)
    flops = [row["epoch_flops"] for row in (ours, theirs, optimized)]
    assert flops[0] < flops[1] < flops[2]
    assert optimized["memory_bytes"] < theirs["memory_bytes"]
    assert (output / "time_to_accuracy.svg").stat().st_size > 10_000
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == (
        f"{output} has 1 of 2 trainings, and steps are timed for 1 of 1 numbers of "
        "time steps. To train the others, repeat the command without --time and --show."
    )
    rows = [line.split(" | ") for line in lines[5:-2]]
    # Ours is not trained.
    assert [row[0] for row in rows] == [f"| {name}" for name in methods[1:]]
    assert rows[0][2] == rows[1][2]
    whole = theirs["start_seconds"] + 2 * theirs["epoch_seconds"]
    assert rows[0][5] == f"{whole:.1f}"
    # What is there is not measured again.
    monkeypatch.setattr("recipes.compare.step_times.write", None)
    assert time_to_accuracy.main(options) == 0
    capsys.readouterr()
    shutil.rmtree(output / "T2" / "spikingjelly-0")
    options = {"changed": "batch_size=16", "methods": ["spikingjelly"]}
    command = arguments(folder, "timed", "--show", **options)
    error = error_of(command, capsys, time_to_accuracy.main)
    assert "steps.json has times of other settings of spikingjelly" in error
    assert "batch_size=32, now 16" in error


def test_the_goal_is_reached_in_the_first_epoch_whose_mean_is_there():
    seconds = dict.fromkeys(("median", "lower_quartile", "upper_quartile"), 0.1)
    times = {"start_seconds": 3.0, "memory_bytes": 2**20, "seconds": seconds}
    costs = {"times": times, "seconds": [13.0, 23.0, 33.0], "flops": [3e12]}
    curves = {
        "rate-multi": (0.5, 0.8985, 0.89),
        "bptt-multi": (0.5, 0.6, 0.7),
        "spikingjelly": (0.5, 0.6, 0.9),
    }
    rows = [
        {**costs, "method": method, "accuracies": curve[-1:], "curve": curve}
        for method, curve in curves.items()
    ]
    lines = time_to_accuracy.table(rows).splitlines()[2:]
    cells = [" ".join(line.split("|")[-4:-1]).split() for line in lines]
    assert cells == [["2", "23.0", "0.70"], ["not", "reached"], ["3", "33.0", "1.00"]]
