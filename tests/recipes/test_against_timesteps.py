"""Figures of accuracy and costs against T."""

import itertools
import json
import pathlib
import shutil

import pytest

from recipes import make_recordings
from recipes.benchmark import against_timesteps
from tests.recipes.made_clothes import write_clothes
from tests.recipes.recipe_runs import QUICKLY, error_of

ROOT = pathlib.Path(make_recordings.__file__).parents[1]

pytestmark = pytest.mark.runs_once


SHORT = "--timesteps 2 --seeds 1 --rounds 1 --methods rate-multi --output"


def test_steps_on_recordings_are_drawn(tmp_path, capsys):
    write_clothes(tmp_path)
    recordings = f"{tmp_path}/made"
    options = f"{recordings} --train 20 --test 10 --data-dir {tmp_path}"
    assert make_recordings.main(options.split()) == 0
    settings = "--set epochs=1 batch_size=8 width=0.0625 augment=none"
    command = f"fashion_mnist_events --data-dir {recordings} {settings} {SHORT}"
    assert against_timesteps.main([*command.split(), str(tmp_path)]) == 0
    assert "| test accuracy |" in capsys.readouterr().out


def test_held_out_accuracies_of_mixed_images_are_named(tmp_path, capsys):
    settings = ("epochs=1", *QUICKLY[1:], "mix=mixup", "held_out=200")
    command = ["digits", "--set", *settings, *SHORT.split(), str(tmp_path)]
    assert against_timesteps.main(command) == 0
    assert "| held-out accuracy |" in capsys.readouterr().out


MEASURED = "digits --timesteps 1 2 --seeds 1 --rounds 1 --set epochs=1"


def test_accuracy_memory_and_time_are_drawn_against_the_number_of_steps(
    tmp_path, capsys
):
    command = [*MEASURED.split(), *QUICKLY[1:], "--output", str(tmp_path)]
    assert against_timesteps.main(command) == 0
    figure, path = tmp_path / "digits.png", tmp_path / "digits.json"
    assert figure.read_bytes().startswith(b"\x89PNG")
    written = json.loads(path.read_text())
    cases = [(row["timesteps"], row["method"]) for row in written["rows"]]
    assert cases == list(itertools.product((1, 2), ("rate-multi", "bptt-multi")))
    for row in written["rows"]:
        assert 0 <= row["accuracies"][0] <= 1
        assert row["seconds"]["median"] > 0
        assert (row["memory_bytes"] is None) == (written["memory_measure"] is None)
    # It is not measured again, and can be drawn again.
    figure.unlink()
    printed = capsys.readouterr().out
    error = error_of(command, capsys, against_timesteps.main)
    assert f"{path} was measured before. Pass --show" in error
    assert against_timesteps.main([*command, "--show"]) == 0
    assert figure.exists()
    assert capsys.readouterr().out == printed


def test_the_committed_record_is_drawn(tmp_path, capsys):
    record = ROOT / "docs" / "images" / "against_timesteps" / "digits.json"
    shutil.copy(record, tmp_path)
    command = ["digits", "--show", "--output", str(tmp_path)]
    assert against_timesteps.main(command) == 0
    rows = capsys.readouterr().out.splitlines()
    assert rows[0].startswith("| T | method | test accuracy | memory, MiB")
    assert len(rows) == 2 + 2 * 4
