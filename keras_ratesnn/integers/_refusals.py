"""What a network of integers cannot compute exactly, in errors that name the layer and
what to do."""

from typing import Any


def refused(layer: Any, reason: str) -> ValueError:
    """The error for a layer, or an operation; the reason ends in what to do."""
    return ValueError(
        "`model` must be a network that integers compute exactly. Received: layer "
        f"{layer.name!r} of type {type(layer).__name__}: {reason}"
    )


FREE_REASONS = {
    "neuron": "of neurons, IF, LIF, ParametricLIF and ILIF have integers. Train the "
    "network with one of these.",
    "encoder": "encoders are not part of it. Encode the inputs where the network runs, "
    "as one frame for each step.",
    "readout": "a leaky readout does not add up logits. Let the network end in the "
    "layer before it.",
    "time mixing": "it mixes time steps. Use neurons that keep a membrane only.",
}
"""Why roles of layers are refused."""

OF_ACTIVATIONS = (
    "it applies an activation function. Use neurons, or leave it out: the "
    "largest logit is the class."
)
OF_NORMALIZATION = (
    "normalisation has to follow weights, whose units it changes, and "
    "be the same at each step. Put a BatchNormalization directly after a convolution "
    "or Dense layer."
)
OF_CURRENTS = (
    "its input is a current, and weights need spikes or counts. Put neurons "
    "there, or fold it into the layer before."
)
OF_OTHERS = (
    "integers have no layer for it. Use convolutions, Dense layers, their "
    "normalisation, pooling, sums and neurons, or let it run outside of the model."
)
