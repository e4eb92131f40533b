"""The facts that a report of a fault needs: `python -m keras_ratesnn.about` prints
it."""

import importlib.metadata
import platform

import keras

from keras_ratesnn import __version__

_PACKAGES = {
    "Keras": "keras",
    "NumPy": "numpy",
    "TensorFlow": "tensorflow",
    "JAX": "jax",
    "PyTorch": "torch",
}
"""Modules that programs import, by the names of their packages."""


def text() -> str:
    """Ten lines: the versions, the system, and the backend with its precision.

    >>> from keras_ratesnn import about
    >>> print(about.text())
    keras_ratesnn ...
    Python ...
    PyTorch ...
    """
    lines = [
        f"keras_ratesnn {__version__}",
        f"Python {platform.python_version()}",
        f"system {platform.platform()}",
        f"backend {keras.backend.backend()}",
        f"precision {keras.config.dtype_policy().name}",
    ]
    # Such as keras-nightly and tensorflow-cpu.
    distributions = importlib.metadata.packages_distributions()
    for name, package in _PACKAGES.items():
        installed = distributions.get(package, [])
        versions = sorted(set(map(importlib.metadata.version, installed)))
        lines.append(f"{name} {', '.join(versions) or 'not installed'}")
    return "\n".join(lines)


if __name__ == "__main__":
    print(text())
