"""Backpropagation through time: every step is kept, and the error goes back through layers and steps."""

from keras import ops

from keras_ratesnn._core import backend, registry, time_axis, tree
from keras_ratesnn.gradients import _compiled_loop, _fused_pass, _normalization, stepwise
from keras_ratesnn.gradients.base import (
    GradientMethod,
    Rule,
    dropout_mask,
    encode_all,
    static_input,
)
from keras_ratesnn.gradients.signals import Signal, map_signals, only_signal, signals_in


@registry.register
class BPTT(GradientMethod):
    """Backpropagation through time with surrogate derivatives: the reference, exact but for the surrogate.

    Memory and time of a training step grow with T: every layer keeps the activations of all steps.

    Source: Neftci, Mostafa and Zenke, "Surrogate Gradient Learning in Spiking Neural Networks", 2019.
    """

    def multi_step_rule(self, timesteps):
        return UnrolledRule(timesteps)

    def single_step(self, run):
        # Every step is kept for the backward pass: a compiled loop would save no memory, and TensorFlow's XLA cannot
        # differentiate one.
        return stepwise.run_steps(stepwise.StepRule(run.timesteps), run, may_compile_loop=not run.training)


class UnrolledRule(Rule):
    """The plain spiking network on folded tensors; autodiff does what it does with any network."""

    def begin(self, inputs, has_time):
        return Signal(time_axis.fold(inputs) if has_time else inputs, static=not has_time)

    def mean(self, signal):
        return signal.steps if signal.static else time_axis.mean(signal.steps, self.timesteps)

    def neuron(self, operation, args, kwargs):
        current = only_signal(operation, args, kwargs)
        spikes, state = _run(operation.cell, current, self.timesteps, operation.compute_dtype)
        self.final_states.append(state)
        spikes = time_axis.fold(spikes)
        self.regularize(operation, spikes)
        return Signal(spikes, static=False)

    def encoder(self, operation, args, kwargs):
        inputs = static_input(operation, args, kwargs).steps
        return Signal(encode_all(operation, inputs, self.timesteps), static=False)

    def batch_normalization(self, operation, args, kwargs):
        # Keras' own call does all of it, and more; by the backend's kernels statistics and their derivative cost less.
        if operation.renorm or len(signals_in(args, kwargs)) > 1 or not _normalization.is_normalizing(operation, kwargs):
            return self.affine(operation, args, kwargs)
        signal = only_signal(operation, args, kwargs)
        outputs, *_ = _normalization.normalize(operation, signal.steps)
        self.regularize(operation, outputs)
        return Signal(outputs, signal.static)

    def dropout(self, operation, args, kwargs):
        signal = only_signal(operation, args, kwargs)
        if signal.static:
            return self.other(operation, args, kwargs)
        by_step = time_axis.unfold(signal.steps, self.timesteps)
        mask = dropout_mask(operation, by_step[:, 0], kwargs)
        return Signal(time_axis.fold(by_step * mask[:, None]), static=False)

    def other(self, operation, args, kwargs):
        static = all(signal.static for signal in signals_in(args, kwargs))
        args, kwargs = map_signals(lambda signal: signal.steps if static else signal.folded(self.timesteps), args, kwargs)
        return tree.map_leaves(lambda steps: Signal(steps, static), self.call(operation, args, kwargs))


def _run(cell, current, timesteps, dtype):
    """The spikes of all steps of a neuron cell, `(batch, T, ...)`, and its state after the last one."""

    def advance(at_step, state):
        _, spikes, state = cell.step(at_step, state)
        return ops.cast(spikes, dtype), state

    if timesteps <= backend.unrolled_steps(with_gradient=True):
        return _fused_pass.through_time(
            cell.initial_state, advance, lambda state: state, cell, ("bptt", dtype), current, timesteps
        )
    at_steps = ops.moveaxis(time_axis.unfold(current.folded(timesteps), timesteps), 1, 0)
    state, spikes = _compiled_loop.scan(
        lambda state, at_step: advance(at_step, state)[::-1], cell.initial_state(at_steps[0]), at_steps, cell.variables
    )
    return ops.moveaxis(spikes, 0, 1), state
