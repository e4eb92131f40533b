"""Measurements of a model on a batch of data; each result has a method `plot`. See
docs/analysis.md."""

from keras_ratesnn._core import moved_names
from keras_ratesnn.analysis.accuracy.accuracy_over_time import (
    AccuracyOverTime,
    accuracy_over_time,
)
from keras_ratesnn.analysis.accuracy.accuracy_until_sure import (
    AccuracyUntilSure,
    UntilSure,
    accuracy_until_sure,
)
from keras_ratesnn.analysis.accuracy.shuffle_in_time import (
    ShuffledAccuracy,
    shuffle_in_time,
)
from keras_ratesnn.analysis.activity.firing_rates import FiringRates, firing_rates
from keras_ratesnn.analysis.activity.single_neurons import (
    Membranes,
    Raster,
    membranes,
    raster,
)
from keras_ratesnn.analysis.audits.audit import Audit, audit
from keras_ratesnn.analysis.costs.breakdown import (
    Costs,
    DenseNetwork,
    EnergyBreakdown,
    Traffic,
)
from keras_ratesnn.analysis.costs.energy import Energy, energy
from keras_ratesnn.analysis.gradients.gradient_agreement import (
    GradientAgreement,
    gradient_agreement,
)
from keras_ratesnn.analysis.gradients.independence import Independence, independence
from keras_ratesnn.analysis.probe.temporal_probe import TemporalProbe, temporal_probe
from keras_ratesnn.observed_model import ObservedModel, observed

__all__ = [
    "AccuracyOverTime",
    "AccuracyUntilSure",
    "Audit",
    "Costs",
    "DenseNetwork",
    "Energy",
    "EnergyBreakdown",
    "FiringRates",
    "GradientAgreement",
    "Independence",
    "Membranes",
    "ObservedModel",
    "Raster",
    "ShuffledAccuracy",
    "TemporalProbe",
    "Traffic",
    "UntilSure",
    "accuracy_over_time",
    "accuracy_until_sure",
    "audit",
    "energy",
    "firing_rates",
    "gradient_agreement",
    "independence",
    "membranes",
    "observed",
    "raster",
    "shuffle_in_time",
    "temporal_probe",
]

moved_names.refuse(globals())
