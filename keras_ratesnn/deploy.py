"""Ways to a chip or into a file: networks of integers and C, NIR, one time step, and
networks that compute the same with less. This module only gathers them: each has a
package of its own."""

from keras_ratesnn._steps.export_step import export_step
from keras_ratesnn._steps.until_sure import calibrate_confidence, predict_until_sure
from keras_ratesnn.conversion.folding import fold_batch_normalization
from keras_ratesnn.conversion.quantization import quantize_aware
from keras_ratesnn.conversion.unrolling.unroll import unroll
from keras_ratesnn.integers import (
    IntegerModel,
    export_c,
    load_integers,
    to_integers,
)
from keras_ratesnn.nir import export_nir, import_nir

__all__ = [
    "IntegerModel",
    "calibrate_confidence",
    "export_c",
    "export_nir",
    "export_step",
    "fold_batch_normalization",
    "import_nir",
    "load_integers",
    "predict_until_sure",
    "quantize_aware",
    "to_integers",
    "unroll",
]
