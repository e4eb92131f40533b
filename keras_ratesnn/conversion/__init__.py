"""Ordinary Keras models turned into spiking ones, and networks turned into others that
compute the same, or nearly. Of the latter only layers that saved files name are
imported."""

from keras_ratesnn.conversion.spikify import spikify
from keras_ratesnn.conversion.unrolling import slot_layers as slot_layers

__all__ = ["spikify"]
