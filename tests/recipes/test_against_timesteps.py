"""Figures of accuracy and costs against T."""

import itertools
import json

import pytest

from recipes import make_recordings
from recipes.benchmark import against_timesteps
from tests.recipes.made_clothes import write_clothes
from tests.recipes.recipe_runs import QUICKLY, error_of

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
    for _ in range(2):
        assert against_timesteps.main(command) == 0
        assert "| held-out accuracy |" in capsys.readouterr().out


MEASURED = "digits --timesteps 1 2 --seeds 1 --rounds 1 --set epochs=1"
OTHERS = """
--timesteps 1 | --timesteps 1 2, now 1
--seeds 2 | --seeds 1, now 2
--rounds 2 | --rounds 1, now 2
--methods sltt-multi | --methods rate-multi bptt-multi, now sltt-multi
--set epochs=2 | epochs=2. Repeat
"""


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
    # A finished record is drawn again, without training, but not with other arguments.
    figure.unlink()
    assert against_timesteps.main(command) == 0
    assert figure.exists()
    assert capsys.readouterr().out.count("| bptt-multi |") == 4
    for line in OTHERS.strip().splitlines():
        arguments, said = line.split(" | ")
        error = error_of([*command, *arguments.split()], capsys, against_timesteps.main)
        assert f"{path} was measured with other arguments" in error
        assert said in error


def test_a_file_that_is_no_record_is_named(tmp_path, capsys):
    path = tmp_path / "digits.json"
    names = '"settings": [], "backend": "jax", "memory_measure": null, "rows": [{}]'
    for content in ("{}", "[]", "{", f"{{{names}}}"):
        path.write_text(content)
        command = ["digits", "--output", tmp_path]
        error = error_of(command, capsys, against_timesteps.main)
        assert str(path) in error
        assert "not a record of python -m recipes.benchmark.against_timest" in error
