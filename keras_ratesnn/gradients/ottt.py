r"""Online training through time: separate backpropagation at each time step, with a
trace of presynaptic spikes.

A layer with weights that follows neurons, y = op(W, s), is differentiated as

    y_t = op(stop(W), s_t) + [op(W, stop(â_t)) − stop(op(W, stop(â_t)))]
            â_t = λ â_{t−1} + s_t

so that the gradient passes to the spikes as usual, while weight gradients use the
presynaptic trace â instead of the spikes.
"""

import dataclasses
import itertools
from collections.abc import Sequence

import keras
from keras import ops

from keras_ratesnn._core import (
    call_kernels,
    checks,
    keras_internals,
    registry,
    time_axis,
    tree,
)
from keras_ratesnn._core.annotations import Structure
from keras_ratesnn._core.backend import engine
from keras_ratesnn._graph import Slot
from keras_ratesnn.gradients.handlers import (
    NeuronHandler,
    OperationHandler,
    RandomMaskHandler,
)
from keras_ratesnn.gradients.handlers.neuron import NeuronState
from keras_ratesnn.gradients.method import GradientMethod
from keras_ratesnn.gradients.network import Node, plain_nodes
from keras_ratesnn.gradients.run import Run
from keras_ratesnn.gradients.sltt import run_online
from keras_ratesnn.layers import dynamics


@registry.register
class OTTT(GradientMethod):
    """Online training through time: each time step is differentiated separately, and
    weight gradients use a trace of spikes.

    The gradient of a weight that follows neurons is Σ_t δ_t ⊗ â_t, with the error δ_t
    of the layer's output. The trace â_t = λ â_{t−1} + s_t decays like the membrane of
    the neurons that emitted the spikes (`NeuronCell.trace_decay`). It passes through
    affine operations without weights (average pooling, scaling, padding, functions of
    `keras.ops`, ...) like spikes. After any other operation, the trace is its output.
    Weights are updated once per batch (OTTT_A). The authors' networks for this method
    use standardised weights instead of batch normalisation, see
    `keras_ratesnn.layers.WSConv2D`.

    Args:
        recompute: Boolean, only used with `step_mode="single"`. If `True`, each step is
            recomputed for its backward pass and nothing of size T is stored; otherwise
            all activations are stored. Defaults to `True`.

    Raises:
        TypeError: If `recompute` is not a boolean.
        ValueError: If a neuron has no single decay, for example `ALIF` or `CuBaLIF`.
            Raised when the method is passed to a model.

    Source: Xiao et al., "Online Training Through Time for Spiking Neural Networks",
    NeurIPS 2022.
    """

    in_config = ("recompute",)

    def __init__(self, recompute: bool = True) -> None:
        self.recompute = checks.boolean("recompute", recompute)

    def call(self, run: Run) -> Structure:
        return run_online(run, self.recompute, traced_nodes)

    def check(self, neurons: Sequence[keras.layers.Layer]) -> None:
        for neuron in neurons:
            if neuron.cell.trace_decay() is None:
                kind = type(neuron.cell).__name__
                raise ValueError(
                    'gradient="ottt" must know the decay factor of the spike trace. '
                    f"Received: cell {kind} of layer {neuron.name!r}, which has no "
                    "single decay. Define `trace_decay()` in a custom cell, or train "
                    'with gradient="sltt", "rate" or "bptt".'
                )


def traced_nodes(calls, context):
    """The plain nodes, with traces beside spikes: a trace is one more tensor, from
    neurons to the weights that follow them."""
    nodes: list[Node] = []
    read: set[int] = set()
    for node in reversed(list(_with_traces(calls, context))):
        # A trace that nothing reads is left out: weights do not follow all neurons.
        if max(node.outputs) >= 0 or not read.isdisjoint(node.outputs):
            nodes.insert(0, node)
            read.update(node.inputs)
    return nodes


def _with_traces(calls, context):
    slots = itertools.count(-1, -1)
    traces: dict[int, int] = {}
    for node in plain_nodes(calls, context):
        (handler, inputs, outputs), call = node, node.handler.call
        traced = [traces[index] for index in inputs if index in traces]
        all_traced = bool(inputs) and len(traced) == len(inputs)
        with_traces = list(inputs) + [traces.get(index, index) for index in inputs]
        is_affine = (
            type(handler) is OperationHandler
            and _is_affine(handler)
            and not handler.takes_time
        )
        has_weights = handler.kind.affine and not handler.kind.parameter_free
        if isinstance(handler, NeuronHandler):
            (spikes,), trace = outputs, next(slots)
            traces[spikes] = trace
            yield node
            yield Node(Trace(call, context), [spikes], [trace])
        elif isinstance(handler, RandomMaskHandler) and all_traced:
            (output,), trace = outputs, next(slots)
            traces[output] = trace
            yield Node(TracedRandomMask(call, context), with_traces, [output, trace])
        elif is_affine and has_weights and traced:
            yield Node(Weighted(call, context), with_traces, outputs)
        elif is_affine and all_traced:
            new = [next(slots) for _ in outputs]
            traces.update(zip(outputs, new, strict=True))
            yield node
            yield Node(TracedOperation(call, context), traced, new)
        else:
            yield node


def _is_affine(handler):
    """Whether an operation is affine in its input signals together, as functions of
    `keras.ops` often are in a single one."""
    kind, call = handler.kind, handler.call
    # A number that comes first may be divided by a signal, which is not affine.
    first, *_ = tree.flatten((call.args, call.kwargs))
    moves = kind.moves and kind.activation is None and isinstance(first, Slot)
    return kind.affine or (len(call.inputs) == 1 and (kind.multilinear or moves))


class Trace(NeuronHandler):
    """The trace â_t = λ â_{t−1} + s_t of the spikes that it is given, without
    gradient."""

    parallel = False

    def __init__(self, call, context):
        super().__init__(
            call, dataclasses.replace(context, with_gradient=False, between=None)
        )
        self.cell = self.operation.cell

    def start(self, inputs):
        dtype = time_axis.accumulation_dtype(inputs[0].dtype)
        return NeuronState(ops.zeros_like(inputs[0], dtype=dtype))

    def advance(self, state, inputs, phase):
        spikes = time_axis.cast(inputs[0], state.cell.dtype)
        trace = dynamics.integrate(state.cell, spikes, self.cell.trace_decay())
        return NeuronState(trace), [time_axis.cast(trace, self.dtype)]

    def at_padding(self, state):
        return state

    def summarize(self, state):
        return NeuronState()

    def step(self, state, inputs, t):
        return engine.detached(super().step, state, inputs, t)

    def all_steps(self, state, inputs):
        return engine.detached(super().all_steps, state, inputs)

    def regularization_of_step(self, outputs, t):
        return None

    def membranes(self, state):
        return ()

    def release(self, state):
        return NeuronState()


class TracedRandomMask(RandomMaskHandler):
    """A random mask, of spikes and of their trace."""

    def start(self, inputs):
        return super().start(inputs[:1])

    def step(self, state, inputs, t):
        spikes, trace = inputs
        after, outputs = super().step(state, [spikes], t)
        return after, [*outputs, self.masked(trace, state.mask, t)]


class TracedOperation(OperationHandler):
    """An affine operation without weights, of traces."""

    def step(self, state, inputs, t):
        outputs, _ = self.outputs_and_loss(inputs, t)
        return (), outputs


class Weighted(OperationHandler):
    """y_t, with its derivative with respect to the input at the spikes, and with
    respect to the weights at the traces."""

    def outputs_and_loss(self, inputs, t):
        count, variables = len(inputs) // 2, self.operation.variables
        constants = map(ops.stop_gradient, keras_internals.values_of(variables))
        values = keras_internals.Values(zip(variables, constants, strict=True))
        with values, call_kernels.stopped():
            outputs, loss = super().outputs_and_loss(inputs[:count], t)
        traces = [
            keras_internals.masked_as(ops.stop_gradient(x), x) for x in inputs[count:]
        ]
        at_traces, loss_at_traces = self.apply(traces, t)
        if loss_at_traces is not None:
            loss = loss + loss_at_traces - ops.stop_gradient(loss_at_traces)
        return list(map(self._with_both, outputs, at_traces)), loss

    @staticmethod
    def _with_both(output, at_traces):
        both = output + engine.graft(ops.zeros_like(output), at_traces, 1.0)
        return keras_internals.masked_as(both, output)
