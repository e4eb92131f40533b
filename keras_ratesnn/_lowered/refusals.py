"""Errors about layers that cannot be lowered, or that a target does not have: all in
one form."""

import dataclasses
from typing import Any

import keras

from keras_ratesnn._lowered.neurons import LAYERS
from keras_ratesnn.layer_kinds import ENCODER, NEURON, TIME_MIXING, kind_of

_REASONS = {
    NEURON: "its neurons can be {} only. Train the network with one of these.",
    ENCODER: "encoders are not part of it. Encode the inputs where the network runs, "
    "as one frame for each step.",
    TIME_MIXING: "it mixes time steps. Use neurons that keep a membrane only.",
}
"""Reasons and remedies by the role of a layer."""

_ACTIVATION = (
    "it applies an activation function. Use neurons, or apply it to the outputs: the "
    "largest logit is the class."
)
_UNKNOWN = (
    "there is nothing for it. Use layers with weights, normalisation, pooling, sums "
    "and neurons, or leave it outside."
)


@dataclasses.dataclass(frozen=True)
class Refusals:
    """The errors of a target.

    Args:
        wanted: String, what the target does with networks.
        target: String, the name of the target in `Targets`.
    """

    wanted: str
    target: str

    def has(self, cell_class: Any) -> bool:
        """Whether the target has the neurons of a cell."""
        return cell_class in LAYERS and bool(getattr(cell_class.targets, self.target))

    def error(self, layer: Any, reason: str) -> ValueError:
        """The error for a layer, or an operation; the reason ends in what to do."""
        return ValueError(
            f"`model` must be a network that {self.wanted}. Received: layer "
            f"{layer.name!r} of type {type(layer).__name__}: {reason}"
        )

    def without_rule(self, layer: Any) -> ValueError:
        """The error for a layer that no rule lowers."""
        kind = kind_of(layer)
        unknown = _ACTIVATION if kind.activation else _UNKNOWN
        names = [each.__name__ for cell, each in LAYERS.items() if self.has(cell)]
        reason = _REASONS.get(kind.role, unknown).format(", ".join(names))
        return self.error(layer, reason)

    def check(self, layer: Any) -> None:
        """Raises ValueError for what no layer may have."""
        if getattr(layer, "activation", None) not in (None, keras.activations.linear):
            raise self.error(layer, _ACTIVATION)
        if getattr(layer, "quantization_mode", None):
            raise self.error(
                layer,
                "its weights are quantized already. Pass the model before `quantize`.",
            )
