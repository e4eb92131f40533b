"""What `python -m keras_ratesnn.about` prints, for reports of faults."""

import importlib.metadata
import subprocess
import sys

import keras

import keras_ratesnn
from keras_ratesnn import about


def test_the_command_prints_ten_lines_with_the_backend_and_its_version():
    printed = subprocess.run(
        [sys.executable, "-m", "keras_ratesnn.about"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert printed == about.text() + "\n"
    lines = printed.splitlines()
    assert len(lines) == 10
    backend = keras.backend.backend()
    title = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch"}[backend]
    assert f"keras_ratesnn {keras_ratesnn.__version__}" in lines
    assert f"backend {backend}" in lines
    assert f"{title} {importlib.metadata.version(backend)}" in lines


def test_a_backend_that_is_not_there_is_said_to_be_missing(monkeypatch):
    def version(name):
        if name == "jax":
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert "JAX not installed" in about.text().splitlines()
