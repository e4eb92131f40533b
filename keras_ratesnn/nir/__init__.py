"""NIR files: networks for neuromorphic chips and other simulators, written and read."""

from keras_ratesnn.nir.exporting import export_nir
from keras_ratesnn.nir.importing import import_nir

__all__ = ["export_nir", "import_nir"]
