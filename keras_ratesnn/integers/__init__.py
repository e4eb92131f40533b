"""Networks of integers: kernels of few bits, inference in integers alone, and programs for devices and FPGAs."""

from keras_ratesnn.integers.exporting import Sizes, export_c, export_hls4ml
from keras_ratesnn.integers.model import IntegerModel, integer, load_integers

__all__ = ["IntegerModel", "Sizes", "export_c", "export_hls4ml", "integer", "load_integers"]
