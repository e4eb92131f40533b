"""Ordinary Keras models turned into spiking ones, and networks turned into others that
compute the same, or nearly."""

from keras_ratesnn.conversion._folding import fold_batch_normalization
from keras_ratesnn.conversion._quantize_aware import quantize_aware
from keras_ratesnn.conversion._unrolling.unroll import unroll
from keras_ratesnn.conversion.spikify import spikify

__all__ = ["fold_batch_normalization", "quantize_aware", "spikify", "unroll"]
