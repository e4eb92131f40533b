"""NIR files: networks for neuromorphic chips and other simulators, written and read."""

from keras_ratesnn.models._nir.exporting import export_nir
from keras_ratesnn.models._nir.importing import import_nir

__all__ = ["export_nir", "import_nir"]
