"""The energy of a prediction on hardware that adds a weight for each spike: operations and joules of each layer."""

import dataclasses
import math
import weakref
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_ratesnn import _graph, layer_kinds
from keras_ratesnn._core import checks, tree
from keras_ratesnn._core.annotations import Structure
from keras_ratesnn._graph import Signal
from keras_ratesnn.analysis import _figures, _observation
from keras_ratesnn.analysis._of_integers import operations
from keras_ratesnn.gradients._observing import Call
from keras_ratesnn.integers import IntegerModel
from keras_ratesnn.spiking_model import SpikingModel, checked_model

COSTS = "32-bit floats in 45 nm CMOS"
"""The hardware of the default costs."""


@dataclasses.dataclass(frozen=True)
class Costs:
    """The energy of an operation. The defaults are those of 32-bit floats in 45 nm CMOS.

    Args:
        multiply_add: Float >= 0, joules. Defaults to `4.6e-12`, 3.7 pJ to multiply and 0.9 pJ to add.
        accumulate: Float >= 0, joules: an addition. Defaults to `0.9e-12`.

    Raises:
        TypeError: If a cost is not a number.
        ValueError: If it is negative.

    Source: Horowitz, "Computing's Energy Problem (and what we can do about it)", ISSCC 2014.
    """

    multiply_add: float = 4.6e-12
    accumulate: float = 0.9e-12

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            checks.real(name, value, at_least=0, advice="It is in joules.")


@dataclasses.dataclass(frozen=True, eq=False)
class Energy:
    """The result of `energy`. All numbers are those of one sample, a mean over the batch.

    Args:
        timesteps: Integer T.
        layers: Tuple of strings, the N layers and products that are counted, in execution order, with one entry for each call.
        multiply_adds: Array `(N,)`: the multiply-adds over all steps.
        accumulates: Array `(N,)`: the additions for spikes over all steps.
        multiply_adds_without_spikes: Array `(N,)`: the multiply-adds of the same layer in a network without spikes and time.
        not_counted: Tuple of strings, the layers with weights whose operations are not known.
        costs: `Costs`.
    """

    timesteps: int
    layers: tuple[str, ...]
    multiply_adds: np.ndarray
    accumulates: np.ndarray
    multiply_adds_without_spikes: np.ndarray
    not_counted: tuple[str, ...]
    costs: Costs

    @property
    def joules(self) -> np.ndarray:
        """The energy of each layer, `(N,)`."""
        return self.multiply_adds * self.costs.multiply_add + self.accumulates * self.costs.accumulate

    @property
    def joules_without_spikes(self) -> np.ndarray:
        """The energy of each layer in a network without spikes and time, `(N,)`."""
        return self.multiply_adds_without_spikes * self.costs.multiply_add

    @property
    def total(self) -> float:
        """The energy of all layers, in joules."""
        return float(self.joules.sum())

    @property
    def total_without_spikes(self) -> float:
        """The energy of all layers in a network without spikes and time, in joules."""
        return float(self.joules_without_spikes.sum())

    def plot(self) -> Any:
        """Draws the energy of each layer, beside that of the same layer without spikes.

        Returns:
            A `matplotlib.figure.Figure`.

        Raises:
            ImportError: If Matplotlib is not installed.
        """
        figure = _figures.new_figure(_figures.width_for(len(self.layers)), 3.8)
        axes = figure.subplots()
        places, width = np.arange(len(self.layers)), 0.38
        of_multiply_adds = self.multiply_adds * self.costs.multiply_add * 1e6
        of_additions = self.accumulates * self.costs.accumulate * 1e6
        style = {"width": width, "edgecolor": "black"}
        axes.bar(places - width / 2, of_multiply_adds, color="0.25", label="multiply-adds", **style)
        axes.bar(places - width / 2, of_additions, bottom=of_multiply_adds, color="0.75", label="additions for spikes", **style)
        without = self.joules_without_spikes * 1e6
        axes.bar(places + width / 2, without, color="white", hatch="///", label="without spikes", **style)
        axes.margins(y=0.1)
        axes.set_ylim(bottom=0)
        axes.set_ylabel("µJ a sample")
        title = f"{self.total * 1e6:.3g} µJ with spikes, T = {self.timesteps}; {self.total_without_spikes * 1e6:.3g} µJ without"
        axes.set_title(title, fontsize="medium")
        _figures.name_layers(axes, self.layers)
        axes.legend(fontsize="small")
        return figure


def energy(model: SpikingModel | IntegerModel, x: Structure, costs: Costs | None = None) -> Energy:
    """Estimates the energy of a prediction from the operations of its layers, with and without spikes.

    An addition is counted for each spike and each synapse that it feeds. Inputs that change over time count as spikes if all
    values other than 0 are equal, because such a scale can be multiplied into the weights. In a network whose neurons have
    integer spikes, inputs that are integers, in units of one spike, count as that many spikes, but for products of such. A
    layer whose inputs have more values, such as averages of several spikes, takes a multiply-add for each synapse and step,
    even if the input is 0. A layer whose input is the same at every step, such as an image, takes its multiply-adds once, and
    in an unrolled network (see `keras_ratesnn.unroll`) any layer takes them once in all slots of a step. In the network without
    spikes and time, each layer takes its multiply-adds once. The padding of a convolution takes multiply-adds, but no
    additions.

    Counted are Dense, einsum and convolution layers, also the one in `Recurrent` that spikes come back by, which adds from the
    second step on. Parallel neurons take a multiply-add for each input of a step that reaches a membrane. A matrix product of
    two signals (`keras.ops.matmul`, in attention) takes an addition for each spike of its first factor, or else of its second,
    and each value other than 0 that it meets there; a sum (`keras.ops.sum`) one for each spike. Without spikes both take
    operations for all values, in each step.

    Not counted are memory accesses, biases, the steps of other neurons, delays, pooling, element-wise operations, other
    products (`keras.ops.einsum`, `keras.layers.Dot`), and normalisation, which in inference can be multiplied into the weights.
    For a layer with several kernels, like a separable convolution, all operations count as multiply-adds. The model runs in
    inference mode and is not changed.

    Example:

    >>> inputs = keras.Input((4,))
    >>> x = keras_ratesnn.layers.IF()(keras.layers.Dense(8, kernel_initializer="ones", name="hidden")(inputs))
    >>> model = keras_ratesnn.SpikingModel(keras.Model(inputs, keras.layers.Dense(2, name="outputs")(x)), timesteps=4)
    >>> found = energy(model, np.full((16, 4), 0.125, "float32"))
    >>> found.layers, found.multiply_adds.tolist(), found.accumulates.tolist()
    (('hidden', 'outputs'), [32.0, 0.0], [0.0, 32.0])

    Args:
        model: A `SpikingModel`, or an `IntegerModel`, in which an input of U counts as U spikes.
        x: A batch of inputs, as for `model.predict`. It is processed as one batch.
        costs: `Costs` of an operation. Defaults to `None`, those of 32-bit floats in 45 nm CMOS.

    Returns:
        `Energy`.

    Raises:
        TypeError: If `model` is neither, or `costs` are not `Costs`.
        ValueError: If `x` does not fit the model or has no samples.
    """
    if isinstance(model, IntegerModel):
        return counter_of_integers(model, model.layer_outputs(x), np.asarray(x)).energy(costs)
    x = _observation.tensors(checked_model(model), x)
    slots = _graph.slots_of(_graph.as_graph(model.network))
    counter = OperationCounter(_observation.steps_that_count(model, x), slots)
    _observation.observed(model, x, counter)
    return counter.energy(costs)


def counter_of_integers(model: IntegerModel, outputs: dict[str, np.ndarray], x: np.ndarray) -> "OperationCounter":
    """The counter of a network of integers after a batch, whose layers gave these outputs."""
    counter = OperationCounter(np.ones((len(x), model.timesteps), bool))
    for name, counted in operations(model, outputs, x):
        counter.names.add(name)
        counter.calls.append(Counted(*counted))
    return counter


class Counted(NamedTuple):
    """The operations of a call for a sample.

    Args:
        dense: Float, multiply-adds without spikes and time.
        static: Boolean, whether its input is the same at every step.
        synaptic_operations: Float: inputs other than 0 over all steps, each as often as it stands for spikes, times the
            synapses that it feeds; 0 for an input that is the same at every step.
        multiply_adds: Float.
        accumulates: Float.
    """

    dense: float
    static: bool
    synaptic_operations: float
    multiply_adds: float
    accumulates: float


class OperationCounter:
    """An observer that counts operations.

    Args:
        counts: Boolean array `(batch, T)`, which steps are not padding.
        slots: Integer, how many time steps are the slots of one longer step. Defaults to `1`.

    Attributes:
        calls: List of `Counted`, for each call that is counted.
    """

    def __init__(self, counts: np.ndarray, slots: int = 1) -> None:
        self.counts = counts
        self.timesteps = counts.shape[1]
        self.slots = slots
        self.names = _observation.Names()
        self.calls: list[Counted] = []
        self._sizes: weakref.WeakKeyDictionary[Signal, float] = weakref.WeakKeyDictionary()
        """The value of one spike in the signals that come from neurons with integer spikes."""
        self.not_counted: list[str] = []

    def __call__(self, call: Call, outputs: Structure) -> Structure:
        self._follow_spikes(call, outputs)
        if _observation.is_neuron(call):
            self._count_neurons(call, outputs)
        elif call.kind.products is not None and len(call.signals) == 2:
            self._count_products(call, call.kind.products, outputs)
        elif call.kind.sums:
            self._count_sum(call)
        elif call.kind.multiply_adds is not None:
            self._count(call, call.signals[0], outputs)
        elif matrices(call.operation):
            self.not_counted.append(call.operation.name)
        return outputs

    def energy(self, costs: Costs | None) -> Energy:
        """The operations so far, as an `Energy`."""
        if not (costs is None or isinstance(costs, Costs)):
            raise checks.wrong_type("costs", "Costs, for example Costs(multiply_add=4.6e-12, accumulate=0.9e-12)", costs)
        dense, _, _, multiply_adds, accumulates = np.array(self.calls, "float64").reshape(-1, len(Counted._fields)).T
        layers, not_counted = tuple(self.names.all), tuple(dict.fromkeys(self.not_counted))
        return Energy(self.timesteps, layers, multiply_adds, accumulates, dense, not_counted, costs or Costs())

    def _add(self, name, dense, static, synaptic_operations, multiply_adds, accumulates):
        self.names.add(name)
        self.calls.append(Counted(dense, static, 0.0 if static else float(synaptic_operations), multiply_adds, accumulates))

    def _rows(self, signal: Signal) -> np.ndarray:
        """The values of a signal at the steps that count, `(rows, ...)`; of one that is the same at every step, at one step."""
        values = _observation.array(signal.value)
        return values if signal.static else _observation.without_padding(values, self.counts)

    @property
    def _steps(self) -> float:
        """The number of steps of a sample that count, a mean."""
        return float(self.counts.sum() / len(self.counts))

    def _once_in_a_step(self, signal: Signal, values: np.ndarray, spikes: np.ndarray | None) -> tuple[Any, Any]:
        """Values and their spikes: once in all slots of a step, if they are the same in all or no spikes."""
        if signal.static or self.slots == 1:
            return values, spikes
        by_slot = values.reshape(-1, self.slots, *values.shape[1:])
        if _same_in_slots(values, self.slots):
            return by_slot[:, 0], None if spikes is None else spikes[:: self.slots]
        return (by_slot.sum(axis=1), None) if spikes is None else (values, spikes)

    def _count(self, call: Call, signal: Signal, outputs: Signal) -> None:
        values, samples = self._rows(signal), len(self.counts)
        input_shape, output_shape = tuple(signal.value.shape), tuple(outputs.value.shape)
        dense = call.kind.multiply_adds(call.operation, input_shape, output_shape)  # type: ignore[misc]  # There is one.
        spikes = None
        if not signal.static and matrices(call.operation) == 1:
            spikes = self._spikes(signal, values)
        values, spikes = self._once_in_a_step(signal, values, spikes)
        events = (values != 0 if spikes is None else spikes).sum(axis=0, dtype="float64") / samples
        active = _fed(call.kind, call.operation, input_shape, output_shape, events)
        of_all, of_spikes = (dense * len(values) / samples, 0.0) if spikes is None else (0.0, active)
        self._add(call.operation.name, dense, signal.static, active, of_all, of_spikes)

    def _count_sum(self, call: Call) -> None:
        """A sum of inputs: an addition for each spike, or for each input if these are no spikes."""
        (signal,) = call.signals
        values, samples = self._rows(signal), len(self.counts)
        values, spikes = self._once_in_a_step(signal, values, None if signal.static else self._spikes(signal, values))
        active = (values != 0 if spikes is None else spikes).sum() / samples
        self._add(call.operation.name, 0, signal.static, active, 0, values.size / samples if spikes is None else active)

    def _count_products(self, call: Call, axes: tuple[int, int], outputs: Signal) -> None:
        """Products of two inputs: an addition for each spike of the first one that has spikes, and each value that it meets."""
        static = all(signal.static for signal in call.signals)
        pair, spikes = [], []
        for signal in call.signals:
            rows = self._rows(signal)
            spikes.append(None if signal.static else self._spikes(signal, rows))
            repeats = 1 if static or not signal.static else self.timesteps
            pair.append(_observation.without_padding(np.repeat(rows, repeats, axis=0), self.counts) if repeats > 1 else rows)
        dense = math.prod(outputs.value.shape[1:]) * pair[0].shape[-1]
        steps = 1 if static else self._steps / self.slots
        first = next((place for place, found in enumerate(spikes) if found is not None), None)
        events: list[Any] = [
            found if place == first else rows != 0 for place, (found, rows) in enumerate(zip(spikes, pair, strict=True))
        ]
        if not static and all(_same_in_slots(rows, self.slots) for rows in pair):
            events = [found[:: self.slots] for found in events]
        meeting = [found.sum(axis=axis, dtype="float64") for found, axis in zip(events, axes, strict=True)]
        active = (meeting[0] * meeting[1]).sum() / len(self.counts)
        self._add(call.operation.name, dense, static, active, *((dense * steps, 0) if first is None else (0, active)))

    def _count_neurons(self, call: Call, outputs: Signal) -> None:
        """The weights of parallel neurons, which multiply inputs of several steps, and the layer that spikes come back by."""
        neuron, cell, shape = call.operation, call.operation.cell, (1, *outputs.value.shape[1:])
        independent = cell.independent_cell()
        if independent.in_parallel:
            counts = self.counts[:, :: self.slots].astype("float64")
            reaching = independent.reaching_inputs(counts.shape[1])
            reached = np.einsum("bt,tj,bj->", counts, reaching, counts) / len(counts)
            self._add(neuron.name, 0, False, 0, reached * math.prod(shape), 0)
            return
        others = matrices(neuron)
        if cell.feedback is not None:
            others -= matrices(cell.feedback)
            self._count_feedback(call, outputs, shape)
        if others:
            self.not_counted.append(neuron.name)

    def _count_feedback(self, call: Call, outputs: Signal, shape: tuple[int, ...]) -> None:
        """The layer that spikes come back by: it acts at each step but the first, on the spikes of the step before."""
        layer, slots = call.operation.cell.feedback, self.slots
        name, kind = f"{call.operation.name}/{layer.name}", layer_kinds.kind_of(layer)
        if kind.multiply_adds is None:
            if matrices(layer):
                self.not_counted.append(name)
            return
        spikes = _observation.spikes(call, outputs, self.timesteps)
        by_step = spikes.reshape(len(spikes), -1, slots, *spikes.shape[2:]).sum(axis=2, dtype="float64")
        counts = self.counts[:, ::slots]
        # Neither padding nor what follows it gets spikes.
        feeds = counts[:, :-1] & counts[:, 1:]
        back = by_step[:, :-1][feeds].sum(axis=0) / len(spikes)
        active = _fed(kind, layer, shape, shape, back)
        dense = kind.multiply_adds(layer, shape, shape)
        one_kernel = matrices(layer) == 1
        of_all = 0 if one_kernel else dense * feeds.sum() / len(spikes)
        self._add(name, 0, False, active, of_all, active if one_kernel else 0)

    def _follow_spikes(self, call: Call, outputs: Structure) -> None:
        """Takes the value of one spike over from the inputs of an operation to its outputs."""
        if _observation.is_neuron(call):
            if self.slots > 1 or call.operation.cell.levels > 1:
                self._sizes[outputs] = call.operation.cell.spike_size
            return
        if call.kind.multilinear and len(call.signals) > 1:
            # A product of numbers of spikes is no number of spikes.
            return
        sizes = {self._sizes.get(signal, 0.0) for signal in call.signals}
        size = sizes.pop() if len(sizes) == 1 else 0.0
        if not size:
            return
        if call.kind.moves and len(call.signals) == 1:
            largest = [float(np.abs(_observation.array(signal.value)).max()) for signal in (call.signals[0], outputs)]
            # It may scale what it moves.
            size = size * largest[1] / largest[0] if all(largest) else size
        self._sizes.update(dict.fromkeys(tree.flatten(outputs), size))

    def _spikes(self, signal: Signal, values: np.ndarray) -> np.ndarray | None:
        """How many spikes each value of a signal stands for; `None` if they are no spikes."""
        size = self._sizes.get(signal)
        if size is not None:
            number = values / size
            if np.allclose(number, np.rint(number), rtol=0.0, atol=1e-2):
                return np.abs(np.rint(number))
        found = values[values != 0]
        return values != 0 if not found.size or bool((found == found[0]).all()) else None


def _fed(kind: Any, layer: Any, input_shape: tuple[int, ...], output_shape: tuple[int, ...], events: np.ndarray) -> float:
    """How many synapses are fed by this many events of each element of a sample, given the `LayerKind` of a layer."""
    if kind.fan_out is not None:
        return float((events * kind.fan_out(layer, input_shape, output_shape)).sum())
    return float(events.mean()) * kind.multiply_adds(layer, input_shape, output_shape)


def _same_in_slots(rows: np.ndarray, slots: int) -> bool:
    """Whether rows are the same in all slots of a step."""
    by_slot = rows.reshape(-1, slots, *rows.shape[1:])
    return bool((by_slot == by_slot[:, :1]).all())


def matrices(operation: keras.Operation) -> int:
    """The number of weights of an operation other than biases and the scales and zero points of quantized weights."""
    weights = [weight for weight in getattr(operation, "weights", ()) if not weight.name.endswith(("_scale", "_zero"))]
    return sum(len(weight.shape) > 1 for weight in weights)
