"""Watching the plain spiking network: what its operations compute, and what could be
changed about it."""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras

from keras_ratesnn._core.annotations import Structure
from keras_ratesnn._graph import Signal
from keras_ratesnn.gradients.method import GradientMethod
from keras_ratesnn.gradients.network import Network, NodesOf, in_time, plain_nodes
from keras_ratesnn.gradients.run import Run
from keras_ratesnn.layer_kinds import LayerKind


@dataclasses.dataclass(slots=True)
class ObservedCall:
    """One call of an operation, as an observer sees it: the signals among its
    arguments, and the facts of its operation."""

    operation: keras.Operation
    signals: list[Signal]
    kind: LayerKind


Observer = Callable[[ObservedCall, Any], Any]
"""Function `(call, outputs) -> outputs`: is given a signal, or a list of signals, and
returns them or their replacement."""


class Observing(GradientMethod):
    """BPTT with an observer that sees each operation and may change its outputs: not
    for saved models.

    Args:
        observe: `Observer`. Defaults to `None`, nobody.
        nodes: See `Network`. Defaults to `plain_nodes`.
    """

    runs_means = True

    def __init__(
        self, observe: Observer | None = None, nodes: NodesOf = plain_nodes
    ) -> None:
        self.observe, self.nodes = observe, nodes

    def call(self, run: Run) -> Structure:
        return in_time(_ObservedNetwork(run, self.observe, self.nodes))


class _ObservedNetwork(Network):
    def __init__(self, run, observe, nodes):
        super().__init__(run, nodes)
        self._observe = observe
        self._signals: dict[int, Signal] = {}

    def seen(self, node, tensors, outputs, freed):
        if self._observe is None:
            return outputs
        for index in node.inputs:
            if index not in self._signals:
                self._signals[index] = Signal(tensors[index], index in self.static)
        inputs = [self._signals[index] for index in node.inputs]
        is_static = node in self.once_nodes
        signals = [Signal(output, is_static) for output in outputs]
        call = ObservedCall(node.handler.operation, inputs, node.handler.kind)
        after = self._observe(call, signals[0] if len(signals) == 1 else signals)
        signals = after if isinstance(after, list) else [after]
        self._signals.update(zip(node.outputs, signals, strict=True))
        for index in freed:
            self._signals.pop(index, None)
        return [signal.value for signal in signals]
