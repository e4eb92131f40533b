"""Layers of spiking networks; those that only networks of `models` and `deploy` have
are imported because saved files name them."""
# ruff: noqa: F401

from typing import Any

from keras_ratesnn._core import docstrings, moved_names
from keras_ratesnn.layer_kinds import BatchStatistics, LayerKind, affine
from keras_ratesnn.layers import (
    border,
    firing_rate_scale,
    pooling,
    quantized,
    shared_membrane,
)
from keras_ratesnn.layers._other_names import advice_on_class
from keras_ratesnn.layers.adaptive import ALIF, ALIFCell
from keras_ratesnn.layers.cells import IFCell, LIFCell, ParametricLIFCell
from keras_ratesnn.layers.current_based import CuBaLIF, CuBaLIFCell
from keras_ratesnn.layers.delay import Delay
from keras_ratesnn.layers.encoders import BernoulliEncoder, Encoder, LatencyEncoder
from keras_ratesnn.layers.integer import ILIF, ILIFCell
from keras_ratesnn.layers.neuron_cell import NeuronCell
from keras_ratesnn.layers.neurons import IF, LIF, Neuron, ParametricLIF
from keras_ratesnn.layers.online_renormalization import OnlineRenormalization
from keras_ratesnn.layers.parallel import PSN, MaskedPSN, SlidingPSN
from keras_ratesnn.layers.parallel_cells import MaskedPSNCell, PSNCell, SlidingPSNCell
from keras_ratesnn.layers.readout import LeakyReadout
from keras_ratesnn.layers.recurrent import Recurrent, RecurrentCell
from keras_ratesnn.layers.scale import Scale
from keras_ratesnn.layers.temporal_normalization import (
    TemporalEffectiveBatchNormalization,
    ThresholdDependentBatchNormalization,
)
from keras_ratesnn.layers.time_constants import TimeConstants
from keras_ratesnn.layers.time_mean import TimeMean
from keras_ratesnn.layers.time_mixing import TimeMixing
from keras_ratesnn.layers.weight_standardized import WSConv2D, WSDense

__all__ = [
    "ALIF",
    "IF",
    "ILIF",
    "LIF",
    "PSN",
    "ALIFCell",
    "BatchStatistics",
    "BernoulliEncoder",
    "CuBaLIF",
    "CuBaLIFCell",
    "Delay",
    "Encoder",
    "IFCell",
    "ILIFCell",
    "LIFCell",
    "LatencyEncoder",
    "LayerKind",
    "LeakyReadout",
    "MaskedPSN",
    "MaskedPSNCell",
    "Neuron",
    "NeuronCell",
    "OnlineRenormalization",
    "PSNCell",
    "ParametricLIF",
    "ParametricLIFCell",
    "Recurrent",
    "RecurrentCell",
    "Scale",
    "SlidingPSN",
    "SlidingPSNCell",
    "TemporalEffectiveBatchNormalization",
    "ThresholdDependentBatchNormalization",
    "TimeConstants",
    "TimeMean",
    "TimeMixing",
    "WSConv2D",
    "WSDense",
    "affine",
]

docstrings.write_out(globals())


def __getattr__(name: str) -> Any:
    raise moved_names.error(__name__, name, advice_on_class(name, __all__))
