"""Runs that several files of tests read."""

import json
import pathlib
import shutil

import pytest
from made_once import made_once

from tests.recipes.recipe_runs import DIGITS_EPOCHS, fast_programs, trained


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory, request):
    """Folder and record of a run of a few epochs on the digits."""

    def make(folder):
        with fast_programs():
            trained(folder / "run", "digits", "--set", f"epochs={DIGITS_EPOCHS}")

    shared = made_once("digits", make, tmp_path_factory, request)
    folder = pathlib.Path(
        shutil.copytree(
            shared / "run", tmp_path_factory.mktemp("digits_of_a_worker") / "run"
        )
    )
    return folder, json.loads((folder / "result.json").read_text())
