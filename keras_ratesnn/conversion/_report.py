"""The report of `spikify`."""

import dataclasses

from keras_ratesnn.conversion._listing import grouped, listed
from keras_ratesnn.layers import Neuron


@dataclasses.dataclass(frozen=True)
class Change:
    """The conversion of one activation.

    Args:
        name: String, the name of the layer or operation.
        activation: String, the name of its activation function.
        neuron: The `Neuron` that replaces it, or `None`.
        reason: String, why it is kept; empty if it is replaced.
        threshold: Float, the calibrated threshold θ, in the units of the activation; `None` without calibration, or if the
            activation was never positive.
    """

    name: str
    activation: str
    neuron: Neuron | None = None
    reason: str = ""
    threshold: float | None = None


@dataclasses.dataclass(frozen=True)
class Report:
    """The changes that `spikify` made to a network; it can be printed.

    Args:
        changes: Tuple of `Change`, one for each activation of the network.
    """

    changes: tuple[Change, ...]

    @property
    def replaced(self) -> tuple[Change, ...]:
        """The activations that were replaced by neurons."""
        return tuple(change for change in self.changes if change.neuron is not None)

    @property
    def kept(self) -> tuple[Change, ...]:
        """The activations that were kept."""
        return tuple(change for change in self.changes if change.neuron is None)

    def __str__(self) -> str:
        lines = [f"spikify: {len(self.replaced)} of {len(self.changes)} activations became neurons."]
        lines += grouped(self.replaced, lambda change: f"{change.activation} -> {type(change.neuron).__name__}")
        lines += grouped(self.kept, lambda change: f"{change.activation} stays ({change.reason})")
        thresholds = [change.threshold for change in self.replaced if change.threshold is not None]
        if thresholds:
            lines.append(f"  calibrated thresholds from {min(thresholds):.3g} to {max(thresholds):.3g}")
            never = [change.name for change in self.replaced if change.threshold is None]
            if never:
                lines.append(f"  not calibrated, never positive: {listed(never)}")
        return "\n".join(lines)
