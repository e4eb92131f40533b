"""Conversion of ordinary Keras networks to spiking ones."""

from keras_ratesnn.models._conversion.spikify import spikify

__all__ = ["spikify"]
