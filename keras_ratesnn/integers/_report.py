"""The report about the layers of a model as a network of integers."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class LayerReport:
    """A layer of integers with weights, neurons or logits.

    Args:
        name: String.
        kind: String, see `IntegerLayer`.
        weights: String, `"int8"`, `"int4"` or `"ternary"`; `None` if there are none.
            Defaults to `None`.
        f: Integer, the shift of the current; `None` if there is none. Defaults to
            `None`.
        shift: List of integers, the shifts of several currents; `None` if there are
            none. Defaults to `None`.
        thresholds: Pair of integers, the smallest and the largest threshold. Defaults
            to `None`.
        headroom: Float, the largest membrane divided by the largest threshold times the
            levels. Defaults to `None`.
        silent: Integer, the number of channels whose current is so small beside their
            threshold that only the bias is kept. Defaults to `0`.
    """

    name: str
    kind: str
    weights: str | None = None
    f: int | None = None
    shift: list[int] | None = None
    thresholds: tuple[int, int] | None = None
    headroom: float | None = None
    silent: int = 0

    def __str__(self) -> str:
        if self.weights is not None:
            return f"{self.name}: {self.weights} weights"
        shift = (
            f"currents · 2^{self.f}"
            if self.shift is None
            else f"several currents, ≫ {', '.join(map(str, self.shift))}"
        )
        if self.thresholds is None:
            return f"{self.name}: {shift}"
        least, largest = self.thresholds
        clipped = f", {self.silent} channels with a bias only" if self.silent else ""
        return (
            f"{self.name}: {shift}, thresholds {least} to {largest}, headroom "
            f"{self.headroom:.1f}{clipped}"
        )


@dataclasses.dataclass(frozen=True)
class IntegerReport:
    """The results of `to_integers` for a model; it can be printed.

    Args:
        layers: Tuple of `LayerReport`, in execution order.
        timesteps: Integer T.
        membrane_bits: Integer.
    """

    layers: tuple[LayerReport, ...]
    timesteps: int
    membrane_bits: int

    def __str__(self) -> str:
        first = (
            f"to_integers: {self.timesteps} time steps, membranes of "
            f"{self.membrane_bits} bits."
        )
        return "\n".join([first, *(f"  {layer}" for layer in self.layers)])
