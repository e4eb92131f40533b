"""Layers of spiking networks."""

from keras_ratesnn.layers.cells import LIFCell, NeuronCell
from keras_ratesnn.layers.neurons import LIF, Neuron

__all__ = ["LIF", "LIFCell", "Neuron", "NeuronCell"]
