"""What Keras does not provide portably: `engine`, which does it on this backend."""

import importlib

import keras

from keras_ratesnn._core.backend.base import Backend

_name = keras.backend.backend()
if _name not in ("jax", "tensorflow", "torch"):
    raise ImportError(
        "keras_ratesnn runs on the Keras backends tensorflow, jax and torch. "
        f"Received: KERAS_BACKEND={_name!r}. Set the environment variable "
        "KERAS_BACKEND to one of the three before Keras is imported."
    )

engine: Backend = importlib.import_module(f"{__name__}.{_name}").Backend()
"""The only object of its class. Only one backend's package is imported."""
