r"""Online training through time: separate backpropagation at each time step, with a trace of presynaptic spikes.

A layer with weights that follows neurons, y = op(W, s), is differentiated as

    y_t = op(stop(W), s_t) + [op(W, stop(â_t)) − stop(op(W, stop(â_t)))]          â_t = λ â_{t−1} + s_t

so that the gradient passes to the spikes as usual, while weight gradients use the presynaptic trace â instead of the spikes.
"""

from collections.abc import Sequence

import keras
from keras import ops

from keras_ratesnn import dynamics
from keras_ratesnn._core import backend, checks, keras_internals, registry, time_axis, tree
from keras_ratesnn._core.annotations import Config, Structure
from keras_ratesnn.gradients._online import OnlineRule, run_online
from keras_ratesnn.gradients.method import GradientMethod
from keras_ratesnn.gradients.neuron_pass import NeuronPass
from keras_ratesnn.gradients.run import Run
from keras_ratesnn.gradients.signals import Signal, only_signal, with_tensors


@registry.register
class OTTT(GradientMethod):
    """Online training through time: each time step is differentiated separately, and weight gradients use a trace of spikes.

    The gradient of a weight that follows neurons is Σ_t δ_t ⊗ â_t, with the error δ_t of the layer's output. The trace
    â_t = λ â_{t−1} + s_t decays like the membrane of the neurons that emitted the spikes (`NeuronCell.trace_decay`). It passes
    through affine operations without weights (average pooling, scaling, padding, ...) like spikes. After any other operation,
    the trace is its output. Weights are updated once per batch (OTTT_A). The authors' networks for this method use standardised
    weights instead of batch normalisation, see `keras_ratesnn.layers.WSConv2D`.

    Args:
        recompute: Boolean, only used with `step_mode="single"`. If `True`, each step is recomputed for its backward pass and
            nothing of size T is stored; otherwise all activations are stored. Defaults to `True`.

    Raises:
        TypeError: If `recompute` is not a boolean.
        ValueError: If a neuron has no single decay, for example `ALIF` or `CuBaLIF`. Raised when the method is passed to a
            model.

    Source: Xiao et al., "Online Training Through Time for Spiking Neural Networks", NeurIPS 2022.
    """

    def __init__(self, recompute: bool = True) -> None:
        self.recompute = checks.boolean("recompute", recompute)

    def call(self, run: Run) -> Structure:
        return run_online(run, TraceRule, self.recompute)

    def check(self, neurons: Sequence[keras.layers.Layer]) -> None:
        for neuron in neurons:
            if neuron.cell.trace_decay() is None:
                raise ValueError(
                    'gradient="ottt" must know the decay factor of the spike trace. Received: cell '
                    f"{type(neuron.cell).__name__} of layer {neuron.name!r}, which has no single decay. Define `trace_decay()` "
                    'in a custom cell, or train with gradient="sltt", "rate" or "bptt".'
                )

    def get_config(self) -> Config:
        return {"recompute": self.recompute}


class TracedSignal(Signal):
    """Spikes and their trace, a tensor of the same shape without gradient."""

    __slots__ = ("trace",)

    def __init__(self, value, trace):
        super().__init__(value)
        self.trace = trace


class TraceRule(OnlineRule):
    """The spiking network, with weight gradients evaluated at the spike traces."""

    replaces_weights = True

    def neuron(self, call):
        spikes, neuron = super().neuron(call).value, call.operation
        trace_pass = TracePass(neuron.cell, neuron.compute_dtype, with_gradient=False)
        emitted = Signal(_masked_like(ops.stop_gradient(spikes), spikes))
        trace = backend.detached(self.step_mode.through_time, call.key, trace_pass, emitted)
        return TracedSignal(spikes, _masked_like(trace, spikes))

    def mask(self, call):
        outputs, inputs = super().mask(call), only_signal(call)
        if not isinstance(inputs, TracedSignal):
            return outputs
        trace = self.step_mode.scale(inputs.trace, self.step_mode.record.random_masks[call.key])
        return TracedSignal(outputs.value, _masked_like(trace, outputs.value))

    def operation(self, call):
        traced = [isinstance(signal, TracedSignal) for signal in call.signals]
        if not call.kind.affine or self.takes_time(call) or not any(traced):
            return super().operation(call)
        if not call.kind.parameter_free:
            return self.weighted(call)
        outputs = super().operation(call)
        if not all(traced):
            return outputs
        guard = self.guarded(call, self.step_mode.only_valid)
        traces = self.apply(call, *with_tensors(lambda signal: guard(signal.trace), call), share=0.0)
        return tree.map_leaves(lambda output, trace: TracedSignal(output.value, guard(trace)), outputs, traces)

    def weighted(self, call):
        """y_t, with its derivative with respect to the input at the spikes, and with respect to the weights at the traces."""
        variables = call.operation.variables
        constants = zip(variables, map(ops.stop_gradient, keras_internals.values_of(variables)), strict=True)
        share, t = 1.0 / self.step_mode.calls_per_run, self.step_mode.t
        with keras_internals.Values(constants):
            of_spikes = self.apply(call, *with_tensors(self.step_mode.tensor, call), share, t)
        of_traces, losses = self.outputs_and_losses(call, *with_tensors(self._trace, call))
        for loss in losses:
            self.add_loss(call, (loss - ops.stop_gradient(loss)) * share, t)

        def with_both(y, of_trace):
            return _masked_like(y + backend.graft(ops.zeros_like(y), of_trace, 1.0), y)

        return self._outputs(call, tree.map_leaves(with_both, of_spikes, of_traces))

    def _trace(self, signal):
        """The trace of a signal, or the signal itself if it has none."""
        if isinstance(signal, TracedSignal):
            return signal.trace
        tensor = self.step_mode.tensor(signal)
        return _masked_like(ops.stop_gradient(tensor), tensor)


def _masked_like(tensor, other):
    """A tensor, with the Keras mask of another."""
    return keras_internals.put_mask(tensor, keras_internals.mask_of(other))


class TracePass(NeuronPass):
    """Computes the traces â_t = λ â_{t−1} + s_t of the spikes of a neuron layer in a time loop."""

    quantity = "trace"

    def start(self, current):
        return ops.zeros_like(current, dtype=time_axis.accumulation_dtype(current.dtype))

    def advance(self, phase, current, carried):
        trace = dynamics.integrate(carried, time_axis.cast(current, carried.dtype), self.cell.trace_decay())
        return time_axis.cast(trace, self.dtype), trace

    def finish(self, carried):
        return (), ()
