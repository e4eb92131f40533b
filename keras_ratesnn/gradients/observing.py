"""Watching the plain spiking network: what its operations compute, and what could be
changed about it."""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras

from keras_ratesnn._core import call_kernels, keras_internals, tree
from keras_ratesnn._core.annotations import Structure
from keras_ratesnn._core.backend import engine
from keras_ratesnn._graph import Signal
from keras_ratesnn.gradients.handlers import NeuronHandler
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
        programs: Dictionary in which compiled parts of the network are kept for later
            calls, see `_CompiledNetwork`. Defaults to `None`: operations run one by
            one.
    """

    runs_means = True

    def __init__(
        self,
        observe: Observer | None = None,
        nodes: NodesOf = plain_nodes,
        programs: dict[Any, Any] | None = None,
    ) -> None:
        self.observe, self.nodes, self.programs = observe, nodes, programs

    def call(self, run: Run) -> Structure:
        # A program has the mask in time and the step of the call that it is made in.
        is_plain = run.step_mode == "multi" and run.mask is None
        if self.programs is None or not engine.EAGER_IS_SLOW or not is_plain:
            return in_time(_ObservedNetwork(run, self.observe, self.nodes))
        shapes = [(tuple(tensor.shape), has_time) for tensor, has_time in run.inputs]
        # Programs keep their part alive, so that no other one has its id.
        key = (id(run.parts[0]), run.timesteps, *shapes)
        programs = self.programs.setdefault(key, {})
        return in_time(_CompiledNetwork(run, self.observe, self.nodes, programs))


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


class _CompiledNetwork(_ObservedNetwork):
    """An observed network for a backend that else compiles each operation alone, which
    takes time and memory: each neuron layer becomes a program, and so does what is
    between two of them.

    The observer sees the nodes of a program afterwards. What it changes is changed for
    the next program.

    Args:
        run: `Run`.
        observe: `Observer`.
        nodes: See `Network`.
        programs: Dictionary of what is compiled in runs like this one.
    """

    def __init__(self, run, observe, nodes, programs):
        super().__init__(run, observe, nodes)
        self._programs = programs

    def _results_of_nodes(self, steps, tensors, act):
        results = []
        for part in _parts(steps):
            first_node = part[0][0]
            if not _is_known(first_node.handler.operation):
                results += super()._results_of_nodes(part, tensors, act)
                continue
            computed = self._results_of_program(part, tensors, act)
            for (node, _, freed), (result, outputs) in zip(part, computed, strict=True):
                self._store(node, outputs, tensors, freed)
                results.append(result)
        return results

    def _results_of_program(self, part, tensors, act):
        """The results and outputs of nodes, from one program."""
        slots = list(tensors)

        def function(given):
            inside = dict(zip(slots, _with_masks(*given), strict=True))
            computed = []
            # Kernels that were computed before would be constants of the program.
            with call_kernels.using({}):
                for node, state, _ in part:
                    result, outputs = self._result_of_node(node, state, inside, act)
                    inside.update(zip(node.outputs, outputs, strict=True))
                    computed.append((result, outputs, _masks(outputs)))
            return computed

        variables: list[keras.Variable] = []
        for node, *_ in part:
            variables += getattr(node.handler.operation, "variables", ())
        given = [tensors[slot] for slot in slots]
        name = part[0][0].outputs[0]
        computed = self._run(name, function, variables, [given, _masks(given)])
        return [
            (result, _with_masks(outputs, masks)) for result, outputs, masks in computed
        ]

    def with_nan_of_membranes(self, states, outputs):
        with_nan = super().with_nan_of_membranes

        def function(given):
            return with_nan(*given)

        after = self._run("nan", function, [], [states, outputs])
        return tree.map_leaves(
            lambda old, new: keras_internals.masked_as(new, old), outputs, after
        )

    def _run(self, name, function, variables, tensors):
        """`function(tensors)`, by the program of this name."""
        if name not in self._programs:
            program = engine.compiled_for_few_calls(function, variables, tensors)
            self._programs[name] = program
        return self._programs[name](tensors)


def _masks(tensors):
    return [keras_internals.mask_of(tensor) for tensor in tensors]


def _with_masks(tensors, masks):
    return list(map(keras_internals.put_mask, tensors, masks))


def _is_known(operation):
    """Whether an operation is of Keras or the library, with all layers in it: others
    may keep what a program does not see, such as attributes of Python."""
    layers = [operation]
    if isinstance(operation, keras.Layer):
        layers = keras_internals.with_sublayers(operation)
    packages = {type(layer).__module__.partition(".")[0] for layer in layers}
    return packages <= {"keras", "keras_ratesnn"}


def _parts(steps):
    """The nodes that are compiled together, as lists."""
    parts: list[list[Any]] = []
    joins = False
    for step in steps:
        handler = step[0].handler
        joinable = _is_known(handler.operation) and not isinstance(
            handler, NeuronHandler
        )
        if not (joins and joinable):
            parts.append([])
        parts[-1].append(step)
        joins = joinable
    return parts
