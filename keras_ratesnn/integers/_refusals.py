"""Computations that a network of integers cannot do exactly: reasons of errors, which
name the layer and what to do."""

from keras_ratesnn import _lowered

REFUSALS = _lowered.Refusals("integers compute exactly", "integers")
refused = REFUSALS.error
