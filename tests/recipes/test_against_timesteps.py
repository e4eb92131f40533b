"""Figures of accuracy and costs against T."""

import json
import shutil

import pytest
from made_once import made_once

from recipes import make_recordings
from recipes.benchmark import against_timesteps
from tests.recipes.made_clothes import write_clothes
from tests.recipes.recipe_runs import QUICKLY, error_of

pytestmark = pytest.mark.runs_once


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """The folder of recordings of an event camera, of ten classes."""
    folder = tmp_path_factory.mktemp("recordings")
    write_clothes(folder)
    options = f"{folder}/made --train 20 --test 10 --data-dir {folder}"
    assert make_recordings.main(options.split()) == 0
    return folder / "made"


EVENTS = ("fashion_mnist_events", "--data-dir")


SMALL = ("--set", "epochs=1", "batch_size=8", "width=0.0625", "augment=none")


@pytest.mark.parametrize("of", ["recordings", "mixed images"])
def test_steps_on_recordings_and_mixed_images_are_drawn_and_held_out_accuracies_named(
    of, recordings, tmp_path, capsys
):
    if of == "recordings":
        chosen, name, times = (*EVENTS, str(recordings), *SMALL), "test", 1
    else:
        settings = ("epochs=1", *QUICKLY[1:], "mix=mixup", "held_out=200")
        chosen, name, times = ("digits", "--set", *settings), "held-out", 2
    measured = "--timesteps 2 --seeds 1 --rounds 1 --methods rate-multi --output"
    for _ in range(times):
        command = [*chosen, *measured.split(), str(tmp_path)]
        assert against_timesteps.main(command) == 0
        assert f"| {name} accuracy |" in capsys.readouterr().out
    (path,) = tmp_path.glob("*.json")
    assert [row["timesteps"] for row in json.loads(path.read_text())["rows"]] == [2]


MEASURED = "digits --timesteps 1 2 --seeds 1 --rounds 1 --set"
MEASURED = (*MEASURED.split(), *QUICKLY[1:], "epochs=1")


@pytest.fixture(scope="module")
def record(tmp_path_factory, request):
    """The folder of accuracy, memory and time against T: of each worker, since the
    files are drawn again."""

    def make(folder):
        assert (
            against_timesteps.main([*MEASURED, "--output", str(folder / "record")]) == 0
        )

    shared = made_once("against_timesteps", make, tmp_path_factory, request)
    return shutil.copytree(
        shared / "record", tmp_path_factory.mktemp("record") / "record"
    )


def test_accuracy_memory_and_time_are_drawn_against_the_number_of_steps(record, capsys):
    assert (record / "digits.png").read_bytes().startswith(b"\x89PNG")
    written = json.loads((record / "digits.json").read_text())
    assert [(row["timesteps"], row["method"]) for row in written["rows"]] == [
        (timesteps, method)
        for timesteps in (1, 2)
        for method in ("rate-multi", "bptt-multi")
    ]
    for row in written["rows"]:
        assert 0 <= row["accuracies"][0] <= 1
        assert row["seconds"]["median"] > 0
        assert (row["memory_bytes"] is None) == (written["memory_measure"] is None)
    # A finished record is drawn again, without training.
    (record / "digits.png").unlink()
    assert against_timesteps.main([*MEASURED, "--output", str(record)]) == 0
    assert (record / "digits.png").exists()
    assert capsys.readouterr().out.count("| bptt-multi |") == 2
    # Its arguments are not those of the default.
    assert "epochs=1, now nothing" in error_of(
        ["digits", "--output", record], capsys, against_timesteps.main
    )


OTHERS = """
--timesteps 1 | --timesteps 1 2, now 1
--seeds 2 | --seeds 1, now 2
--rounds 2 | --rounds 1, now 2
--methods sltt-multi | --methods rate-multi bptt-multi, now sltt-multi
--set epochs=2 | epochs=1 epochs=2
"""


@pytest.mark.parametrize("line", OTHERS.strip().splitlines())
def test_a_record_of_other_arguments_is_not_drawn_again(line, record, capsys):
    arguments, said = line.split(" | ")
    command = [*MEASURED, *arguments.split(), "--output", record]
    error = error_of(command, capsys, against_timesteps.main)
    assert f"{record / 'digits.json'} was measured with other arguments" in error
    assert said in error


@pytest.mark.parametrize(
    "content",
    [
        "{}",
        "[]",
        "{",
        '{"settings": [], "backend": "jax", "memory_measure": null, "rows": [{}]}',
    ],
)
def test_a_file_that_is_no_record_is_named(content, tmp_path, capsys):
    path = tmp_path / "digits.json"
    path.write_text(content)
    error = error_of(["digits", "--output", tmp_path], capsys, against_timesteps.main)
    assert str(path) in error
    assert "not a record of python -m recipes.benchmark.against_timesteps" in error
