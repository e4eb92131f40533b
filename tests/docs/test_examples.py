"""The examples in the style of keras.io run, trained for two epochs, and have the form
of keras.io's."""

import pathlib
import re
import runpy

import pytest

ROOT = pathlib.Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.py"))
HEAD = [
    "Title",
    "Author",
    "Date created",
    "Last modified",
    "Description",
    "Accelerator",
]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_and_learns(path, tmp_path):
    text, changed = re.subn(
        r"^EPOCHS = \d+$", "EPOCHS = 2", path.read_text(), flags=re.MULTILINE
    )
    assert changed == 1
    short = tmp_path / path.name
    short.write_text(text)
    assert runpy.run_path(str(short))["accuracy"] > 0.6


@pytest.mark.runs_once
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_page_of_an_example_has_its_text_and_its_code(path):
    page_of_example = runpy.run_path(str(ROOT / "docs" / "mkdocs" / "tutorials.py"))[
        "page_of_example"
    ]
    text = path.read_text()
    assert [
        line.partition(":")[0] for line in text.split('"""')[1].strip().splitlines()
    ] == HEAD
    page = page_of_example(text)
    blocks = r"^```python\n(.*?)^```"
    code = "".join(re.findall(blocks, page, re.DOTALL | re.MULTILINE))
    assert code.startswith("import keras\n")
    compile(code, path.name, "exec")
    rest = re.sub(blocks, "", page, flags=re.DOTALL | re.MULTILINE)
    assert re.findall("^#+ .*", rest, re.MULTILINE)[1:] == re.findall(
        "^#+ .*", text, re.MULTILINE
    )
