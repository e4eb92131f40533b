"""The command that tells how few time steps images need: what it prints, and what it
needs."""

import pytest

from recipes import until_sure
from tests.recipes.recipe_runs import error_of

pytestmark = pytest.mark.runs_once


def test_the_command_prints_coverages_and_times_and_draws_the_curve(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(until_sure, "BATCHES", {1: 2, 8: 1})
    options = [
        "--images",
        "120",
        "--errors",
        "0.05",
        "0.02",
        "--rounds",
        "1",
        "--plot",
        str(tmp_path / "curve.png"),
    ]
    assert until_sure.main(["digits", *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in lines
        if line.startswith("| ")
    ]
    (errors, *_), (times, *_) = (
        [row for row in rows if row[0] in names]
        for names in (("0.05", "0.02"), ("1", "8"))
    )
    assert 1 <= float(errors[2]) <= 4
    assert float(errors[5]) >= 1 - 0.05 - 0.03
    assert float(times[1]) > 0
    assert (tmp_path / "curve.svg").exists()


def test_mistakes_are_told_before_anything_is_measured(tmp_path, capsys):
    for name in ("nothing", tmp_path):
        assert "or one of digits, fashion_mnist, fas" in error_of(
            [name], capsys, until_sure.main
        )
    plot = ["digits", "--plot", str(tmp_path / "nowhere" / "curve.png")]
    assert "does not exist. Create it first." in error_of(plot, capsys, until_sure.main)
    few = ["digits", "--images", "50", "--errors", "0.001"]
    assert "Pass at least 999 samples" in error_of(few, capsys, until_sure.main)
