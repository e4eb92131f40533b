"""Conformance checks for custom cells and gradient methods; their errors explain what is wrong."""

from keras_ratesnn.testing.cells import check_cell
from keras_ratesnn.testing.methods import check_gradient_method

__all__ = ["check_cell", "check_gradient_method"]
