"""The tables of docs/api are those of the docstrings."""

import pathlib
import runpy

import pytest

pytestmark = pytest.mark.runs_once

TABLES = runpy.run_path(str(pathlib.Path(__file__).parents[2] / "docs" / "mkdocs" / "api_tables.py"))


@pytest.mark.parametrize(("module", "path"), TABLES["pages"]().items())
def test_the_page_of_a_module_lists_its_public_names_with_the_first_sentences_of_their_docstrings(module, path):
    text = path.read_text()
    assert text.startswith(f"# {module}\n"), "The site reads the module from the title of the page."
    up_to_date = TABLES["with_table"](text, module) == text
    assert up_to_date, f"{path} is out of date: `KERAS_BACKEND=torch python docs/mkdocs/api_tables.py` writes its table anew."
