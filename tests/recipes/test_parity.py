"""Differences between methods, paired by seed."""

import numpy as np
import pytest

from recipes.compare import parity, results
from tests.recipes.recipe_runs import error_of


def record(gradient, seed, accuracy, **changes):
    settings = {"name": "made", "epochs": 2, "step_mode": "multi", "windows": 1}
    settings |= {"gradient": gradient, "seed": seed, **changes}
    return {
        "settings": settings,
        "backend": "jax",
        "test_accuracy": accuracy,
        "curve": {"accuracy": [0.1, accuracy], "test_accuracy": [0.1, accuracy]},
    }


def seeds(gradient, *accuracies):
    return [record(gradient, seed, value) for seed, value in enumerate(accuracies)]


RECORDS = [
    *seeds("bptt", 0.90, 0.91, 0.89),
    *seeds("rate", 0.899, 0.912, 0.886),
    record("sltt", 1, 0.88),
    # Of other settings, and of another recipe.
    record("rate", 5, 0.1, learning_rate=3.0),
    record("rate", 0, 0.3, temperature=4.0),
    record("rate", 0, 0.2, name="other"),
]


def test_differences_are_paired_by_seed_with_the_interval_of_student():
    methods = parity.by_method(RECORDS, "made", 2)
    assert {name: sorted(by_seed) for name, by_seed in methods.items()} == {
        "bptt multi": [0, 1, 2],
        "rate multi": [0, 1, 2],
        "sltt multi": [1],
    }
    mean, half = parity.difference(methods["rate multi"], methods["bptt multi"])
    differences = np.array([-0.1, 0.2, -0.4])
    assert mean == pytest.approx(differences.mean())
    # The 97.5 % quantile of two degrees of freedom.
    assert half == pytest.approx(4.3027 * differences.std(ddof=1) / 3**0.5, rel=1e-4)
    alone = parity.difference(methods["sltt multi"], methods["bptt multi"])
    assert alone == (pytest.approx(-3.0), None)
    lines = parity.table(methods).splitlines()
    assert lines[2] == "| bptt multi | 3 | 0.9000 ± 0.0100 |  |  |"
    assert lines[4] == "| sltt multi | 1 | 0.8800 | -3.00 | one seed |"


@pytest.fixture
def records(monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(results, "committed", lambda: RECORDS)


def test_the_command_draws_the_curves_of_the_committed_results(
    records, tmp_path, capsys
):
    command = f"made --epochs 2 --plot {tmp_path}/curves.png".split()
    assert parity.main(command) == 0
    assert "| rate multi | 3 |" in capsys.readouterr().out
    assert (tmp_path / "curves.png").stat().st_size > 10_000
    # A vector version, whose words can be read, and which is the same if it is drawn
    # again.
    vectors = (tmp_path / "curves.svg").read_bytes()
    assert b">BPTT, multi-step<" in vectors
    assert parity.main(command) == 0
    assert (tmp_path / "curves.svg").read_bytes() == vectors


MISTAKES = """
made --epochs 3 | no result by BPTT of 'made' with --epochs 3. There are results
maid --epochs 2 | of: made --epochs 2.
made --epochs 2 --plot nowhere/curves.png | The folder nowhere of the figure curves.png
made --epochs 2 --plot curves.gif.txt | curves.gif.txt must have one of these suffixes
"""


@pytest.mark.parametrize("line", MISTAKES.strip().splitlines())
def test_a_mistake_on_the_command_line_is_named(line, records, capsys):
    arguments, said = line.split(" | ")
    assert said in error_of(arguments.split(), capsys, parity.main)
