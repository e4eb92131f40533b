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
_accelerated = f"{_package}.graphs"
# What accelerates a backend that compiles nothing by itself: a subclass, if all that it
# reads is there.
if (
    importlib.util.find_spec(_accelerated)
    and importlib.import_module(f"{_package}.private_torch").are_there()
):
    _package = _accelerated

engine: Backend = importlib.import_module(_package).Backend()
"""The only object of its class. Only one backend's package is imported."""
