"""The versions of Keras and of its backends that the library fits."""

import importlib.metadata
import warnings

NEWEST_TESTED = {
    "keras": (3, 15),
    "tensorflow": (2, 21),
    "jax": (0, 12),
    "torch": (2, 15),
}
"""The newest versions with which tests have passed: major and minor version."""

NAMES = {
    "keras": "Keras",
    "tensorflow": "TensorFlow",
    "jax": "JAX",
    "torch": "PyTorch",
}


def warn_if_untested(package, version):
    """Warns if a version of a package, a string, is newer than any that was tested:
    what is private may differ there."""
    newest = NEWEST_TESTED[package]
    if numbers(version) > newest:
        name = NAMES[package]
        warnings.warn(
            f"keras_ratesnn reads parts of {name} that may change with every version, "
            f"and {name} {version} is newer than the newest that was tested, "
            f"{_dotted(newest)}. {remedy(package)}",
            stacklevel=2,
        )


def numbers(version):
    """Major and minor version as a pair of integers."""
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def check_saved_models_of_jax():
    """Raises a ValueError where TensorFlow cannot read SavedModels that JAX writes."""
    jax, tensorflow = map(_installed, ("jax", "tensorflow"))
    if not tensorflow:
        return
    if numbers(jax) >= (0, 12) and numbers(tensorflow) <= (2, 21):
        raise ValueError(
            f"`format='tf_saved_model'`: TensorFlow {tensorflow} cannot read what JAX "
            f'{jax} writes into it. Install "jax<0.12", or a newer TensorFlow than '
            "2.21."
        )


def _installed(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def remedy(package):
    major, minor = NEWEST_TESTED[package]
    return (
        "Install an older one, pip install "
        f'"{package}<{_dotted((major, minor + 1))}", or a newer keras-ratesnn. In a '
        "checkout, python -m pytest tests/core/test_keras_internals.py says which "
        "part has changed."
    )


def _dotted(version):
    return ".".join(map(str, version))
