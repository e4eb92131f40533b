"""Figures of accuracy and costs against T."""

import itertools
import json

import pytest

from recipes.benchmark import against_timesteps
from tests.recipes.recipe_runs import QUICKLY, error_of

pytestmark = pytest.mark.runs_once


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
