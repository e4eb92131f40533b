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
from tests.recipes.recipe_runs import DIGITS_EPOCHS, QUICKLY, error_of

pytestmark = pytest.mark.runs_once


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
    line = "method 2 of 3, rate-single, seed 0: epoch 1 of 1, about 0 min left"
    assert f"\n{line}" in printed
    rows = [row.split(" | ")[1:3] for row in printed.splitlines()[-3:]]
    assert rows == [["bptt", "multi"], ["rate", "multi"], ["rate", "single"]]
    paths = sorted(tmp_path.glob("*/result.json"))
    stamps = [path.stat().st_mtime_ns for path in paths]
    assert len(stamps) == 3
    assert compare.main([*command, "--methods", "rate-multi"]) == 0
    assert stamps == [path.stat().st_mtime_ns for path in paths]
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
        if outcome not in (0, diverged):
            return types.SimpleNamespace(returncode=outcome)
        gradient, _, seed = folder.name.split("-")
        settings = catalogue.find("digits").settings()
        record = {
            "settings": {**settings, "gradient": gradient, "seed": int(seed)},
            "backend": "jax",
            "device": "made",
            "train_images": 1,
            "seconds_per_epoch": 1.0,
            "curve": {"accuracy": [0.5, 0.75]},
            "peak_memory_mib": 1,
            "test_accuracy": 0.75 if outcome == 0 else None,
        }
        # A run may stop with its ordinary network.
        written = folder / "ordinary" if folder.name == "rate-multi-1" else folder
        written.mkdir(parents=True)
        (written / "result.json").write_text(json.dumps(record))
        return types.SimpleNamespace(returncode=int(outcome == diverged))

    monkeypatch.setattr(training.subprocess, "run", run)
    options = "digits --seeds 2 --methods rate-multi bptt-multi --output"
    command = options.split()
    assert compare.main([*command, str(tmp_path / "first")]) == 1
    assert started == list(outcomes)
    rows = [row.split(" | ") for row in capsys.readouterr().out.splitlines()[-2:]]
    assert [(row[1], row[10]) for row in rows] == [
        ("bptt", "0.7500"),
        ("rate", "0.7500"),
    ]
    for status in (2, crashed):
        outcomes["bptt-multi-0"] = status
        started.clear()
        folder = tmp_path / str(status)
        assert compare.main([*command, str(folder)]) == 2
        assert started == ["rate-multi-0", "bptt-multi-0"]
        # A run that ends in a mistake of the user has named it.
        said = f"error: the run in {folder}/bptt-multi-0 failed with exit status 1"
        assert (said in capsys.readouterr().err) == (status == crashed)


def with_settings(record, **settings):
    return {**record, "settings": {**record["settings"], **settings}}


def test_the_table_has_a_row_for_the_seeds_of_the_same_settings(digits_run):
    _, record = digits_run
    mean = record["test_accuracy"] - 0.01
    reseeded = {**with_settings(record, seed=1), "test_accuracy": mean - 0.01}
    records = [reseeded, record, with_settings(record, gradient="bptt")]
    rows = results.table(records).splitlines()[2:]
    assert len(rows) == 2
    assert f"{mean:.4f} ± 0.0141" in rows[1]


def test_rows_of_the_table_are_in_the_order_of_their_numbers(digits_run):
    _, record = digits_run
    records = [with_settings(record, timesteps=number) for number in (16, 2)]
    assert results.table(records, ("T",)).splitlines()[2:] == ["| 2 |", "| 16 |"]


MADE = "made by python -m recipes.compare.results -->"


def place(name, content="\n\nold"):
    return f"<!-- results of {name}: {MADE}{content}\n\n<!-- end of results -->\n"


TABLES = (
    "digits, epochs=3, gradient=rate|bptt",
    "digits, epochs=3, normalization=weight",
)
PAGE = f"before\n{place(TABLES[0])}{place(TABLES[1])}after\n"


@pytest.mark.runs_once
def test_an_empty_place_for_a_table_takes_nothing_of_the_text_after_it():
    empty = place("tasks", content="")
    page = f"before\n{empty}between\n{place('tasks')}after\n"
    written = results.with_tables(page, [])
    words = [line for line in written.splitlines() if line.isalpha()]
    assert words == ["before", "between", "after"]
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
    words = [line for line in text.splitlines() if line.isalpha()]
    assert words == ["before", "after"]
    tables = []
    for part in text.split("<!-- res")[1:]:
        lines = part.split("<!-- end")[0].splitlines()[4:]
        tables.append([line for line in lines if line])
    assert tables == [[f"| rate | {record['test_accuracy']:.4f} |"], []]
    with (tmp_path / "results" / results.TABLE).open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["recipe"] == "digits"
    assert row["of each seed"] == f"{record['test_accuracy']:.4f}"
    first, *_, last = record["curve"]["accuracy"]
    accuracies = row["training accuracy, epoch 1"], row["last epoch"]
    assert accuracies == (f"{first:.3f}", f"{last:.3f}")
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
    by_sizes = with_settings(digits_run[1], windows=[2, 2])
    rows = results.table([by_sizes], ("gradient", "step mode")).splitlines()
    assert rows[-1] == "| rate 2+2 windows | multi |"


def test_no_two_committed_results_are_of_the_same_run():
    records = results.committed()
    identities = {repr(results.identity(record)) for record in records}
    assert len(identities) == len(records)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"ordinary": "only"}, "of an ordinary network"),
        ({"held_out": 100}, "100 held-out training images"),
    ],
)
def test_what_is_no_test_result_of_a_spiking_network_is_refused(
    settings, said, digits_run, tmp_path, capsys
):
    record = with_settings(digits_run[1], **settings)
    (tmp_path / "result.json").write_text(json.dumps(record))
    assert said in error_of([tmp_path], capsys, results.main)


def test_results_with_an_ordinary_network_are_compared_with_it(digits_run):
    _, record = digits_run
    scores = {"accuracy": 0.5, "loss": 1.0}
    compared = with_settings(record, ordinary="first", teacher_weight=0.5)
    ordinary = {**scores, "accuracy": 0.75}
    compared["comparison"] = {"ordinary": ordinary, "spiking": {"1": scores}}
    names = ("digits", "digits and its ordinary network", "tasks")
    page = results.with_tables("".join(map(place, names)), [record, compared])
    parts = page.split("<!-- res")[1:]
    all_runs, own, tasks = (part.splitlines()[4:-2] for part in parts)
    methods = sorted(row.split(" | ")[0] for row in all_runs)
    assert methods == ["| rate", "| rate with teacher, from ordinary weights"]
    images = f"{DIGITS_EPOCHS} | {record['train_images']:,}"
    row = f"| digits | rate with teacher | {images} | accuracy | 0.7500 | 0.5000 |"
    assert own == [row]
    assert tasks == []


def test_the_committed_pages_are_those_of_the_committed_results():
    records = results.committed()
    assert records
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
