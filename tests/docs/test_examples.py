"""The examples in the style of keras.io run, trained for two epochs, and have the form
of keras.io's."""

import pathlib
import re
import runpy

import pytest

ROOT = pathlib.Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_and_learns(path, tmp_path):
    text, changed = re.subn(
        r"^EPOCHS = \d+$", "EPOCHS = 2", path.read_text(), flags=re.MULTILINE
    )
    assert changed == 1
    short = tmp_path / path.name
    short.write_text(text)
    assert runpy.run_path(str(short))["accuracy"] > 0.6
