"""Networks of integer spikes as networks of binary ones."""

from keras_ratesnn.conversion._unrolling.unroll import unroll

__all__ = ["unroll"]
