"""Spiking neural networks in Keras 3, trained by rate-based backpropagation."""

import importlib
from typing import TYPE_CHECKING, Any

from keras_ratesnn._core import imported_keras as imported_keras  # isort: split

from keras_ratesnn import distillation, gradients, layers, losses, metrics, surrogates
from keras_ratesnn import observed_model as observed_model
from keras_ratesnn._core import moved_names
from keras_ratesnn._model.engine_settings import engine_settings
from keras_ratesnn._model.record_calls import record_calls
from keras_ratesnn.conversion import spikify
from keras_ratesnn.spiking_model import SpikingModel

if TYPE_CHECKING:
    from keras_ratesnn import analysis, callbacks, deploy, events, models, testing
    from keras_ratesnn.analysis.costs.description import describe

__version__ = "0.2.0.dev0"

__all__ = [
    "SpikingModel",
    "__version__",
    "analysis",
    "callbacks",
    "deploy",
    "describe",
    "distillation",
    "engine_settings",
    "events",
    "gradients",
    "layers",
    "losses",
    "metrics",
    "models",
    "record_calls",
    "spikify",
    "surrogates",
    "testing",
]

_IMPORTED_LATER = {
    **{
        name: f"keras_ratesnn.{name}"
        for name in ("analysis", "callbacks", "deploy", "events", "models", "testing")
    },
    "describe": "keras_ratesnn.analysis.costs.description",
}
"""Names, and the modules that have them. The classes that saved files name are imported
at once, since Keras must know them."""


def __getattr__(name: str) -> Any:
    """Imports a name at its first use, since half of the library comes with these."""
    if name not in _IMPORTED_LATER:
        advice = layers.advice_on_class(name, layers.__all__)
        raise moved_names.error(__name__, name, advice)
    module = importlib.import_module(_IMPORTED_LATER[name])
    return globals().setdefault(name, getattr(module, name, module))


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
