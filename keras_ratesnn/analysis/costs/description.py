"""Firing rates and cost of a spiking model on a batch of data: a table with advice."""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

from keras_ratesnn import _graph
from keras_ratesnn._core import checks
from keras_ratesnn._core.annotations import Structure
from keras_ratesnn._model import silence_causes
from keras_ratesnn.analysis import _observation, _text
from keras_ratesnn.analysis.costs._counter import OperationCounter
from keras_ratesnn.analysis.costs._integer_counter import counter_of_integers
from keras_ratesnn.analysis.costs.breakdown import COSTS
from keras_ratesnn.analysis.costs.energy import Energy, energy_of
from keras_ratesnn.integers import IntegerModel
from keras_ratesnn.spiking_model import SpikingModel, checked_model

NEARLY_ALL = 0.95
"""A layer with at least this fraction of silent, or of saturated, neurons gets a
warning."""

MANY = 0.25
"""A layer with at least this fraction of saturated neurons gets a milder warning."""


_COLUMNS = {
    "neuron layer": "{0.name}",
    "output shape": "{0.output_shape}",
    "neurons": "{0.neurons:,}",
    "firing rate": "{0.firing_rate:.4f}",
    "silent": "{0.silent:.1%}",
    "saturated": "{0.saturated:.1%}",
}
"""The columns of the table, and what they show of a `NeuronLayer`."""


@dataclasses.dataclass(frozen=True)
class NeuronLayer:
    """The activity of a neuron layer on a batch.

    Args:
        name: String, the name of the layer, after those of the nested models that hold
            it: `block/lif`.
        output_shape: Tuple, the shape of its output without batch and time.
        firing_rate: Float, spikes per neuron and time step; above 1 if neurons spike
            several times in a step.
        silent: Float, the fraction of neurons that never spiked, for any sample at any
            step.
        saturated: Float, the fraction of neurons that spiked for every sample at every
            step, as often as they can.
    """

    name: str
    output_shape: tuple[int, ...]
    firing_rate: float
    silent: float
    saturated: float

    @property
    def neurons(self) -> int:
        return math.prod(self.output_shape)


@dataclasses.dataclass(frozen=True)
class Description:
    """The result of `describe`; it can be printed.

    Args:
        name: String, the name of the model.
        samples: Integer, the size of the batch.
        timesteps: Integer T.
        layers: Tuple of `NeuronLayer`, in execution order, with one entry for each call
            of a layer.
        parameters: Integer, the number of trainable parameters.
        energy: `keras_ratesnn.analysis.Energy`: operations and joules per sample of
            each layer with synapses.
        normalized: Boolean, whether batch normalisation is right before the first dead
            layer. Defaults to `False`.
        nan: String, which currents or outputs are NaN or infinite, and why. Defaults to
            `""`: none.
    """

    name: str
    samples: int
    timesteps: int
    layers: tuple[NeuronLayer, ...]
    parameters: int
    energy: Energy
    normalized: bool = False
    nan: str = ""

    @property
    def synaptic_operations(self) -> float:
        """Additions per sample: the sum, over all steps and spikes, of the synapses
        that a spike feeds."""
        return float(self.energy.accumulates.sum())

    @property
    def first_multiply_adds(self) -> float:
        """Multiply-adds per sample of the layers that see the same input at every step
        and run once."""
        return float(self.energy.multiply_adds[self.energy.traffic.static > 0].sum())

    @property
    def dense_multiply_adds(self) -> float:
        """Multiply-adds per sample of the same network without spikes."""
        return float(self.energy.dense_multiply_adds.sum())

    @property
    def not_counted(self) -> tuple[str, ...]:
        """Names of layers with weights whose operations are not counted."""
        return self.energy.not_counted

    @property
    def dead(self) -> tuple[NeuronLayer, ...]:
        """The layers in which no neuron spiked."""
        return tuple(layer for layer in self.layers if layer.firing_rate == 0)

    @property
    def remedy(self) -> str:
        """The remedy for dead layers: their currents are NaN, moving statistics have
        not settled, or currents are too small."""
        if self.nan:
            return self.nan
        if self.normalized:
            return (
                "A BatchNormalization is before the first dead layer: its moving "
                "statistics may not have settled yet. Train for more steps, or create "
                "it with momentum=0.9. If that does not help: lower the threshold of "
                "the layer, use neurons that leak less, or use more time steps."
            )
        return (
            "For the first dead layer: lower its threshold, put a "
            "BatchNormalization before it, start from larger weights, scale up the "
            "inputs, use neurons that leak less, or use more time steps; spikify(..., "
            "calibrate=data) sets thresholds from data."
        )

    @property
    def warnings(self) -> list[str]:
        """Problems that the batch shows, with advice: a list of strings."""
        problems = []
        almost = [
            layer
            for layer in self.layers
            if layer.silent >= NEARLY_ALL and layer.firing_rate > 0
        ]
        if self.nan:
            problems.append(f"NaN: {self.remedy}")
        elif self.dead:
            problems.append(
                f"DEAD: no neuron spikes in {names_of(self.dead)}. The kernels that "
                "follow have a gradient of exactly zero, and the output does not "
                f"depend on earlier layers. {self.remedy}"
            )
        if almost and not self.nan:
            problems.append(
                f"ALMOST DEAD: at least {NEARLY_ALL:.0%} of the neurons never spike in "
                f"{names_of(almost)}. Try what helps dead layers, or a larger batch "
                "here if this one is small."
            )
        saturated = [layer for layer in self.layers if layer.saturated >= NEARLY_ALL]
        if saturated:
            problems.append(
                f"SATURATED: at least {NEARLY_ALL:.0%} of the neurons spike at every "
                f"step, as often as they can, in {names_of(saturated)}. They carry no "
                "information about the input: raise the threshold, put a "
                "BatchNormalization before them, or lower the learning rate. Are the "
                "inputs scaled? Pixels up to 255 need keras.layers.Rescaling(1 / 255)."
            )
        many = [layer for layer in self.layers if MANY <= layer.saturated < NEARLY_ALL]
        if many:
            problems.append(
                f"MANY SATURATED: at least {MANY:.0%} of the neurons spike at every "
                f"step, as often as they can, in {names_of(many)}. Are the inputs "
                "scaled? Pixels up to 255 need keras.layers.Rescaling(1 / 255). Try "
                "what helps saturated layers, a higher threshold or a "
                "BatchNormalization, or a larger batch here if this one is small."
            )
        return problems

    def __str__(self) -> str:
        lines = [
            f"{self.name}: {self.samples} samples, {self.timesteps} time steps",
            *activity_table(self.layers),
        ]
        lines.append(f"Trainable parameters: {self.parameters:,}")
        lines.append(
            f"A sample takes {self.synaptic_operations:,.0f} synaptic operations and "
            f"{self.energy.multiply_adds.sum():,.0f} multiply-adds; without spikes the "
            f"network takes {self.dense_multiply_adds:,.0f} multiply-adds."
        )
        lines.append(
            f"Energy of a sample, by the costs of {COSTS}: {self.energy.totals}."
        )
        lines.append(self.energy.verdict)
        if self.not_counted:
            lines.append(f"Not counted: {', '.join(self.not_counted)}")
        return "\n".join([*lines, *self.warnings])


def activity_table(layers: Iterable[NeuronLayer]) -> list[str]:
    """Lines of a table of the activity of layers."""
    rows = []
    for layer in layers:
        rows.append([form.format(layer) for form in _COLUMNS.values()])
    return _text.table(list(_COLUMNS), rows, left=2)


def describe(
    model: SpikingModel | IntegerModel, x: Structure, verbose: bool = True
) -> Description:
    """Describes the activity of a model's neurons on a batch of data, and its
    computational cost.

    If a model does not learn, the reason is nearly always a layer whose neurons never
    spike. The table shows such layers, and a warning names them. The model runs in
    inference mode and is not changed.

    A synaptic operation is the addition of a weight for a spike: each spike counts once
    for each synapse that it feeds. Inputs that are no spikes (real frames, an average
    of spikes, a normalised sum) take multiply-adds. The numbers, and the energy with
    memory, are those of `keras_ratesnn.analysis.energy`, which says what is counted.

    Example:

    >>> network = keras.Sequential(
    ...     [
    ...         keras.Input((4,)),
    ...         keras.layers.Dense(8, kernel_initializer="ones", name="hidden"),
    ...         keras_ratesnn.layers.IF(name="neurons"),
    ...         keras.layers.Dense(2, name="outputs"),
    ...     ]
    ... )
    >>> model = keras_ratesnn.SpikingModel(network, timesteps=4, name="tiny")
    >>> description = keras_ratesnn.describe(model, np.full((16, 4), 0.125, "float32"))
    tiny: 16 samples, 4 time steps
    neuron layer  output shape  neurons  firing rate  silent  saturated
    -------------------------------------------------------------------
    neurons       (8,)                8       0.5000    0.0%       0.0%
    Trainable parameters: 58
    A sample takes 32 synaptic operations and 32 multiply-adds; without spikes the
    network takes 48 multiply-adds.
    Energy of a sample, by the costs of 32-bit floats in 45 nm CMOS: 1.52 nJ with
    spikes, T = 4; without spikes, in one pass, 742 pJ with 3-bit activations, 941 pJ
    with 32-bit.
    Spiking loses: it spends 2.04 of what the 3-bit network without spikes spends, and
    1.61 of the 32-bit one. It wins at no firing rate; this network fires at 50.0%,
    where 100% is a spike of each neuron at each step.
    >>> description.layers[0].firing_rate
    0.5

    Args:
        model: A `SpikingModel`, or an `IntegerModel`, which has no trainable
            parameters.
        x: A batch of inputs, as for `model.predict`. It is processed as one batch.
        verbose: Boolean, whether the description is printed. Defaults to `True`.

    Returns:
        A `Description`.

    Raises:
        TypeError: If `model` is neither, or `verbose` not a boolean.
        ValueError: If `x` does not fit the model or has no samples.
    """
    checks.boolean("verbose", verbose)
    if isinstance(model, IntegerModel):
        counter, layers, facts = _counted_integers(model, x)
    else:
        counter, layers, facts = _counted(model, x)
    description = Description(
        name=model.name,
        samples=_observation.samples(x),
        timesteps=model.timesteps,
        layers=tuple(layers),
        parameters=sum(
            math.prod(variable.shape) for variable in model.trainable_variables
        ),
        energy=energy_of(counter),
        **facts,
    )
    if verbose:
        print(description)
    return description


def _counted_integers(model, x):
    """The counter of a network of integers after a batch, the activity of its neurons,
    and what else a `Description` has."""
    outputs = model.layer_outputs(x)
    activities = []
    for layer in model.network.layers:
        if layer.kind == "neurons":
            spikes = outputs[layer.name].reshape(-1, *layer.shape).astype("float32")
            activities.append(_activity(layer.name, spikes, layer.largest))
    return counter_of_integers(model, outputs, np.asarray(x)), activities, {}


def _counted(model, x):
    """The counter of a `SpikingModel` after a batch, the activity of its neurons, and
    what else a `Description` has."""
    x = _observation.tensors(checked_model(model), x)
    layers: list[NeuronLayer] = []
    dead: list[keras.Operation] = []
    broken: list[str] = []
    counter = OperationCounter.for_batch(model, x)
    paths = _graph.paths_of(model.network)

    def observe(call, outputs):
        if _observation.is_neuron(call):
            name = paths[call.operation]
            for signal in call.signals:
                if not np.isfinite(_observation.array(signal.value)).all():
                    broken.append(f"the currents of {name} are NaN or infinite")
            by_sample = _observation.spikes(call, outputs, model.timesteps)
            rows = by_sample.reshape(-1, *by_sample.shape[2:])
            spikes = _observation.without_padding(rows, counter.counts)
            layers.append(_activity(name, spikes, call.operation.cell.levels))
            dead.extend([] if spikes.any() else [call.operation])
        return counter(call, outputs)

    outputs = _observation.observed(model, x, observe, programs={})
    if silence_causes.any_nan(outputs):
        broken.append("the outputs are NaN")
    facts: dict[str, Any] = {}
    if dead:
        normalized = silence_causes.normalized_neurons(model.network)
        facts["normalized"] = dead[0] in normalized
    if broken:
        facts["nan"] = f"{broken[0]}. {silence_causes.origin_of_nan(model, x)}"
    return counter, layers, facts


def _activity(name: str, spikes: np.ndarray, levels: int) -> NeuronLayer:
    """The activity of a layer, from its spikes at each step of each sample, of which a
    neuron has up to `levels`."""
    share = spikes.mean(axis=0)
    return NeuronLayer(
        name=name,
        output_shape=spikes.shape[1:],
        firing_rate=float(spikes.mean()),
        silent=float(np.mean(share == 0)),
        saturated=float(np.mean(share == levels)),
    )


def names_of(layers: Iterable[NeuronLayer]) -> str:
    """The names of layers, each once, with commas between them."""
    return ", ".join(dict.fromkeys(layer.name for layer in layers))
