"""The energy of a prediction on hardware that adds a weight for each spike: operations and joules of each layer."""

import dataclasses
import weakref
from typing import Any

import keras
import numpy as np

from keras_ratesnn import _graph
from keras_ratesnn._core import checks, tree
from keras_ratesnn._core.annotations import Structure
from keras_ratesnn._graph import Call
from keras_ratesnn.analysis import _figures, _observation
from keras_ratesnn.gradients.signals import Signal
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
        layers: Tuple of strings, the N layers with synapses, in execution order, with one entry for each call of a layer.
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
        axes.set_ylim(0, 1.1 * max(*(of_multiply_adds + of_additions), *without))
        axes.set_ylabel("µJ a sample")
        title = f"{self.total * 1e6:.3g} µJ with spikes, T = {self.timesteps}; {self.total_without_spikes * 1e6:.3g} µJ without"
        axes.set_title(title, fontsize="medium")
        _figures.name_layers(axes, self.layers)
        axes.legend(fontsize="small")
        return figure


def energy(model: SpikingModel, x: Structure, costs: Costs | None = None) -> Energy:
    """Estimates the energy of a prediction from the operations of its layers, with and without spikes.

    An addition is counted for each spike and each synapse that it feeds. Inputs that change over time count as spikes if all
    values other than 0 are equal, because such a scale can be multiplied into the weights. In a network whose neurons have
    integer spikes, inputs that are integers, in units of one spike, count as that many spikes. A layer whose inputs have more
    values, such as averages of several spikes, takes a multiply-add for each synapse and step, even if the input is 0. A layer
    whose input is the same at every step, such as an image, takes its multiply-adds once, and in an unrolled network (see
    `keras_ratesnn.unroll`) any layer takes them once in all slots of a step. In the network without spikes and
    time, each layer takes its multiply-adds once. The padding of a convolution takes multiply-adds, but no additions.

    Only layers with synapses are counted: Dense, einsum and convolution layers. Not counted are memory accesses, biases,
    neurons, and normalisation, which in inference can be multiplied into the weights. For a layer with several kernels, like a
    separable convolution, all operations count as multiply-adds. The model runs in inference mode and is not changed.

    Example:

    >>> inputs = keras.Input((4,))
    >>> x = keras_ratesnn.layers.IF()(keras.layers.Dense(8, kernel_initializer="ones", name="hidden")(inputs))
    >>> model = keras_ratesnn.SpikingModel(keras.Model(inputs, keras.layers.Dense(2, name="outputs")(x)), timesteps=4)
    >>> found = energy(model, np.full((16, 4), 0.125, "float32"))
    >>> found.layers, found.multiply_adds.tolist(), found.accumulates.tolist()
    (('hidden', 'outputs'), [32.0, 0.0], [0.0, 32.0])

    Args:
        model: A `SpikingModel`.
        x: A batch of inputs, as for `model.predict`. It is processed as one batch.
        costs: `Costs` of an operation. Defaults to `None`, those of 32-bit floats in 45 nm CMOS.

    Returns:
        `Energy`.

    Raises:
        TypeError: If `model` is not a `SpikingModel`, or `costs` are not `Costs`.
        ValueError: If `x` does not fit the model or has no samples.
    """
    x = _observation.tensors(checked_model(model), x)
    slots = _graph.slots_of(_graph.as_graph(model.network))
    counter = OperationCounter(_observation.steps_that_count(model, x), slots)
    _observation.observed(model, x, counter)
    return counter.energy(costs)


class OperationCounter:
    """An observer that counts the operations of layers with synapses. Its attributes are lists, with an entry for each call.

    Args:
        counts: Boolean array `(batch, T)`, which steps are not padding.
        slots: Integer, how many time steps are the slots of one longer step. Defaults to `1`.
    """

    def __init__(self, counts: np.ndarray, slots: int = 1) -> None:
        self.counts = counts
        self.timesteps = counts.shape[1]
        self.slots = slots
        self.names = _observation.Names()
        self.multiply_adds: list[float] = []
        self.accumulates: list[float] = []
        self.dense: list[float] = []
        """Multiply-adds without spikes and time."""
        self.synaptic_operations: list[float] = []
        """Inputs other than 0 over all steps, each as often as it stands for spikes, times the synapses that it feeds; 0 for an
        input that is the same at every step."""
        self._sizes: weakref.WeakKeyDictionary[Signal, float] = weakref.WeakKeyDictionary()
        """The value of one spike in the signals that come from neurons with integer spikes."""
        self.static: list[bool] = []
        self.not_counted: list[str] = []

    def __call__(self, call: Call, outputs: Structure) -> Structure:
        self._follow_spikes(call, outputs)
        if call.kind.multiply_adds is not None:
            self._count(call, call.signals[0], outputs)
        elif matrices(call.operation):
            self.not_counted.append(call.operation.name)
        return outputs

    def energy(self, costs: Costs | None) -> Energy:
        """The operations so far, as an `Energy`."""
        if not (costs is None or isinstance(costs, Costs)):
            raise TypeError(
                "`costs` must be Costs, for example Costs(multiply_add=4.6e-12, accumulate=0.9e-12). Received: "
                f"costs={costs!r}."
            )
        return Energy(
            timesteps=self.timesteps,
            layers=tuple(self.names.all),
            multiply_adds=np.array(self.multiply_adds, "float64"),
            accumulates=np.array(self.accumulates, "float64"),
            multiply_adds_without_spikes=np.array(self.dense, "float64"),
            not_counted=tuple(dict.fromkeys(self.not_counted)),
            costs=costs or Costs(),
        )

    def _count(self, call: Call, signal: Signal, outputs: Signal) -> None:
        values = _observation.array(signal.value)
        values = values if signal.static else _observation.without_padding(values, self.counts)
        input_shape, output_shape = tuple(signal.value.shape), tuple(outputs.value.shape)
        dense = call.kind.multiply_adds(call.operation, input_shape, output_shape)  # type: ignore[misc]  # There is one.
        steps = 1 if signal.static else self.counts.sum() / len(self.counts)
        spikes = None
        if not signal.static and matrices(call.operation) == 1:
            spikes = self._spikes(signal, values)
        if self.slots > 1 and not signal.static:
            by_slot = values.reshape(-1, self.slots, *values.shape[1:])
            is_same = bool((by_slot == by_slot[:, :1]).all())
            if is_same or spikes is None:
                # What is the same in all slots of a step, or must be multiplied, is taken once in the step.
                values, steps = by_slot[:, 0] if is_same else by_slot.sum(axis=1), steps / self.slots
                spikes = None if spikes is None else spikes[:: self.slots]
        events = values != 0 if spikes is None else spikes
        if call.kind.fan_out is None:
            active = dense * steps * float(events.mean(dtype="float64"))
        else:
            fan_out = call.kind.fan_out(call.operation, input_shape, output_shape)
            active = float((events.sum(axis=0, dtype="float64") * fan_out).sum()) * steps / len(values)
        self.names.add(call.operation.name)
        self.dense.append(dense)
        self.static.append(signal.static)
        self.synaptic_operations.append(0.0 if signal.static else active)
        self.multiply_adds.append(float(dense * steps) if spikes is None else 0.0)
        self.accumulates.append(0.0 if spikes is None else active)

    def _follow_spikes(self, call: Call, outputs: Structure) -> None:
        """Takes the value of one spike over from the inputs of an operation to its outputs."""
        if _observation.is_neuron(call):
            if self.slots > 1 or call.operation.cell.levels > 1:
                self._sizes[outputs] = call.operation.cell.spike_size
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


def matrices(operation: keras.Operation) -> int:
    """The number of weights of an operation other than biases and the scales and zero points of quantized weights."""
    weights = [weight for weight in getattr(operation, "weights", ()) if not weight.name.endswith(("_scale", "_zero"))]
    return sum(len(weight.shape) > 1 for weight in weights)
