"""Spiking neural networks in Keras 3, trained by rate-based backpropagation."""

from keras_ratesnn import (
    analysis,
    callbacks,
    distillation,
    events,
    gradients,
    layers,
    losses,
    metrics,
    models,
    surrogates,
    testing,
)
from keras_ratesnn._export.step import export_step
from keras_ratesnn._model.engine_settings import engine_settings
from keras_ratesnn._model.recorded import recorded
from keras_ratesnn._until_sure.predict import calibrate_confidence, predict_until_sure
from keras_ratesnn.analysis.description import describe
from keras_ratesnn.conversion import fold_batch_normalization, quantize_aware, spikify, unroll
from keras_ratesnn.integers import export_c, export_hls4ml, integer, load_integers
from keras_ratesnn.layer_kinds import LayerKind, Normalization, affine
from keras_ratesnn.nir import export_nir, import_nir
from keras_ratesnn.spiking_model import SpikingModel

__version__ = "0.2.0.dev0"

__all__ = [
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
    "export_hls4ml",
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
