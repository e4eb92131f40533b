"""Measurements of a model on a batch of data; each result has a method `plot`. See docs/analysis.md."""

from keras_ratesnn.analysis.accuracy_over_time import AccuracyOverTime, accuracy_over_time
from keras_ratesnn.analysis.energy import Energy, energy
from keras_ratesnn.analysis.firing_rates import FiringRates, firing_rates
from keras_ratesnn.analysis.gradient_agreement import GradientAgreement, gradient_agreement
from keras_ratesnn.analysis.independence import Independence, independence
from keras_ratesnn.analysis.ledger import Costs, Ledger, Rival, Traffic
from keras_ratesnn.analysis.membranes import Membranes, membranes
from keras_ratesnn.analysis.observed_model import ObservedModel, observed
from keras_ratesnn.analysis.raster import Raster, raster
from keras_ratesnn.analysis.shuffle_in_time import ShuffledAccuracy, shuffle_in_time

__all__ = [
    "AccuracyOverTime",
    "Costs",
    "Energy",
    "FiringRates",
    "GradientAgreement",
    "Independence",
    "Ledger",
    "Membranes",
    "ObservedModel",
    "Raster",
    "Rival",
    "ShuffledAccuracy",
    "Traffic",
    "accuracy_over_time",
    "energy",
    "firing_rates",
    "gradient_agreement",
    "independence",
    "membranes",
    "observed",
    "raster",
    "shuffle_in_time",
]
