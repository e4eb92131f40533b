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
from keras_ratesnn.analysis.costs.ledger import Traffic
from keras_ratesnn.gradients.observing import Call
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
        slots: Integer, how many time steps are the slots of one longer step. Defaults
            to `1`.
        frames: Boolean, whether an input of the network has time, so that a network
            without spikes runs for each frame. Defaults to `False`.

    Attributes:
        calls: List of `Counted`, for each call that is counted.
        levels: Integer, the most spikes of a neuron in a step.
    """

    def __init__(
        self, counts: np.ndarray, slots: int = 1, frames: bool = False
    ) -> None:
        self.counts = counts
        self.timesteps = counts.shape[1]
        self.slots = slots
        self.passes = self._steps / slots if frames else 1.0
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
    def of(cls, model: SpikingModel, x: Structure) -> Self:
        """That of a model which is to be run on a batch."""
        network = _graph.as_graph(model.network)
        frames = bool(inputs_with_time(network, x, model.timesteps))
        return cls(
            _observation.steps_that_count(model, x), _graph.slots_of(network), frames
        )

    def __call__(self, call: Call, outputs: Structure) -> Structure:
        self._follow_spikes(call, outputs)
        self._after_time_means |= call.kind.role == layer_kinds.TIME_MEAN
        if _observation.is_neuron(call) or not self._after_neurons.isdisjoint(
            call.signals
        ):
            self._after_neurons.update(tree.flatten(outputs))
        if _observation.is_neuron(call):
            self._count_neurons(call, outputs)
        elif call.kind.products is not None and len(call.signals) == 2:
            self._count_products(call, call.kind.products, outputs)
        elif call.kind.sums:
            self._count_sum(call, outputs)
        elif call.kind.multiply_adds is not None:
            self._count(call, call.signals[0], outputs)
        elif _has_others(call.operation):
            self.not_counted.append(call.operation.name)
        return outputs

    def add(self, name: str, counted: Counted) -> None:
        """Adds what was counted of a call of a layer."""
        self.names.add(name)
        self.calls.append(counted)

    def _traffic(
        self,
        outputs: Signal,
        static: bool,
        runs: float,
        dense: float = 0.0,
        **found: float,
    ) -> Traffic[float]:
        """The traffic of a layer with these outputs."""
        raw = static or (
            bool(found.get("values")) and outputs not in self._after_neurons
        )
        passes = 1.0 if static else self.passes
        found = {"passes": passes, "nonzero": dense * passes} | found
        # What follows a time mean is added into no membranes.
        after_means = static and self._after_time_means
        kept = (
            0.0
            if after_means
            else float(np.maximum(self.counts.sum(axis=1) / self.slots - 1, 0).mean())
        )
        shape = tuple(outputs.value.shape[1:])
        return _NO_TRAFFIC._replace(
            static=static,
            raw=raw,
            runs=runs,
            outputs=math.prod(shape),
            kept=kept,
            **found,
        )

    def _rows(self, signal: Signal) -> np.ndarray:
        """The values of a signal at the steps that count, `(rows, ...)`; of one that is
        the same at every step, at one step."""
        values = _observation.array(signal.value)
        return (
            values
            if signal.static
            else _observation.without_padding(values, self.counts)
        )

    @property
    def _steps(self) -> float:
        """The number of steps of a sample that count, a mean."""
        return float(self.counts.sum() / len(self.counts))

    def _once_in_a_step(
        self, signal: Signal, values: np.ndarray, spikes: np.ndarray | None
    ) -> tuple[Any, Any]:
        """Values and their spikes: once in all slots of a step, if they are the same in
        all or no spikes."""
        if signal.static or self.slots == 1:
            return values, spikes
        by_slot = values.reshape(-1, self.slots, *values.shape[1:])
        if _same_in_slots(values, self.slots):
            return by_slot[:, 0], None if spikes is None else spikes[:: self.slots]
        return (by_slot.sum(axis=1), None) if spikes is None else (values, spikes)

    def _count(self, call: Call, signal: Signal, outputs: Signal) -> None:
        values, samples = self._rows(signal), len(self.counts)
        input_shape, output_shape = (
            tuple(signal.value.shape),
            tuple(outputs.value.shape),
        )
        dense = call.kind.multiply_adds(call.operation, input_shape, output_shape)  # type: ignore[misc]  # There is one.
        spikes = None
        if not signal.static and matrices(call.operation) == 1:
            spikes = self._spikes(signal, values)
        values, spikes = self._once_in_a_step(signal, values, spikes)

        def fed(events):
            return _fed(call.kind, call.operation, input_shape, output_shape, events)

        runs, size = len(values) / samples, math.prod(input_shape[1:])
        done, found = (dense * runs, 0.0), {"values": size}
        if spikes is not None:
            done = 0.0, fed(spikes.sum(axis=0, dtype="float64") / samples)
            passes = spikes.reshape(round(samples * self.passes), -1, *spikes.shape[1:])
            nonzero = fed(passes.any(axis=1).sum(axis=0) / samples)
            found = {
                "spikes": size,
                "most_accumulates": fed(np.ones(input_shape[1:])),
                "nonzero": nonzero,
            }
        traffic = self._traffic(
            outputs,
            signal.static,
            runs,
            dense,
            weights=_size_of_matrices(call.operation),
            **found,
        )
        self.add(call.operation.name, Counted(dense, *done, traffic))

    def _count_sum(self, call: Call, outputs: Signal) -> None:
        """A sum of inputs: an addition for each spike, or for each input if these are
        no spikes."""
        (signal,) = call.signals
        values, samples = self._rows(signal), len(self.counts)
        values, spikes = self._once_in_a_step(
            signal, values, None if signal.static else self._spikes(signal, values)
        )
        size = math.prod(values.shape[1:])
        found = (
            {"values": size}
            if spikes is None
            else {"spikes": size, "most_accumulates": size}
        )
        traffic = self._traffic(outputs, signal.static, len(values) / samples, **found)
        done = (values.size if spikes is None else spikes.sum()) / samples
        self.add(call.operation.name, Counted(0.0, 0.0, done, traffic))

    def _count_products(
        self, call: Call, axes: tuple[int, int], outputs: Signal
    ) -> None:
        """Products of two inputs: an addition for each spike of the first one that has
        spikes, and each value that it meets."""
        static = all(signal.static for signal in call.signals)
        pair, spikes = [], []
        for signal in call.signals:
            rows = self._rows(signal)
            spikes.append(None if signal.static else self._spikes(signal, rows))
            repeats = 1 if static or not signal.static else self.timesteps
            pair.append(
                _observation.without_padding(
                    np.repeat(rows, repeats, axis=0), self.counts
                )
                if repeats > 1
                else rows
            )
        dense = math.prod(outputs.value.shape[1:]) * pair[0].shape[-1]
        steps = 1 if static else self._steps / self.slots
        first = next(
            (place for place, found in enumerate(spikes) if found is not None), None
        )
        events: list[Any] = [
            found if place == first else rows != 0
            for place, (found, rows) in enumerate(zip(spikes, pair, strict=True))
        ]
        if not static and all(_same_in_slots(rows, self.slots) for rows in pair):
            events = [found[:: self.slots] for found in events]
        meeting = [
            found.sum(axis=axis, dtype="float64")
            for found, axis in zip(events, axes, strict=True)
        ]
        sizes: dict[str, float] = {"spikes": 0.0, "values": 0.0}
        for found, rows in zip(spikes, pair, strict=True):
            sizes["values" if found is None else "spikes"] += math.prod(rows.shape[1:])
        runs = 1.0 if static else len(events[0]) / len(self.counts)
        traffic = self._traffic(outputs, static, runs, dense, **sizes)
        if first is None:
            counted = Counted(dense, dense * steps, 0.0, traffic)
        else:
            active = (meeting[0] * meeting[1]).sum() / len(self.counts)
            counted = Counted(
                dense, 0.0, active, traffic._replace(most_accumulates=dense)
            )
        self.add(call.operation.name, counted)

    def _count_neurons(self, call: Call, outputs: Signal) -> None:
        """The weights of parallel neurons, which multiply inputs of several steps, and
        the layer that spikes come back by."""
        neuron, cell, shape = (
            call.operation,
            call.operation.cell,
            (1, *outputs.value.shape[1:]),
        )
        independent = cell.independent_cell()
        if independent.in_parallel:
            counts = self.counts[:, :: self.slots].astype("float64")
            reaching = independent.reaching_inputs(counts.shape[1])
            reached = np.einsum("bt,tj,bj->", counts, reaching, counts) / len(counts)
            # Its inputs were written as the outputs of a layer.
            read_once = _NO_TRAFFIC._replace(
                runs=1.0, weights=_size_of_matrices(neuron)
            )
            self.add(
                neuron.name, Counted(0.0, reached * math.prod(shape), 0.0, read_once)
            )
            return
        if cell.feedback is not None:
            self._count_feedback(call, outputs, shape)
        if _has_others(neuron, cell.feedback):
            self.not_counted.append(neuron.name)

    def _count_feedback(
        self, call: Call, outputs: Signal, shape: tuple[int, ...]
    ) -> None:
        """The layer that spikes come back by: it acts at each step but the first, on
        the spikes of the step before."""
        layer, slots = call.operation.cell.feedback, self.slots
        name, kind = f"{call.operation.name}/{layer.name}", layer_kinds.kind_of(layer)
        if kind.multiply_adds is None:
            if matrices(layer):
                self.not_counted.append(name)
            return
        spikes = _observation.spikes(call, outputs, self.timesteps)
        by_step = spikes.reshape(len(spikes), -1, slots, *spikes.shape[2:]).sum(
            axis=2, dtype="float64"
        )
        counts = self.counts[:, ::slots]
        # Neither padding nor what follows it gets spikes.
        feeds = counts[:, :-1] & counts[:, 1:]
        back = by_step[:, :-1][feeds].sum(axis=0) / len(spikes)
        active = _fed(kind, layer, shape, shape, back)
        dense = kind.multiply_adds(layer, shape, shape)
        one_kernel = matrices(layer) == 1
        runs, size = feeds.sum() / len(spikes), math.prod(shape)
        most = (
            _fed(kind, layer, shape, shape, np.ones(shape[1:])) if one_kernel else 0.0
        )
        # It adds into membranes that are kept in any case.
        traffic = _NO_TRAFFIC._replace(
            runs=runs,
            most_accumulates=most,
            weights=_size_of_matrices(layer),
            spikes=size,
        )
        self.add(
            name,
            Counted(
                0.0,
                0.0 if one_kernel else dense * runs,
                active if one_kernel else 0.0,
                traffic,
            ),
        )

    def _follow_spikes(self, call: Call, outputs: Structure) -> None:
        """Takes the value of one spike over from the inputs of an operation to its
        outputs."""
        if _observation.is_neuron(call):
            self.levels = max(self.levels, call.operation.cell.levels)
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
            largest = [
                float(np.abs(_observation.array(signal.value)).max())
                for signal in (call.signals[0], outputs)
            ]
            # It may scale what it moves.
            size = size * largest[1] / largest[0] if all(largest) else size
        self._sizes.update(dict.fromkeys(tree.flatten(outputs), size))

    def _spikes(self, signal: Signal, values: np.ndarray) -> np.ndarray | None:
        """How many spikes each value of a signal stands for; `None` if they are no
        spikes."""
        size = self._sizes.get(signal)
        if size is not None:
            number = values / size
            if np.allclose(number, np.rint(number), rtol=0.0, atol=1e-2):
                return np.abs(np.rint(number))
        found = values[values != 0]
        return (
            values != 0 if not found.size or bool((found == found[0]).all()) else None
        )


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


def _same_in_slots(rows: np.ndarray, slots: int) -> bool:
    """Whether rows are the same in all slots of a step."""
    by_slot = rows.reshape(-1, slots, *rows.shape[1:])
    return bool((by_slot == by_slot[:, :1]).all())


def matrices(operation: keras.Operation) -> int:
    """The number of weights of an operation other than biases, scales and zero points
    of quantized weights, and LoRA's.

    LoRA's are added to the kernel.
    """
    return len(_matrices(operation))


def _matrices(operation):
    weights = [
        weight
        for weight in getattr(operation, "weights", ())
        if not _BESIDE_A_KERNEL.search(weight.name)
    ]
    return [
        weight for weight in weights if len(weight.shape) > 1 or weight.name == "kernel"
    ]


def _has_others(operation, counted=None):
    """Whether an operation has matrices besides those of a layer. What broadcasts over
    the batch, such as decays, is none."""
    known = set(map(id, _matrices(counted)))
    others = (weight for weight in _matrices(operation) if id(weight) not in known)
    return any(
        weight.name.endswith("kernel") or weight.shape[0] > 1 for weight in others
    )


_BESIDE_A_KERNEL = re.compile("_scale$|_zero$|^lora_")


def _size_of_matrices(operation: keras.Operation) -> float:
    """The number of elements of these weights."""
    # A kernel of 4 bits has two in a byte, but not in its property.
    found = (
        [operation.kernel]
        if matrices(operation) == 1 and hasattr(operation, "kernel")
        else _matrices(operation)
    )
    return float(sum(math.prod(weight.shape) for weight in found))
