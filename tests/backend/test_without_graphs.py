"""PyTorch without the folder that accelerates it: the results are the same."""

import os
import pathlib
import shutil
import subprocess
import sys

import helpers

pytestmark = helpers.only_on("torch", "other backends have no such folder")

ROOT = pathlib.Path(__file__).parents[2]

PROGRAM = """
import pathlib, sys

import pytest

root, here = sys.argv[1], pathlib.Path.cwd()


class Plugin:
    def pytest_collection_modifyitems(self, items):
        import keras_ratesnn
        from keras_ratesnn._core.backend import engine, torch

        assert here in pathlib.Path(keras_ratesnn.__file__).parents
        assert type(engine) is torch.Backend
        with keras_ratesnn.engine_settings() as settings:
            assert settings == {}
        assert len(items) > 29


paths = f"pythonpath={here} {root} {root}/tests"
options = ["-n", "0", "-q", "-p", "no:cacheprovider", "-o", paths]
sys.exit(pytest.main([*options, *sys.argv[2:]], [Plugin()]))
"""


def test_pytorch_without_graphs_agrees_with_all_reference_cases(tmp_path):
    package = ROOT / "keras_ratesnn"
    graphs = str(package / "_core" / "backend" / "torch")
    shutil.copytree(
        package,
        tmp_path / package.name,
        ignore=lambda folder, names: [
            name
            for name in names
            if name == "__pycache__" or (folder == graphs and name == "graphs")
        ],
    )
    test = ROOT / "tests" / "gradients" / "test_reference.py"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(ROOT), str(test)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "failed" not in done.stdout
