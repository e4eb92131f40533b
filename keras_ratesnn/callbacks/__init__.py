"""Callbacks for `fit`."""

from keras_ratesnn.callbacks.accuracy_over_time import AccuracyOverTime
from keras_ratesnn.callbacks.firing_rate import FiringRate
from keras_ratesnn.callbacks.gradient_agreement import GradientAgreement
from keras_ratesnn.callbacks.lower_sigma import LowerSigma
from keras_ratesnn.callbacks.raise_mask import RaiseMask
from keras_ratesnn.callbacks.random_timesteps import RandomTimesteps
from keras_ratesnn.callbacks.throughput import Throughput
from keras_ratesnn.callbacks.timestep_schedule import TimestepSchedule

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
