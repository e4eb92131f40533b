"""Comparisons of methods, and the tables of results."""

import csv
import json
import pathlib
import types

import pytest

from recipes import catalogue, command_line
from recipes.compare import __main__ as compare
from recipes.compare import results, training
from recipes.train import main
from tests.recipes.recipe_runs import QUICKLY, error_of


def test_compare_trains_every_method_once_and_prints_a_table(
    tmp_path, capsys, monkeypatch
):
    def run(command, **options):
        """Here, not in processes of their own: each would start TensorFlow anew."""
        return types.SimpleNamespace(returncode=main(command[3:]))

    monkeypatch.setattr(training.subprocess, "run", run)
    settings = ["epochs=1", "train_images=64", "width=0.125", *QUICKLY[:2]]
    folder = ["--seeds", "1", "--output", str(tmp_path)]
    command = ["digits", *folder, "--set", *settings]
    assert compare.main(command) == 0
    printed = capsys.readouterr().out
    # A training prints its progress, and the comparison its score.
    assert "gradient bptt, T = 1, 1 epochs" in printed
    assert f"\n{tmp_path}/bptt-multi-0: test accuracy 0." in printed
    rows = [row.split(" | ")[1:3] for row in printed.splitlines()[-3:]]
    assert rows == [["bptt", "multi"], ["rate", "multi"], ["rate", "single"]]
    paths = sorted(tmp_path.glob("*/result.json"))
    stamps = [path.stat().st_mtime_ns for path in paths]
    assert len(stamps) == 3
    assert compare.main([*command, "--methods", "rate-multi"]) == 0
    assert stamps == [path.stat().st_mtime_ns for path in paths]
    # Other runs in the folder are not part of this comparison.
    assert capsys.readouterr().out.splitlines()[-2].startswith("|---")


def test_compare_tells_differences_between_runs_with_the_same_seed():
    scores = {
        "width=1-rate-multi": {0: 0.5, 1: 0.6, 2: 0.9},
        "width=1-rate-multi-1+3": {0: 0.6, 1: 0.9},
        "width=2-rate-multi-1+3": {0: 0.7, 1: 0.8},
    }
    rows = list(training.differences(scores, ["rate-multi", "rate-multi-1+3"]))
    assert rows == [("width=1-rate-multi-1+3", "+0.2000 ± 0.1000", "+0.1000, +0.3000")]


def test_ctrl_c_in_a_run_ends_a_comparison_with_one_line(tmp_path, capsys, monkeypatch):
    interrupted = types.SimpleNamespace(returncode=command_line.INTERRUPTED)
    monkeypatch.setattr(training.subprocess, "run", lambda command: interrupted)
    assert compare.main(["digits", "--output", str(tmp_path)]) == 130
    captured = capsys.readouterr()
    assert captured.out.strip() == "interrupted; repeat the command to start or resume"
    assert captured.err == ""


def made_record(gradient="rate", seed=0, accuracy=0.75, **changes):
    settings = {**catalogue.find("digits").settings(), "epochs": 3, **changes}
    return {
        "settings": {**settings, "gradient": gradient, "seed": seed},
        "backend": "jax",
        "device": "made",
        "train_images": 1,
        "seconds_per_epoch": 1.0,
        "curve": {"accuracy": [0.5, 0.75]},
        "peak_memory_mib": 1,
        "test_accuracy": accuracy,
    }


def test_compare_continues_if_a_run_diverges_and_stops_if_one_fails(
    tmp_path, capsys, monkeypatch
):
    diverged, crashed, started = "diverged", 1, []
    outcomes = {
        "rate-multi-0": 0,
        "bptt-multi-0": diverged,
        "rate-multi-1": diverged,
        "bptt-multi-1": 0,
    }

    def run(command, **options):
        folder = pathlib.Path(command[command.index("--output") + 1])
        started.append(folder.name)
        outcome = outcomes[folder.name]
        if outcome not in (0, diverged):
            return types.SimpleNamespace(returncode=outcome)
        gradient, _, seed = folder.name.split("-")
        record = made_record(gradient, int(seed), None if outcome else 0.75)
        # A run may stop with its ordinary network.
        written = folder / "ordinary" if folder.name == "rate-multi-1" else folder
        written.mkdir(parents=True)
        (written / "result.json").write_text(json.dumps(record))
        return types.SimpleNamespace(returncode=int(outcome == diverged))

    monkeypatch.setattr(training.subprocess, "run", run)
    command = "digits --seeds 2 --methods rate-multi bptt-multi --output"
    assert compare.main([*command.split(), str(tmp_path / "first")]) == 1
    assert started == list(outcomes)
    rows = [row.split(" | ") for row in capsys.readouterr().out.splitlines()[-2:]]
    accuracies = [(row[1], row[10]) for row in rows]
    assert accuracies == [("bptt", "0.7500"), ("rate", "0.7500")]
    outcomes["bptt-multi-0"] = crashed
    started.clear()
    assert compare.main([*command.split(), str(tmp_path)]) == 2
    assert started == ["rate-multi-0", "bptt-multi-0"]
    said = f"error: the run in {tmp_path}/bptt-multi-0 failed with exit status 1"
    assert said in capsys.readouterr().err


# Tables


MADE = "made by python -m recipes.compare.results -->"


def place(name):
    return f"<!-- results of {name}: {MADE}\n\nold\n\n<!-- end of results -->\n"


CUTOUT = {"augment": "cutout", "learning_rate": 0.2}


@pytest.fixture
def run_folder(tmp_path, monkeypatch):
    """A function that writes the record of a run into its folder; results are committed
    elsewhere than in the repository."""
    monkeypatch.setattr(results, "FOLDER", tmp_path / "results")
    monkeypatch.setattr(results, "PAGES", (tmp_path / "page.md",))

    def write(record, name="run"):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        (folder / "result.json").write_text(json.dumps(record))
        return str(folder)

    (tmp_path / "page.md").touch()
    return write


def test_results_are_copied_and_written_into_the_pages(run_folder, tmp_path, capsys):
    page, record = tmp_path / "page.md", made_record()
    empty = place("digits, normalization=weight")
    page.write_text(f"before\n{place('digits, gradient=rate|bptt')}{empty}after\n")
    folder = run_folder(record)
    assert results.main([folder]) == 0
    text = page.read_text()
    assert [line for line in text.splitlines() if line.isalpha()] == ["before", "after"]
    lines = [line for line in text.splitlines() if line.startswith("| rate")]
    assert lines == ["| rate | 0.7500 |"]
    with (tmp_path / "results" / results.TABLE).open(newline="") as file:
        (row,) = csv.DictReader(file)
    expected = ("digits", "0.7500", "0.500", "0.750")
    columns = ("recipe", "of each seed", "training accuracy, epoch 1", "last epoch")
    assert tuple(row[column] for column in columns) == expected
    # As it is written, so it is found the next time.
    assert results.main([]) == 0
    assert page.read_text() == text
    # A result replaces that of the same settings alone.
    other = made_record(**CUTOUT)
    for _ in range(2):
        assert results.main([folder, run_folder(other, "other")]) == 0
    assert results.committed() == [record, other]
    capsys.readouterr()
    assert "not finished" in error_of([tmp_path], capsys, results.main)
    # Tables would be an error from then on.
    del other["curve"]
    for refused, said in (
        (made_record(ordinary="only"), "has no place in the tables"),
        (made_record(held_out=100), "100 held-out training images"),
        (other, "has no place in the tables"),
    ):
        assert said in error_of([run_folder(refused)], capsys, results.main)
    assert results.committed() == [record, made_record(**CUTOUT)]


def test_the_committed_pages_are_those_of_the_committed_results():
    records = results.committed()
    identities = {repr(results.identity(record)) for record in records}
    assert len(identities) == len(records) > 0
    for page in results.PAGES:
        text = page.read_text()
        assert results.PLACE.search(text)
        assert results.with_tables(text, records) == text
    assert (results.FOLDER / results.TABLE).read_text() == results.whole_table(records)


METHODS = ("--methods", "rate-multi", "rate-multi-2", "bptt-multi")


def test_compare_takes_all_combinations_that_a_method_can_have(capsys):
    parser = command_line.parser("compare", training.__doc__, training.add_arguments)
    varied = ["--vary", "timesteps=1,2,4", "levels=None,4"]
    arguments = parser.parse_args(["fashion_mnist", *METHODS, *varied])
    chosen = training.combinations(arguments)
    assert len(chosen) == 3 * 2 * 3 - 2
    settings = ["timesteps=1", "levels=4", "gradient=rate", "step_mode=multi"]
    assert chosen["timesteps=1-levels=4-rate-multi"] == settings
    assert "timesteps=1-levels=4-rate-multi-2" not in chosen
    said = "rate-multi-2 with timesteps=1 is left out. `windows` must be at most"
    assert said in capsys.readouterr().out
