"""Checks for authors of cells and of gradient methods: each says in words what does not keep the contract."""

from keras_ratesnn.testing.cells import check_cell
from keras_ratesnn.testing.methods import check_gradient_method

__all__ = ["check_cell", "check_gradient_method"]
