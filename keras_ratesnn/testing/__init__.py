"""Conformance checks for custom cells and gradient methods, and for dependence between
samples; their errors explain what is wrong."""

from keras_ratesnn.testing.cells import check_cell
from keras_ratesnn.testing.methods import check_gradient_method
from keras_ratesnn.testing.samples import check_sample_independence

__all__ = ["check_cell", "check_gradient_method", "check_sample_independence"]
