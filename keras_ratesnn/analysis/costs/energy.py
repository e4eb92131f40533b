"""The energy of a prediction on hardware that adds a weight for each spike: operations
and joules of each layer."""

import dataclasses
from typing import Any

import numpy as np

from keras_ratesnn._core import checks
from keras_ratesnn._core.annotations import Structure
from keras_ratesnn._model.silence_causes import any_nan, origin_of_nan
from keras_ratesnn.analysis import _figures, _observation, _text
from keras_ratesnn.analysis.costs import breakdown
from keras_ratesnn.analysis.costs._counter import OperationCounter
from keras_ratesnn.analysis.costs._integer_counter import counter_of_integers
from keras_ratesnn.analysis.costs.breakdown import (
    Costs,
    DenseNetwork,
    EnergyBreakdown,
    Traffic,
)
from keras_ratesnn.integers import IntegerModel
from keras_ratesnn.spiking_model import SpikingModel, checked_model


@dataclasses.dataclass(frozen=True, eq=False)
class Energy:
    """The result of `energy`; it can be printed. All numbers are those of one sample, a
    mean over the batch.

    The dense network is the same one without spikes and time, `dense`, or with narrow
    activations, `quantized`. It runs once, or for each frame if an input has time.

    Args:
        timesteps: Integer T.
        layers: Tuple of strings, the N layers and products that are counted, in
            execution order, with one entry for each call.
        multiply_adds: Array `(N,)`: the multiply-adds over all steps.
        accumulates: Array `(N,)`: the additions for spikes over all steps.
        dense_multiply_adds: Array `(N,)`: the multiply-adds of the same layer
            in a network without spikes, over all its passes.
        not_counted: Tuple of strings, the layers with weights whose operations are not
            known.
        costs: `Costs`.
        levels: Integer D, the most spikes of a neuron in a step.
        traffic: `Traffic`, what layers read and write.
    """

    timesteps: int
    layers: tuple[str, ...]
    multiply_adds: np.ndarray
    accumulates: np.ndarray
    dense_multiply_adds: np.ndarray
    not_counted: tuple[str, ...]
    costs: Costs
    levels: int
    traffic: Traffic[np.ndarray]

    @property
    def joules(self) -> np.ndarray:
        """The energy of each layer, `(N,)`, with memory."""
        return self.spiking.layers

    @property
    def quantized_joules(self) -> np.ndarray:
        """The energy of each layer of the network `quantized`, `(N,)`, with memory."""
        return self.quantized.layers

    @property
    def total(self) -> float:
        """The energy of all layers, with memory, in joules."""
        return self.spiking.total

    @property
    def quantized_total(self) -> float:
        """The energy of all layers of the network `quantized`, with memory."""
        return self.quantized.total

    @property
    def firing_rates(self) -> np.ndarray:
        """Spikes for each input of a layer and step, `(N,)`, each input weighted by its
        synapses; NaN if they are no spikes."""
        most = self.traffic.most_accumulates * self.traffic.runs
        return np.divide(
            self.accumulates, most, out=np.full(len(most), np.nan), where=most > 0
        )

    @property
    def firing_rate(self) -> float:
        """The mean of the firing rates over all synapses that take spikes; NaN if none
        does."""
        return breakdown.firing_rate(self.accumulates, self.traffic)

    @property
    def spiking(self) -> EnergyBreakdown:
        """The energy of operations and memory."""
        operations = (
            self.multiply_adds * self.costs.multiply_add
            + self.accumulates * self.costs.accumulate
        )
        return breakdown.spiking_breakdown(
            operations, self.accumulates, self.traffic, self.levels, self.costs
        )

    @property
    def dense(self) -> DenseNetwork:
        """The energy of the dense network, with the activations of the `costs`."""
        return self._dense_network(self.costs.activation_bits)

    @property
    def quantized(self) -> DenseNetwork:
        """The energy of the dense network, with activations of ⌈log2(T D + 1)⌉ bits,
        which hold the spikes of all steps."""
        return self._dense_network((self.timesteps * self.levels).bit_length())

    def _dense_network(self, bits):
        return breakdown.dense_network(
            bits,
            self.dense_multiply_adds,
            self.spiking,
            self.accumulates,
            self.traffic,
            self.costs,
        )

    @property
    def totals(self) -> str:
        """The energy of all layers, with memory, with spikes and without, in words."""
        quantized, dense = self.quantized, self.dense
        passes = self.traffic.passes.max(initial=1)
        often = "one pass" if passes == 1 else f"{passes:.3g} passes"
        return (
            f"{_text.joules(self.total)} with spikes, T = {self.timesteps}; without "
            f"spikes, in {often}, "
            f"{_text.joules(quantized.total)} with {quantized.activation_bits}-bit "
            f"activations, {_text.joules(dense.total)} with {dense.activation_bits}-bit"
        )

    @property
    def verdict(self) -> str:
        """The answer to whether spiking saves energy, in words."""
        spent, quantized, dense = self.spiking.total, self.quantized, self.dense
        if not quantized.total:
            return "No layer is counted that a network without spikes has."
        first = (
            f"Spiking {'wins' if spent < quantized.total else 'loses'}: it spends "
            f"{spent / quantized.total:.3g} of what the "
            f"{quantized.activation_bits}-bit network without spikes spends, and "
            f"{spent / dense.total:.3g} of the {dense.activation_bits}-bit one."
        )
        if np.isnan(quantized.crossover):
            return f"{first} No layer that is counted takes spikes."
        return (
            f"{first} It wins {self.wins(quantized)}; this network fires at "
            f"{self.firing_rate:.1%}, where 100% is a spike of each neuron at each "
            "step."
        )

    def wins(self, dense: DenseNetwork) -> str:
        """The firing rates at which spiking spends less than a dense network, in
        words."""
        if np.isnan(dense.crossover):
            return "nowhere, as no layer that is counted takes spikes"
        if dense.crossover == 0:
            return "at no firing rate"
        if dense.crossover >= self.levels:
            return "at any firing rate"
        return f"below a firing rate of {dense.crossover:.1%}"

    def __str__(self) -> str:
        spiking, quantized, dense = self.spiking, self.quantized, self.dense
        wide, narrow = dense.activation_bits, quantized.activation_bits
        numbers = zip(
            (*self.layers, "all"),
            (*spiking.layers, spiking.total),
            (*dense.layers, dense.total),
            (*quantized.layers, quantized.total),
            (*self.firing_rates, self.firing_rate),
            (*quantized.crossovers, quantized.crossover),
            strict=True,
        )
        rows = []
        for name, spent, by_dense, by_quantized, rate, below in numbers:
            joules = [_text.joules(value) for value in (spent, by_dense, by_quantized)]
            share = f"{spent / by_quantized:.3g}" if by_quantized else ""
            wins_below = "any" if below >= self.levels else _text.percent(below)
            rows.append([name, *joules, share, _text.percent(rate), wins_below])
        compared = f"{wide}-bit", f"{narrow}-bit", f"of the {narrow}-bit"
        columns = ["layer", "with spikes", *compared, "firing rate", "wins below"]
        parts = [
            f"{name} {_text.joules(joules)}" for name, joules in spiking.parts.items()
        ]
        lines = [
            f"Energy of a sample: {self.totals}",
            *_text.table(columns, rows, left=1),
        ]
        lines.append(f"With spikes: {', '.join(parts)}.")
        if self.not_counted:
            lines.append(f"Not counted: {', '.join(self.not_counted)}")
        return "\n".join([*lines, self.verdict])

    def plot(self) -> Any:
        """Draws what each layer spends on operations and memory, beside what the same
        layer spends without spikes.

        Returns:
            A `matplotlib.figure.Figure`.

        Raises:
            ImportError: If Matplotlib is not installed.
        """
        count, width = len(self.layers), 0.27
        figure, axes = _figures.new_figure(_figures.width_for(count) + 1, 3.8)
        positions, below = np.arange(count), np.zeros(count)
        style = {"width": width, "edgecolor": "black"}
        spent = vars(self.spiking)
        for index, (name, joules) in enumerate(spent.items()):
            axes.bar(
                positions - width,
                joules * 1e6,
                bottom=below,
                color=_figures.shade(index, len(spent)),
                label=name,
                **style,
            )
            below = below + joules * 1e6
        dense_networks = (
            (self.quantized, "///", positions),
            (
                self.dense,
                "xxx",
                positions + width,
            ),
        )
        for dense, hatch, middles in dense_networks:
            axes.bar(
                middles,
                dense.layers * 1e6,
                color="white",
                hatch=hatch,
                label=f"without spikes, {dense.activation_bits} bits",
                **style,
            )
        axes.margins(y=0.1)
        axes.set_ylim(bottom=0)
        axes.set_ylabel("µJ a sample")
        axes.set_title(self.totals.replace("; ", "\n"), fontsize="small")
        _figures.name_layers(axes, self.layers)
        axes.legend(fontsize="small")
        return figure


def energy(
    model: SpikingModel | IntegerModel, x: Structure, costs: Costs | None = None
) -> Energy:
    """Estimates the energy of a prediction from the operations of its layers, with and
    without spikes.

    An addition is counted for each spike and each synapse that it feeds. Inputs that
    change over time count as spikes if all values other than 0 are equal, because such
    a scale can be multiplied into the weights. In a network whose neurons have integer
    spikes, inputs that are integers, in units of one spike, count as that many spikes,
    but for products of such. A layer whose inputs have more values, such as averages of
    several spikes, takes a multiply-add for each synapse and step, even if the input
    is 0. A layer whose input is the same at every step, such as an image, takes its
    multiply-adds once, and in an unrolled network (see `keras_ratesnn.deploy.unroll`)
    any layer takes them once in all substeps of a step. In the network without spikes
    and time, each layer takes its multiply-adds once, or for each frame if an input has
    time. The padding of a convolution takes multiply-adds, but no additions.

    Counted are Dense, einsum and convolution layers, also the one in `Recurrent` that
    spikes come back by, which adds from the second step on. Parallel neurons take a
    multiply-add for each input of a step that reaches a membrane. A matrix product of
    two signals (`keras.ops.matmul`, in attention) takes an addition for each spike of
    its first factor, or else of its second, and each value other than 0 that it meets
    there; a sum (`keras.ops.sum`) one for each spike. Without spikes both take
    operations for all values, in each step.

    Breakdowns add the energy to read weights, and to write and read membranes, spikes
    and activations, for this network (`Energy.spiking`) and for the same network
    without spikes in two precisions (`Energy.quantized`, `Energy.dense`).
    `Energy.verdict` says which spends less, and below which firing rate spiking does.

    Not counted are biases, the steps of other neurons, delays, pooling, element-wise
    operations, other products (`keras.ops.einsum`, `keras.layers.Dot`), and
    normalisation, which in inference can be multiplied into the weights. For a layer
    with several kernels, like a separable convolution, all operations count as
    multiply-adds. The model runs in inference mode and is not changed.

    Example:

    >>> inputs = keras.Input((4,))
    >>> x = keras_ratesnn.layers.IF()(
    ...     keras.layers.Dense(8, kernel_initializer="ones", name="hidden")(inputs)
    ... )
    >>> model = keras_ratesnn.SpikingModel(
    ...     keras.Model(inputs, keras.layers.Dense(2, name="outputs")(x)), timesteps=4
    ... )
    >>> found = energy(model, np.full((16, 4), 0.125, "float32"))
    >>> found.layers, found.multiply_adds.tolist(), found.accumulates.tolist()
    (('hidden', 'outputs'), [32.0, 0.0], [0.0, 32.0])
    >>> print(found.verdict)
    Spiking loses: it spends 2.04 of what the 3-bit network without spikes spends, and
    1.61 of the 32-bit one. It wins at no firing rate; this network fires at 50.0%,
    where 100% is a spike of each neuron at each step.

    Args:
        model: A `SpikingModel`, or an `IntegerModel`.
        x: A batch of inputs, as for `model.predict`. It is processed as one batch.
        costs: `Costs` of an operation. Defaults to `None`, those of 32-bit floats in 45
            nm CMOS.

    Returns:
        `Energy`.

    Raises:
        TypeError: If `model` is neither, or `costs` are not `Costs`.
        ValueError: If `x` does not fit the model, has no samples, or the outputs for it
            are NaN.
    """
    if isinstance(model, IntegerModel):
        outputs = model.layer_outputs(x)
        return energy_of(counter_of_integers(model, outputs, np.asarray(x)), costs)
    x = _observation.tensors(checked_model(model), x)
    counter = OperationCounter.for_batch(model, x)
    if any_nan(_observation.observed(model, x, counter)):
        raise ValueError(
            "`x` must have outputs that are numbers, not NaN. "
            f"{origin_of_nan(model, x)}"
        )
    return energy_of(counter, costs)


def energy_of(counter: OperationCounter, costs: Costs | None = None) -> Energy:
    """The `Energy` of what was counted."""
    if not (costs is None or isinstance(costs, Costs)):
        raise checks.wrong_type(
            "costs",
            "Costs, for example Costs(multiply_add=4.6e-12, accumulate=0.9e-12)",
            costs,
        )
    operations = np.array([call[:-1] for call in counter.calls], "float64")
    dense, multiply_adds, accumulates = operations.reshape(-1, 3).T
    reads = np.array([call.traffic for call in counter.calls], "float64")
    traffic = Traffic(*reads.reshape(-1, len(Traffic._fields)).T)
    return Energy(
        timesteps=counter.timesteps,
        layers=tuple(counter.names.all),
        multiply_adds=multiply_adds,
        accumulates=accumulates,
        dense_multiply_adds=dense * traffic.passes,
        not_counted=tuple(dict.fromkeys(counter.not_counted)),
        costs=costs or Costs(),
        levels=counter.levels,
        traffic=traffic,
    )
