"""Callbacks for `fit`."""

from keras_ratesnn.callbacks.firing_rate import FiringRate
from keras_ratesnn.callbacks.firing_rates import FiringRates
from keras_ratesnn.callbacks.gradient_agreement import GradientAgreement

__all__ = ["FiringRate", "FiringRates", "GradientAgreement"]
