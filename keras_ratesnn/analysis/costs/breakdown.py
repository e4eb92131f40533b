"""The breakdown of energy: operations and memory traffic of a spiking network, and of
the same network without spikes."""

import dataclasses
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from keras_ratesnn._core import checks

_Numbers = TypeVar("_Numbers")

COSTS = "32-bit floats in 45 nm CMOS"
"""The hardware of the default costs."""


@dataclasses.dataclass(frozen=True)
class Costs:
    """The energy of an operation and of a bit of memory traffic. The defaults are those
    of 32-bit floats in 45 nm CMOS.

    Args:
        multiply_add: Float >= 0, joules, of a weight and an activation of
            `activation_bits`. Defaults to `4.6e-12`, 3.7 pJ to multiply and 0.9 pJ to
            add.
        accumulate: Float >= 0, joules: an addition. Defaults to `0.9e-12`.
        memory: Float >= 0, joules to read or write a bit. Defaults to `0.3125e-12`, 20
            pJ for 64 bits of an SRAM of 32 KB. An SRAM of 8 KB takes 10 pJ, one of 1 MB
            100 pJ, and DRAM at least 1300 pJ.
        weight_bits: Integer >= 1. Defaults to `32`.
        membrane_bits: Integer >= 1. Defaults to `32`.
        activation_bits: Integer >= 1, of activations that are no spikes. Defaults to
            `32`.
        skips_zeros: Boolean, whether the hardware of the networks without spikes also
            skips activations that are 0. Defaults to `False`.

    Raises:
        TypeError: If a cost is not a number, a number of bits no integer, or
            `skips_zeros` not a boolean.
        ValueError: If a cost is negative, or a number of bits below 1.

    Source: Horowitz, "Computing's Energy Problem (and what we can do about it)",
    ISSCC 2014.
    """

    multiply_add: float = 4.6e-12
    accumulate: float = 0.9e-12
    memory: float = 20e-12 / 64
    weight_bits: int = 32
    membrane_bits: int = 32
    activation_bits: int = 32
    skips_zeros: bool = False

    def __post_init__(self) -> None:
        for name in ("multiply_add", "accumulate", "memory"):
            checks.real(
                name, getattr(self, name), at_least=0, advice="It is in joules."
            )
        for name in ("weight_bits", "membrane_bits", "activation_bits"):
            checks.positive_integer(name, getattr(self, name))
        checks.boolean("skips_zeros", self.skips_zeros)

    @classmethod
    def int8(cls, **changes: Any) -> "Costs":
        """The costs of integers in 45 nm CMOS: weights and activations of 8 bits, sums
        of 32, membranes of 16.

        Args:
            **changes: Arguments of `Costs` that differ. The others are 0.2 pJ to
                multiply and 0.1 pJ to add, from the same source.
        """
        integers = {
            "multiply_add": 0.3e-12,
            "accumulate": 0.1e-12,
            "weight_bits": 8,
            "membrane_bits": 16,
            "activation_bits": 8,
        }
        return cls(**integers | changes)


class Traffic(NamedTuple, Generic[_Numbers]):
    """The possible additions of the N layers of an `Energy`, and their reads and
    writes: arrays `(N,)`, for one sample.

    Args:
        static: 1 or 0, whether its input is the same at every step, so that the layer
            runs once.
        raw: 1 or 0, whether its inputs are numbers that come before all spikes, or are
            the same at every step.
        runs: How often the layer runs.
        passes: How often it runs in a network without spikes: for each frame if an
            input of the network has time, or once.
        most_accumulates: The additions of a run if each input spiked once; 0 if its
            inputs are no spikes.
        nonzero: The multiply-adds without spikes, in all passes, of inputs that spike
            at least once in the steps of a pass, or that are no spikes.
        weights: The number of weights.
        spikes: The inputs of a run that are spikes.
        values: The inputs of a run that are other numbers.
        outputs: The outputs of a step.
        kept: How often membranes, the sums of outputs, are kept from one step to the
            next.
    """

    static: _Numbers
    raw: _Numbers
    runs: _Numbers
    passes: _Numbers
    most_accumulates: _Numbers
    nonzero: _Numbers
    weights: _Numbers
    spikes: _Numbers
    values: _Numbers
    outputs: _Numbers
    kept: _Numbers


@dataclasses.dataclass(frozen=True, eq=False)
class EnergyBreakdown:
    """The energy of a network for a sample, in joules: arrays `(N,)` for the layers of
    an `Energy`.

    Args:
        operations: The joules of multiply-adds and additions.
        weights: The joules of reading weights.
        membranes: The joules of writing and reading membranes.
        activations: The joules of writing and reading spikes and other inputs of
            layers.
    """

    operations: np.ndarray
    weights: np.ndarray
    membranes: np.ndarray
    activations: np.ndarray

    @property
    def layers(self) -> np.ndarray:
        """The energy of each layer, `(N,)`."""
        return self.operations + self.weights + self.membranes + self.activations

    @property
    def parts(self) -> dict[str, float]:
        """The energy of all layers by name of the part: operations, weights, membranes
        and activations."""
        fields = dataclasses.fields(EnergyBreakdown)
        return {field.name: float(getattr(self, field.name).sum()) for field in fields}

    @property
    def memory(self) -> float:
        """The energy of all layers for memory."""
        return self.total - self.parts["operations"]

    @property
    def total(self) -> float:
        """The energy of all layers."""
        return float(self.layers.sum())


@dataclasses.dataclass(frozen=True, eq=False)
class DenseNetwork(EnergyBreakdown):
    """The energy of the dense network, without spikes and time, and when spiking spends
    less.

    Args:
        operations: Array `(N,)`, the joules of multiply-adds and additions.
        weights: Array `(N,)`, the joules of reading weights.
        membranes: Array `(N,)`, zeros: there are none.
        activations: Array `(N,)`, the joules of writing and reading the inputs of
            layers.
        activation_bits: Integer, the bits of an activation.
        crossovers: Array `(N,)`: the firing rate of the inputs of each layer below
            which spiking spends less; NaN if they are no spikes.
        crossover: Float, the same for the whole network, if the rates of all layers
            change by one factor.
    """

    activation_bits: int
    crossovers: np.ndarray
    crossover: float


def spiking_breakdown(
    operations: np.ndarray,
    accumulates: np.ndarray,
    traffic: Traffic[np.ndarray],
    levels: int,
    costs: Costs,
) -> EnergyBreakdown:
    """The breakdown of a spiking network, given the joules of its operations, its
    additions, and the most spikes in a step.

    A layer of spikes reads a weight for each addition, or all weights once in each run
    if that is less. Sums stay in registers within a step, and are written and read as
    membranes between two. A spike takes a bit, written once and read once.
    """
    most = traffic.weights * traffic.runs
    read = np.where(traffic.most_accumulates > 0, np.minimum(accumulates, most), most)
    activations = levels * traffic.spikes + costs.activation_bits * traffic.values
    membranes = 2 * traffic.outputs * traffic.kept
    return EnergyBreakdown(
        operations,
        weights=read * costs.weight_bits * costs.memory,
        membranes=membranes * costs.membrane_bits * costs.memory,
        activations=2 * activations * traffic.runs * costs.memory,
    )


def dense_network(
    bits: int,
    multiply_adds: np.ndarray,
    spiking: EnergyBreakdown,
    accumulates: np.ndarray,
    traffic: Traffic[np.ndarray],
    costs: Costs,
) -> DenseNetwork:
    """The `DenseNetwork` with activations of this many bits, given its multiply-adds,
    and the breakdown and additions of the spiking network.

    In a pass it reads each weight once and keeps sums in registers. The energy to
    multiply is in proportion to the bits of an activation. What the network does not
    have without time, such as spikes that come back, costs it nothing.
    """
    widths = np.where(traffic.raw, costs.activation_bits, bits)
    multiplied = traffic.nonzero if costs.skips_zeros else multiply_adds
    multiply = (costs.multiply_add - costs.accumulate) * widths / costs.activation_bits
    exists = multiply_adds > 0
    weights = np.minimum(multiplied, traffic.weights * traffic.passes)
    activations = 2 * (traffic.spikes + traffic.values) * traffic.passes
    breakdown = EnergyBreakdown(
        operations=multiplied * (costs.accumulate + multiply),
        weights=exists * weights * costs.weight_bits * costs.memory,
        membranes=np.zeros(len(exists)),
        activations=exists * activations * widths * costs.memory,
    )
    takes_spikes = traffic.most_accumulates > 0
    added = np.where(takes_spikes, accumulates * costs.accumulate + spiking.weights, 0)
    # What a layer may spend on additions and their weights, until it spends as much as
    # the dense network.
    budgets = breakdown.layers - (spiking.layers - added)
    at_rate_1 = traffic.most_accumulates * traffic.runs
    most_read = traffic.weights * traffic.runs
    crossovers = np.full(len(exists), np.nan)
    for index in np.flatnonzero(takes_spikes):
        layer = [index]
        crossovers[index] = _crossing(
            at_rate_1[layer], most_read[layer], budgets[index], costs
        )
    crossover = np.nan
    if takes_spikes.any():
        rate = firing_rate(accumulates, traffic)
        # The rates of a silent network have no factor: those of all layers are then the
        # same.
        additions, unit = (accumulates, rate) if rate > 0 else (at_rate_1, 1.0)
        crossover = unit * _crossing(
            additions[takes_spikes], most_read[takes_spikes], budgets.sum(), costs
        )
    return DenseNetwork(
        **vars(breakdown),
        activation_bits=bits,
        crossovers=crossovers,
        crossover=float(crossover),
    )


def firing_rate(accumulates: np.ndarray, traffic: Traffic[np.ndarray]) -> float:
    """The spikes that come to a synapse in a step, a mean over all synapses of layers
    of spikes; NaN if there are none."""
    most = (traffic.most_accumulates * traffic.runs).sum()
    additions = accumulates[traffic.most_accumulates > 0].sum()
    return float(additions / most) if most else np.nan


def _crossing(additions, most_read, budget, costs):
    """The factor of the additions of layers at which these and the weights that they
    read spend the budget.

    Up to the factor `most_read / additions` of a layer each addition reads a weight. So
    what they spend is linear in the factor between these, and its slope gets smaller.
    """
    if budget <= 0:
        return 0.0
    additions, most_read = additions[additions > 0], most_read[additions > 0]
    ends, adding = most_read / additions, additions.sum() * costs.accumulate
    begin, spent = 0.0, 0.0
    for end in np.sort(ends):
        reading = additions[ends >= end].sum() * costs.weight_bits * costs.memory
        slope = adding + reading
        if spent + slope * (end - begin) >= budget:
            return begin + (budget - spent) / slope
        begin, spent = end, spent + slope * (end - begin)
    return begin + (budget - spent) / adding if adding else np.inf
