"""Functions that Keras does not provide portably; `contract.py` describes them, and the modules of a backend implement them."""

import importlib
from typing import TYPE_CHECKING, Any

import keras

from keras_ratesnn._core.backend.contract import Backend, names

_MODULES = {
    "jax": ("shared_jax_tensorflow", "shared_jax_torch", "jax"),
    "tensorflow": ("shared_jax_tensorflow", "tensorflow"),
    "torch": ("shared_jax_torch", "torch"),
}
"""Where the functions of each backend are; of two with the same name the later one counts."""

_name = keras.backend.backend()
if _name not in _MODULES:
    raise ImportError(
        f"keras_ratesnn runs on the Keras backends tensorflow, jax and torch. Received: KERAS_BACKEND={_name!r}. "
        "Set the environment variable KERAS_BACKEND to one of the three before Keras is imported."
    )
for _module in _MODULES[_name]:
    _functions = vars(importlib.import_module(f"{__name__}.{_module}"))
    globals().update({name: _functions[name] for name in names(Backend) if name in _functions})

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """A function of the contract."""
