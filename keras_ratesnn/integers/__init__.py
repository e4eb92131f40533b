"""Networks of integers: kernels of few bits, inference in integers alone, and programs
in C."""

from keras_ratesnn.integers.exporting import Sizes, export_c
from keras_ratesnn.integers.model import IntegerModel, load_integers, to_integers

__all__ = ["IntegerModel", "Sizes", "export_c", "load_integers", "to_integers"]
