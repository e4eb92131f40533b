"""From an ordinary Keras network to a spiking one."""

from keras_ratesnn.models._conversion.spikify import spikify

__all__ = ["spikify"]
