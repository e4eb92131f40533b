r"""Rate-based backpropagation: the exact spiking forward, and one backward pass on firing rates.

Beside the spikes of all steps, which carry no gradient, every connection of the network carries one rate, the time mean
of the spikes, which does. The forward value of a rate is the exact time mean of the spiking path, so the loss is the true
loss of the spiking network. Its derivative is local:

    neuron                 ∂r/∂c = g, the eligibility, see `eligibility`
    batch normalisation    that of the normalisation of the mean input c, see `normalization.normalize_rate`
    any other operation    its own, at the rate of its input

so that ∂L/∂W = (∂L/∂c) rᵀ: autodiff keeps one value a neuron, not T, and goes back once.

Source: Yu et al., "Advancing Training Efficiency of Deep Spiking Neural Networks through Rate-based Backpropagation",
NeurIPS 2024. Unlike the authors' program, the gradient is not divided by T: it has the scale of BPTT's.
"""

import contextlib

from keras import ops

from keras_ratesnn._core import backend, checks, registry, time_axis, tree
from keras_ratesnn.gradients import _eligibility, _neuron_pass, _normalization, rate_stepwise
from keras_ratesnn.gradients.base import (
    GradientMethod,
    Rule,
    dropout_mask,
    encode_all,
    static_input,
    without_activity_loss,
)
from keras_ratesnn.gradients.bptt import UnrolledRule
from keras_ratesnn.gradients.signals import RateSignal, map_signals, only_signal, signals_in


@registry.register
class Rate(GradientMethod):
    """Rate-based backpropagation: BPTT's loss and scale of gradient, at the backward cost of an ordinary network.

    The backward pass and the memory that it needs do not grow with T. A loss must be of the time mean of the outputs.

    Args:
        last_step_statistics: Boolean, matters with `step_mode="single"` only: whether the rate pass takes the statistics
            of batch normalisation, and the frame of an input with time, from the last step alone, as the authors'
            program does. By default it takes the means over time that the paper writes; against BPTT these give the
            first layer's gradient a better direction when every step has its own frame, and the same elsewhere.
            Defaults to `False`.

    Raises:
        TypeError: If `last_step_statistics` is not a boolean.

    Source: Yu et al., NeurIPS 2024.
    """

    trains_sequences = False

    def __init__(self, last_step_statistics=False):
        self.last_step_statistics = checks.boolean("last_step_statistics", last_step_statistics)

    def multi_step_rule(self, timesteps):
        return RateRule(timesteps) if backend.grad_enabled() else UnrolledRule(timesteps)

    def single_step(self, run):
        return rate_stepwise.single_step(run, self.last_step_statistics)

    def get_config(self):
        return {"last_step_statistics": self.last_step_statistics}


class RateRule(Rule):
    """Spikes of all steps and their rates, side by side: rate training in multi-step order."""

    def begin(self, inputs, has_time):
        if not has_time:
            return RateSignal.constant(inputs)
        return RateSignal(time_axis.fold(inputs), ops.mean(inputs, axis=1))

    def mean(self, signal):
        return signal.rate

    def neuron(self, operation, args, kwargs):
        current = only_signal(operation, args, kwargs)
        cell, dtype = operation.cell, operation.compute_dtype
        steps, state, means = backend.without_gradient(lambda: _neuron_pass.run(cell, current, self.timesteps, dtype))
        self.final_states.append(state)
        rate = time_axis.cast(_eligibility.firing_rate(cell, means, current.rate), dtype)
        self.regularize(operation, rate)
        return RateSignal(steps, rate)

    def encoder(self, operation, args, kwargs):
        inputs = static_input(operation, args, kwargs).rate
        steps = backend.without_gradient(lambda: encode_all(operation, inputs, self.timesteps))
        rate = backend.graft(time_axis.mean(steps, self.timesteps), inputs, operation.rate_derivative)
        return RateSignal(steps, rate)

    def batch_normalization(self, operation, args, kwargs):
        """In training: one set of statistics over batch, space and time, for spikes and rates ("rate_M")."""
        signal = only_signal(operation, args, kwargs)
        if signal.static or not _normalization.is_normalizing(operation, kwargs):
            return self.affine(operation, args, kwargs)
        steps, *statistics = backend.without_gradient(lambda: _normalization.normalize(operation, signal.steps))
        rate = _normalization.normalize_rate(operation, signal.rate, *statistics)
        self.regularize(operation, rate)
        return RateSignal(steps, rate)

    def dropout(self, operation, args, kwargs):
        signal = only_signal(operation, args, kwargs)
        if signal.static:
            return self.other(operation, args, kwargs)
        mask = dropout_mask(operation, signal.rate, kwargs)
        steps = time_axis.fold(time_axis.unfold(signal.steps, self.timesteps) * mask[:, None])
        return RateSignal(steps, signal.rate * mask)

    def affine(self, operation, args, kwargs):
        return self._operate(operation, args, kwargs, backend.derivative_only(), self._with_mean)

    def parameter_free_affine(self, operation, args, kwargs):
        # What it makes of a rate is the time mean of what it makes of the spikes, and costs less than that mean.
        return self._operate(operation, args, kwargs, contextlib.nullcontext(), RateSignal)

    def other(self, operation, args, kwargs):
        return self._operate(operation, args, kwargs, contextlib.nullcontext(), self._with_mean)

    def _operate(self, operation, args, kwargs, rate_context, join):
        """The operation on the spikes, and its derivative on the rates: `join(steps, rate)` makes a signal of both."""
        rate_args, rate_kwargs = map_signals(lambda signal: signal.rate, args, kwargs)
        if all(signal.static for signal in signals_in(args, kwargs)):
            outputs = self.call(operation, rate_args, rate_kwargs)
            return tree.map_leaves(RateSignal.constant, outputs)

        with without_activity_loss(operation):
            step_args, step_kwargs = map_signals(lambda signal: signal.folded(self.timesteps), args, kwargs)
            steps = backend.without_gradient(lambda: self.call(operation, step_args, step_kwargs))
            with rate_context:
                rates = self.call(operation, rate_args, rate_kwargs)
        signals = tree.map_leaves(join, steps, rates)
        self.regularize(operation, [signal.rate for signal in tree.flatten(signals)])
        return signals

    def _with_mean(self, steps, rate):
        # A mean that is left for the backward pass to compute would keep all steps until then.
        value = time_axis.mean(steps, self.timesteps)
        steps, value = backend.without_gradient(lambda: backend.optimization_barrier((steps, value)))
        return RateSignal(steps, backend.graft(value, rate, 1.0))
