"""Comparisons of methods, and the tables of results."""

import csv
import json
import pathlib
import shutil
import types

import pytest
from made_once import made_once

from recipes import catalogue, command_line
from recipes.compare import __main__ as compare
from recipes.compare import results, training
from recipes.train import main
from tests.recipes.recipe_runs import QUICKLY, error_of, fast_programs, trained

pytestmark = pytest.mark.runs_once

DIGITS_EPOCHS = 3


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


METHODS = ("--methods", "rate-multi", "rate-multi-2", "bptt-multi")


def test_compare_takes_all_combinations_that_a_method_can_have(capsys):
    arguments = command_line.parser(
        "compare", training.__doc__, training.add_arguments
    ).parse_args(
        ["fashion_mnist", *METHODS, "--vary", "timesteps=1,2,4", "levels=None,4"]
    )
    chosen = training.combinations(arguments)
    assert len(chosen) == 3 * 2 * 3 - 2
    assert chosen["timesteps=1-levels=4-rate-multi"] == [
        "timesteps=1",
        "levels=4",
        "gradient=rate",
        "step_mode=multi",
    ]
    assert "timesteps=1-levels=4-rate-multi-2" not in chosen
    assert (
        "rate-multi-2 with timesteps=1 is left out. `windows` must be at most"
        in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--vary", "levels"],
            "--vary takes each key once, as key=value,value. Received: 'levels'.",
        ),
        (["--vary", "levels=0,4"], "`levels` must be 1 or more"),
        (
            ["--vary", "gradient=rate,bptt"],
            "`gradient` cannot be varied. Received: --vary gradient=rate,bptt. Name "
            "the method",
        ),
        (
            ["--vary", "levels=2,4", "--set", "levels=3"],
            "`levels` cannot be set here. Received: --set levels=3. Its values are",
        ),
        (["--vary", "epochs=1,2", "batch=3"], "the keys are"),
    ],
)
def test_compare_refuses_a_mistake_in_what_it_varies(arguments, said, tmp_path, capsys):
    assert said in error_of(
        ["digits", *arguments, "--output", tmp_path / "runs"], capsys, compare.main
    )
