"""The tests of the library do without the recipes: those that need them are in rooms of
their own."""

import pathlib
import re

import pytest

pytestmark = pytest.mark.runs_once

TESTS = pathlib.Path(__file__).parents[1]
WITH_RECIPES = ("recipes", "benchmark", "docs")
MODULE = rf"(?:tests\.)?(?:{'|'.join(WITH_RECIPES)})"
IMPORT = re.compile(
    rf"^\s*(?:from|import) {MODULE}\b|^\s*from tests import|[\"']{MODULE}\.\w|-m "
    rf"{MODULE}\b",
    re.MULTILINE,
)
"""Also of a test by its name, and in programs that tests run."""


def test_no_test_of_the_library_and_nothing_shared_imports_the_recipes():
    paths = [
        path
        for path in TESTS.rglob("*.py")
        if path.relative_to(TESTS).parts[0] not in WITH_RECIPES
    ]
    assert pathlib.Path(__file__) in paths
    assert [
        str(path.relative_to(TESTS))
        for path in paths
        if IMPORT.search(path.read_text())
    ] == []
