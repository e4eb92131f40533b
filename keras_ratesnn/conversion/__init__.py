"""Ordinary Keras models turned into spiking ones, and networks turned into others that compute the same."""

from keras_ratesnn.conversion._folding import fold_batch_normalization
from keras_ratesnn.conversion._unrolling import unroll
from keras_ratesnn.conversion.spikify import spikify

__all__ = ["fold_batch_normalization", "spikify", "unroll"]
