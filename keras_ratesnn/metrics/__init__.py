"""Metrics of spiking networks."""

from keras_ratesnn.metrics.anytime_accuracy import AnytimeAccuracy
from keras_ratesnn.metrics.head_accuracy import HeadAccuracy

__all__ = ["AnytimeAccuracy", "HeadAccuracy"]
