"""Functions that Keras does not provide portably: those of `base.Backend`, as the
subclass for this backend has them."""

import importlib
from typing import TYPE_CHECKING, Any

import keras

from keras_ratesnn._core.backend import base

_name = keras.backend.backend()
if _name not in ("jax", "tensorflow", "torch"):
    raise ImportError(
        "keras_ratesnn runs on the Keras backends tensorflow, jax and torch. "
        f"Received: KERAS_BACKEND={_name!r}. Set the environment variable "
        "KERAS_BACKEND to one of the three before Keras is imported."
    )
_backend = importlib.import_module(f"{__name__}.{_name}").Backend()
globals().update({name: getattr(_backend, name) for name in base.names(base.Backend)})

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """A function of `base.Backend`."""
