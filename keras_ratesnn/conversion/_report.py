"""The reports of `spikify` and `fold_batch_normalization`: what was changed, and what
was kept and why."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

from keras_ratesnn._core.names import listed
from keras_ratesnn.layers import Neuron

_NEGATIVE = {
    "tanh",
    "hard_tanh",
    "tanh_shrink",
    "softsign",
    "soft_sign",
    "soft_shrink",
    "hard_shrink",
    "log_sigmoid",
    "leaky_relu",
    "prelu",
    "elu",
    "selu",
    "celu",
}
"""Activations with large negative values; those of gelu, silu and others like relu are
small."""

_POSITIVE = {
    "exponential",
    "hard_sigmoid",
    "sigmoid",
    "softplus",
    "sparse_plus",
    "sparse_sigmoid",
    "squareplus",
}
"""Activations that are positive where their input is 0."""

_DIFFERENCES: dict[str, Callable[[str], bool]] = {
    "negative values of {0.activation} are lost, for which neurons do not spike": (
        lambda name: name in _NEGATIVE or "negative_slope" in name
    ),
    "values of {0.activation} for inputs of 0 and less are lost": (
        lambda name: name in _POSITIVE
    ),
    "neurons spike also below the threshold of {0.activation}": (
        lambda name: "threshold" in name
    ),
}
"""Texts about what neurons do in another way, to functions that say whether this holds
for an activation of a name."""


@dataclasses.dataclass(frozen=True)
class Change:
    """The conversion of one activation.

    Args:
        name: String, the name of the layer or operation, after those of the layers and
            models that hold it: `block/dense`.
        activation: String, the name of its activation function, of a ReLU with the
            arguments by which it differs from relu.
        neuron: The `Neuron` that replaces it, or `None`.
        reason: String, why it is kept; empty if it is replaced.
        threshold: Float, the calibrated threshold θ, in the units of the activation;
            `None` without calibration, or if the activation was never positive.
    """

    name: str
    activation: str
    neuron: Neuron | None = None
    reason: str = ""
    threshold: float | None = None


@dataclasses.dataclass(frozen=True)
class Fold:
    """The result for one batch normalisation.

    Args:
        name: String, the name of the layer.
        into: String, the name of the layer into which it was folded; empty if it is
            kept.
        reason: String, why it is kept; empty if it was folded.
    """

    name: str
    into: str = ""
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class _PrintedReport:
    """The changes of a network; it can be printed.

    Args:
        changes: Tuple of `Change` or `Fold`.
    """

    changes: tuple[Any, ...]

    @property
    def kept(self) -> tuple[Any, ...]:
        """The changes that kept a layer."""
        return tuple(change for change in self.changes if change.reason)

    @property
    def _changed(self):
        return tuple(change for change in self.changes if not change.reason)


@dataclasses.dataclass(frozen=True)
class ConversionReport(_PrintedReport):
    """The changes that `spikify` made, one for each activation of the network.

    Args:
        calibrated: Boolean, whether thresholds were measured. Defaults to `False`.
        nonlinear: Tuple of strings, the names of operations that are not linear in
            spikes, if there are several steps. Defaults to none.
    """

    calibrated: bool = False
    nonlinear: tuple[str, ...] = ()

    @property
    def replaced(self) -> tuple[Change, ...]:
        """The activations that were replaced by neurons."""
        return self._changed

    def __str__(self) -> str:
        lines = [
            f"spikify: {len(self.replaced)} of {len(self.changes)} activations became "
            "neurons."
        ]
        lines += _grouped(
            self.replaced, "{0.activation} -> {0.neuron.__class__.__name__}"
        )
        lines += _grouped(self.kept, "{0.activation} stays ({0.reason})")
        for label, is_different in _DIFFERENCES.items():
            different = [
                change for change in self.replaced if is_different(change.activation)
            ]
            lines += _grouped(different, label)
        thresholds = [
            change.threshold for change in self.replaced if change.threshold is not None
        ]
        if self.nonlinear and thresholds:
            names = listed(self.nonlinear)
            lines.append(
                "  not linear in the spikes of a step, so that outputs differ more "
                f"than by rounding: {names}"
            )
        if thresholds:
            lines.append(
                f"  calibrated thresholds from {min(thresholds):.3g} to "
                f"{max(thresholds):.3g}"
            )
        never = [change.name for change in self.replaced if change.threshold is None]
        if never and self.calibrated:
            lines.append(f"  not calibrated, never positive: {listed(never)}")
        elif never:
            lines.append(
                "  not calibrated: train the network, or pass calibrate=, a batch of "
                "inputs, if its weights are trained"
            )
        return "\n".join(lines)


class FoldReport(_PrintedReport):
    """The results of `fold_batch_normalization`, one for each batch normalisation of
    the network."""

    @property
    def folded(self) -> tuple[Fold, ...]:
        """The batch normalisations that are gone."""
        return self._changed

    def __str__(self) -> str:
        first = (
            f"fold_batch_normalization: {len(self.folded)} of {len(self.changes)} "
            "batch normalisations were folded."
        )
        return "\n".join([first, *_grouped(self.kept, "stays ({0.reason})")])


def _grouped(changes: Iterable[Any], label: str) -> list[str]:
    """One line for each label of changes, with their names."""
    groups: dict[str, list[str]] = {}
    for change in changes:
        groups.setdefault(label.format(change), []).append(change.name)
    return [f"  {text}: {listed(names)}" for text, names in groups.items()]
