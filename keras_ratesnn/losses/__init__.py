"""Losses of spiking networks."""

from keras_ratesnn.losses.self_distillation import SelfDistillation
from keras_ratesnn.losses.temporal_distillation import TemporalDistillation
from keras_ratesnn.losses.tet import TET

__all__ = ["TET", "SelfDistillation", "TemporalDistillation"]
