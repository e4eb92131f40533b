"""Spiking neural networks in Keras 3, trained by rate-based backpropagation."""

import importlib
from typing import TYPE_CHECKING, Any

from keras_ratesnn._core import imported_keras as imported_keras  # isort: split

from keras_ratesnn import distillation, gradients, layers, losses, metrics, surrogates
from keras_ratesnn import observed_model as observed_model
from keras_ratesnn._model.engine_settings import engine_settings
from keras_ratesnn._model.recorded import recorded
from keras_ratesnn.conversion import (
    fold_batch_normalization,
    quantize_aware,
    spikify,
    unroll,
)
from keras_ratesnn.layer_kinds import LayerKind, Normalization, affine
from keras_ratesnn.spiking_model import SpikingModel

if TYPE_CHECKING:
    from keras_ratesnn import analysis, callbacks, events, models, testing
    from keras_ratesnn._steps.export_step import export_step
    from keras_ratesnn._steps.until_sure import calibrate_confidence, predict_until_sure
    from keras_ratesnn.analysis.costs.description import describe
    from keras_ratesnn.integers import IntegerModel, export_c, integer, load_integers
    from keras_ratesnn.nir import export_nir, import_nir

__version__ = "0.2.0.dev0"

__all__ = [
    "IntegerModel",
    "LayerKind",
    "Normalization",
    "SpikingModel",
    "__version__",
    "affine",
    "analysis",
    "calibrate_confidence",
    "callbacks",
    "describe",
    "distillation",
    "engine_settings",
    "events",
    "export_c",
    "export_nir",
    "export_step",
    "fold_batch_normalization",
    "gradients",
    "import_nir",
    "integer",
    "layers",
    "load_integers",
    "losses",
    "metrics",
    "models",
    "predict_until_sure",
    "quantize_aware",
    "recorded",
    "spikify",
    "surrogates",
    "testing",
    "unroll",
]

_IMPORTED_LATER = {
    **{
        name: f"keras_ratesnn.{name}"
        for name in ("analysis", "callbacks", "events", "models", "testing")
    },
    **dict.fromkeys(
        ("calibrate_confidence", "predict_until_sure"),
        "keras_ratesnn._steps.until_sure",
    ),
    **dict.fromkeys(("export_nir", "import_nir"), "keras_ratesnn.nir"),
    **dict.fromkeys(
        ("IntegerModel", "export_c", "integer", "load_integers"),
        "keras_ratesnn.integers",
    ),
    "describe": "keras_ratesnn.analysis.costs.description",
    "export_step": "keras_ratesnn._steps.export_step",
}
"""Names, and the modules that have them. The classes that saved files name are imported
at once, since Keras must know them."""


def __getattr__(name: str) -> Any:
    """What is imported with its first use: half of the library."""
    if name not in _IMPORTED_LATER:
        advice = layers.advice_on_class(name, layers.__all__)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}.{advice}")
    module = importlib.import_module(_IMPORTED_LATER[name])
    return globals().setdefault(name, getattr(module, name, module))


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
