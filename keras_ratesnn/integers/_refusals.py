"""Computations that a network of integers cannot do exactly: reasons of errors, which
name the layer and what to do."""

from keras_ratesnn import _lowered

REFUSALS = _lowered.Refusals("integers compute exactly", "integers")
refused = REFUSALS.error

READOUT = (
    "a leaky readout does not add up logits. Let the network end in the layer before "
    "it."
)
SCALES = (
    "factors that differ, or are not above 0, have to follow weights, whose units they "
    "change. Put a BatchNormalization directly after a convolution or Dense layer, and "
    "use one scale > 0 in a Rescaling."
)
CURRENT = (
    "its input is a current, and weights need spikes or counts. Put neurons there, or "
    "fold it into the layer before."
)
