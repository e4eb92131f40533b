"""What `python -m keras_ratesnn.about` prints, for reports of faults."""

import importlib.metadata
import runpy

import keras

import keras_ratesnn
from keras_ratesnn import about


def test_the_command_prints_the_backend_and_its_version(capsys):
    runpy.run_path(about.__file__, run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    backend = keras.backend.backend()
    title = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch"}[backend]
    assert f"keras_ratesnn {keras_ratesnn.__version__}" in lines
    assert f"backend {backend}" in lines
    assert f"{title} {importlib.metadata.version(backend)}" in lines


def test_packages_have_the_version_of_what_is_installed_by_whatever_name(monkeypatch):
    installed = {"keras": ["keras-nightly"], "torch": ["torch"]}
    versions = {"keras-nightly": "3.16.0.dev1", "torch": "2.13.0"}
    monkeypatch.setattr(importlib.metadata, "packages_distributions", lambda: installed)
    monkeypatch.setattr(importlib.metadata, "version", versions.__getitem__)
    lines = about.text().splitlines()
    assert {"Keras 3.16.0.dev1", "PyTorch 2.13.0", "JAX not installed"} <= set(lines)
