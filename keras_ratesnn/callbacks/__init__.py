"""Callbacks for `fit`."""

from keras_ratesnn.callbacks.every_few_epochs import AccuracyOverTime, GradientAgreement
from keras_ratesnn.callbacks.firing_rate import FiringRate
from keras_ratesnn.callbacks.layer_schedules import LowerSigma, RaiseMask
from keras_ratesnn.callbacks.throughput import Throughput
from keras_ratesnn.callbacks.timesteps_of_batches import (
    RandomTimesteps,
    TimestepSchedule,
)

__all__ = [
    "AccuracyOverTime",
    "FiringRate",
    "GradientAgreement",
    "LowerSigma",
    "RaiseMask",
    "RandomTimesteps",
    "Throughput",
    "TimestepSchedule",
]
