"""`engine`: the operations that Keras does not provide portably, for this backend."""

import importlib.util

import keras

from keras_ratesnn._core.backend.base import Backend
from keras_ratesnn._core.imported_keras import BACKENDS

_name = keras.backend.backend()
if _name not in BACKENDS:
    raise ImportError(
        f"keras_ratesnn runs on the Keras backends {', '.join(BACKENDS)}. "
        f"Received: KERAS_BACKEND={_name!r}. Set the environment variable "
        "KERAS_BACKEND to one of them before Keras is imported."
    )

_package = f"{__name__}.{_name}"
if importlib.util.find_spec(f"{_package}.graphs"):
    # What accelerates a backend that compiles nothing by itself: a subclass.
    _package = f"{_package}.graphs"

engine: Backend = importlib.import_module(_package).Backend()
"""The only object of its class. Only one backend's package is imported."""
