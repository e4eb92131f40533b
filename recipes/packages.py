"""Packages that only a part of the recipes needs."""

import importlib

import keras


def imported(name, user, extra):
    """Imports a package when it is needed.

    Args:
        name: String, the name of the package.
        user: String, what needs it.
        extra: String, the extra that installs it.

    Raises:
        ImportError: If it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"{user} needs the package {name} ({error}). Install it with `python -m "
            f"pip install -e '.[{extra}]'`."
        ) from error


def tensorflow_for_data():
    """TensorFlow, which reads the data of the recipes with every backend. With another
    one it must not allocate GPU memory."""
    tf = imported("tensorflow", "The data of recipes", "recipes")
    if keras.backend.backend() != "tensorflow":
        tf.config.set_visible_devices([], "GPU")
    return tf
