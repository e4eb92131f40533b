"""Counts the operations of a prediction, and what its layers read and write, while a
network runs."""

import math
import re
import weakref
from typing import Any, NamedTuple, Self

import keras
import numpy as np

from keras_ratesnn import _graph, layer_kinds
from keras_ratesnn._core import tree
from keras_ratesnn._core.annotations import Structure
from keras_ratesnn._graph import Signal
from keras_ratesnn._model.input_checks import inputs_with_time
from keras_ratesnn.analysis import _observation
from keras_ratesnn.analysis.costs.breakdown import Traffic
from keras_ratesnn.gradients.observing import ObservedCall
from keras_ratesnn.spiking_model import SpikingModel

_NO_TRAFFIC = Traffic(*[0.0] * len(Traffic._fields))


class Counted(NamedTuple):
    """The operations of a call for a sample.

    Args:
        dense: Float, multiply-adds of a pass without spikes and time.
        multiply_adds: Float.
        accumulates: Float.
        traffic: `Traffic` of numbers.
    """

    dense: float
    multiply_adds: float
    accumulates: float
    traffic: Traffic[float]


class OperationCounter:
    """An observer that counts operations.

    Args:
        counts: Boolean array `(batch, T)`, which steps are not padding.
        substeps: Integer, how many time steps are the substeps of one longer step.
            Defaults to `1`.
        frames: Boolean, whether an input of the network has time, so that a network
            without spikes runs for each frame. Defaults to `False`.

    Attributes:
        calls: List of `Counted`, for each call that is counted.
        levels: Integer, the most spikes of a neuron in a step.
    """

    def __init__(
        self, counts: np.ndarray, substeps: int = 1, frames: bool = False
    ) -> None:
        self.counts = counts
        self.timesteps = counts.shape[1]
        self.substeps = substeps
        self.passes = self._steps / substeps if frames else 1.0
        self.names = _graph.Names()
        self.calls: list[Counted] = []
        self.levels = 1
        self._after_time_means = False
        self._after_neurons: weakref.WeakSet[Signal] = weakref.WeakSet()
        self._sizes: weakref.WeakKeyDictionary[Signal, float] = (
            weakref.WeakKeyDictionary()
        )
        """The value of one spike in the signals that come from neurons with integer
        spikes."""
        self.not_counted: list[str] = []

    @classmethod
    def for_batch(cls, model: SpikingModel, x: Structure) -> Self:
        """The counter for a model that is to be run on a batch."""
        network = _graph.as_graph(model.network)
        frames = bool(inputs_with_time(model, x))
        return cls(
            _observation.steps_that_count(model, x), _graph.substeps_of(network), frames
        )

    def __call__(self, call: ObservedCall, outputs: Structure) -> Structure:
        self._follow_spikes(call, outputs)
        self._after_time_means |= call.kind.role == layer_kinds.TIME_MEAN
        is_neuron = _observation.is_neuron(call)
        if is_neuron or not self._after_neurons.isdisjoint(call.signals):
            self._after_neurons.update(tree.flatten(outputs))
        if is_neuron:
            self._count_neurons(call, outputs)
        elif call.kind.products is not None and len(call.signals) == 2:
            self._count_products(call, call.kind.products, outputs)
        elif call.kind.sums:
            self._count_sum(call, outputs)
        elif call.kind.multiply_adds is not None:
            self._count(call, call.signals[0], outputs)
        elif _has_more_matrices(call.operation):
            self.not_counted.append(call.operation.name)
        return outputs

    def add(self, name: str, counted: Counted) -> None:
        """Adds what was counted of a call of a layer."""
        self.names.add(name)
        self.calls.append(counted)

    def traffic(
        self,
        shape: tuple[int, ...],
        static: bool,
        raw: bool,
        runs: float,
        dense: float,
        **sizes: float,
    ) -> Traffic[float]:
        """The `Traffic` of a layer.

        Args:
            shape: Tuple, the shape of its outputs without the batch.
            static: See `Traffic`.
            raw: Likewise.
            runs: Likewise.
            dense: Float, its multiply-adds in a pass.
            **sizes: Other fields of `Traffic`.
        """
        passes = 1.0 if static else self.passes
        steps = self.counts.sum(axis=1) / self.substeps
        carried = float(np.maximum(steps - 1, 0).mean())
        if static and self._after_time_means:
            # What follows a time mean is added into no membranes.
            carried = 0.0
        sizes = {"nonzero": dense * passes} | sizes
        return _NO_TRAFFIC._replace(
            static=static,
            raw=raw,
            passes=passes,
            runs=runs,
            outputs=math.prod(shape),
            kept=carried,
            **sizes,
        )

    def _traffic(
        self,
        outputs: Signal,
        static: bool,
        runs: float,
        dense: float = 0.0,
        **sizes: float,
    ) -> Traffic[float]:
        """The traffic of a layer with these outputs."""
        before_spikes = outputs not in self._after_neurons
        raw = static or (bool(sizes.get("values")) and before_spikes)
        shape = tuple(outputs.value.shape[1:])
        return self.traffic(shape, static, raw, runs, dense, **sizes)

    def _rows(self, signal: Signal) -> np.ndarray:
        """The values of a signal at the steps that count, `(rows, ...)`; of one that is
        the same at every step, at one step."""
        values = _observation.array(signal.value)
        if signal.static:
            return values
        return _observation.without_padding(values, self.counts)

    @property
    def _steps(self) -> float:
        """The number of steps of a sample that count, a mean."""
        return float(self.counts.sum() / len(self.counts))

    def _values_and_spikes(
        self, signal: Signal, may_spike: bool = True
    ) -> tuple[Any, Any]:
        """The values of a signal and their spikes, see `_spikes`: once in all substeps
        of a step, if they are the same in all or no spikes."""
        values = self._rows(signal)
        if signal.static:
            return values, None
        spikes = self._spikes(signal, values) if may_spike else None
        if self.substeps == 1:
            return values, spikes
        if _same_in_substeps(values, self.substeps):
            once = slice(None, None, self.substeps)
            return values[once], None if spikes is None else spikes[once]
        if spikes is not None:
            return values, spikes
        return values.reshape(-1, self.substeps, *values.shape[1:]).sum(axis=1), None

    def _count(self, call: ObservedCall, signal: Signal, outputs: Signal) -> None:
        samples = len(self.counts)
        input_shape = tuple(signal.value.shape)
        output_shape = tuple(outputs.value.shape)
        dense = call.kind.multiply_adds(call.operation, input_shape, output_shape)  # type: ignore[misc]  # There is one.
        has_one_matrix = len(_matrices(call.operation)) == 1
        values, spikes = self._values_and_spikes(signal, has_one_matrix)

        def fed(events):
            return _fed(call.kind, call.operation, input_shape, output_shape, events)

        runs, size = len(values) / samples, math.prod(input_shape[1:])
        if spikes is None:
            multiply_adds, accumulates, sizes = dense * runs, 0.0, {"values": size}
        else:
            multiply_adds = 0.0
            accumulates = fed(spikes.sum(axis=0, dtype="float64") / samples)
            passes = spikes.reshape(round(samples * self.passes), -1, *spikes.shape[1:])
            sizes = {
                "spikes": size,
                "most_accumulates": fed(np.ones(input_shape[1:])),
                "nonzero": fed(passes.any(axis=1).sum(axis=0) / samples),
            }
        sizes["weights"] = _size_of_matrices(call.operation)
        traffic = self._traffic(outputs, signal.static, runs, dense, **sizes)
        counted = Counted(dense, multiply_adds, accumulates, traffic)
        self.add(call.operation.name, counted)

    def _count_sum(self, call: ObservedCall, outputs: Signal) -> None:
        """A sum of inputs: an addition for each spike, or for each input if these are
        no spikes."""
        (signal,) = call.signals
        values, spikes = self._values_and_spikes(signal)
        samples = len(self.counts)
        size = math.prod(values.shape[1:])
        if spikes is None:
            additions, sizes = values.size, {"values": size}
        else:
            additions = spikes.sum()
            sizes = {"spikes": size, "most_accumulates": size}
        traffic = self._traffic(outputs, signal.static, len(values) / samples, **sizes)
        counted = Counted(0.0, 0.0, additions / samples, traffic)
        self.add(call.operation.name, counted)

    def _count_products(
        self, call: ObservedCall, axes: tuple[int, int], outputs: Signal
    ) -> None:
        """Products of two inputs: an addition for each spike of the first one that has
        spikes, and each value that it meets."""
        static = all(signal.static for signal in call.signals)
        factors: list[np.ndarray] = []
        events: list[Any] = []
        sizes: dict[str, float] = {"spikes": 0.0, "values": 0.0}
        has_spikes = False
        for signal in call.signals:
            rows = self._rows(signal)
            spikes = None if signal.static else self._spikes(signal, rows)
            if signal.static and not static:
                repeated = np.repeat(rows, self.timesteps, axis=0)
                rows = _observation.without_padding(repeated, self.counts)
            sizes["values" if spikes is None else "spikes"] += math.prod(rows.shape[1:])
            # The spikes of one factor are counted, those of the other are values.
            counts_spikes = spikes is not None and not has_spikes
            events.append(spikes if counts_spikes else rows != 0)
            has_spikes |= counts_spikes
            factors.append(rows)
        dense = math.prod(outputs.value.shape[1:]) * factors[0].shape[-1]
        if not static and all(
            _same_in_substeps(rows, self.substeps) for rows in factors
        ):
            events = [rows[:: self.substeps] for rows in events]
        samples = len(self.counts)
        runs = 1.0 if static else len(events[0]) / samples
        traffic = self._traffic(outputs, static, runs, dense, **sizes)
        if has_spikes:
            left = events[0].sum(axis=axes[0], dtype="float64")
            right = events[1].sum(axis=axes[1], dtype="float64")
            accumulates = (left * right).sum() / samples
            traffic = traffic._replace(most_accumulates=dense)
            counted = Counted(dense, 0.0, accumulates, traffic)
        else:
            steps = 1 if static else self._steps / self.substeps
            counted = Counted(dense, dense * steps, 0.0, traffic)
        self.add(call.operation.name, counted)

    def _count_neurons(self, call: ObservedCall, outputs: Signal) -> None:
        """The weights of parallel neurons, which multiply inputs of several steps, and
        the layer that spikes come back by."""
        neuron, cell = call.operation, call.operation.cell
        shape = (1, *outputs.value.shape[1:])
        independent = cell.independent_cell()
        if independent.in_parallel:
            counts = self.counts[:, :: self.substeps].astype("float64")
            reaching = independent.reaching_inputs(counts.shape[1])
            reached = np.einsum("bt,tj,bj->", counts, reaching, counts) / len(counts)
            multiply_adds = reached * math.prod(shape)
            # Its inputs were written as the outputs of a layer.
            weights = _size_of_matrices(neuron)
            traffic = _NO_TRAFFIC._replace(runs=1.0, weights=weights)
            self.add(neuron.name, Counted(0.0, multiply_adds, 0.0, traffic))
            return
        if cell.feedback is not None:
            self._count_feedback(call, outputs, shape)
        if _has_more_matrices(neuron, cell.feedback):
            self.not_counted.append(neuron.name)

    def _count_feedback(
        self, call: ObservedCall, outputs: Signal, shape: tuple[int, ...]
    ) -> None:
        """The layer that spikes come back by: it acts at each step but the first, on
        the spikes of the step before."""
        layer, substeps = call.operation.cell.feedback, self.substeps
        name, kind = f"{call.operation.name}/{layer.name}", layer_kinds.kind_of(layer)
        if kind.multiply_adds is None:
            if _matrices(layer):
                self.not_counted.append(name)
            return
        spikes = _observation.spikes(call, outputs, self.timesteps)
        by_substep = spikes.reshape(len(spikes), -1, substeps, *spikes.shape[2:])
        by_step = by_substep.sum(axis=2, dtype="float64")
        counts = self.counts[:, ::substeps]
        # Neither padding nor what follows it gets spikes.
        feeds = counts[:, :-1] & counts[:, 1:]
        runs = feeds.sum() / len(spikes)
        multiply_adds, accumulates, most_accumulates = 0.0, 0.0, 0.0
        if len(_matrices(layer)) == 1:
            back = by_step[:, :-1][feeds].sum(axis=0) / len(spikes)
            accumulates = _fed(kind, layer, shape, shape, back)
            most_accumulates = _fed(kind, layer, shape, shape, np.ones(shape[1:]))
        else:
            multiply_adds = kind.multiply_adds(layer, shape, shape) * runs
        # It adds into membranes that are kept in any case.
        traffic = _NO_TRAFFIC._replace(
            runs=runs,
            most_accumulates=most_accumulates,
            weights=_size_of_matrices(layer),
            spikes=math.prod(shape),
        )
        self.add(name, Counted(0.0, multiply_adds, accumulates, traffic))

    def _follow_spikes(self, call: ObservedCall, outputs: Structure) -> None:
        """Takes the value of one spike over from the inputs of an operation to its
        outputs."""
        if _observation.is_neuron(call):
            self.levels = max(self.levels, call.operation.cell.levels)
            if self.substeps > 1 or call.operation.cell.levels > 1:
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
            before, after = _largest(call.signals[0]), _largest(outputs)
            if before and after:
                # It may scale what it moves.
                size = size * after / before
        self._sizes.update(dict.fromkeys(tree.flatten(outputs), size))

    def _spikes(self, signal: Signal, values: np.ndarray) -> np.ndarray | None:
        """How many spikes each value of a signal stands for; `None` if they are no
        spikes."""
        size = self._sizes.get(signal)
        if size is not None:
            number = values / size
            if np.allclose(number, np.rint(number), rtol=0.0, atol=1e-2):
                return np.abs(np.rint(number))
        nonzero = values[values != 0]
        are_equal = not nonzero.size or bool((nonzero == nonzero[0]).all())
        return values != 0 if are_equal else None


def _largest(signal: Signal) -> float:
    """The largest magnitude of a signal's values."""
    return float(np.abs(_observation.array(signal.value)).max())


def _fed(
    kind: Any,
    layer: Any,
    input_shape: tuple[int, ...],
    output_shape: tuple[int, ...],
    events: np.ndarray,
) -> float:
    """How many synapses are fed by this many events of each element of a sample, given
    the `LayerKind` of a layer."""
    if kind.fan_out is not None:
        return float((events * kind.fan_out(layer, input_shape, output_shape)).sum())
    return float(events.mean()) * kind.multiply_adds(layer, input_shape, output_shape)


def _same_in_substeps(rows: np.ndarray, substeps: int) -> bool:
    """Whether rows are the same in all substeps of a step."""
    by_substep = rows.reshape(-1, substeps, *rows.shape[1:])
    return bool((by_substep == by_substep[:, :1]).all())


def _matrices(operation):
    """The weights of an operation other than biases, scales and zero points of
    quantized weights, and LoRA's, which are added to the kernel."""
    return [
        weight
        for weight in getattr(operation, "weights", ())
        if (len(weight.shape) > 1 or weight.name == "kernel")
        and not _BESIDE_A_KERNEL.search(weight.name)
    ]


def _has_more_matrices(operation, counted=None):
    """Whether an operation has matrices besides those of a layer. What broadcasts over
    the batch, such as decays, is none."""
    known = set(map(id, _matrices(counted)))
    return any(
        weight.name.endswith("kernel") or weight.shape[0] > 1
        for weight in _matrices(operation)
        if id(weight) not in known
    )


_BESIDE_A_KERNEL = re.compile("_scale$|_zero$|^lora_")


def _size_of_matrices(operation: keras.Operation) -> float:
    """The number of elements of the matrices of an operation, see `_matrices`."""
    weights = _matrices(operation)
    if len(weights) == 1 and hasattr(operation, "kernel"):
        # The weight of a kernel of 4 bits has two elements in a byte; the property
        # `kernel` unpacks them.
        weights = [operation.kernel]
    return float(sum(math.prod(weight.shape) for weight in weights))
