r"""Rate-based backpropagation: the exact spiking forward, and one backward pass through firing rates.

A first walk runs the spiking network without gradient, in either order, and records what a second walk needs. That one, with
gradient, runs the network once on firing rates, the time means of the spikes. The forward value of a rate is the exact time
mean of the spiking path, so the loss is the true loss of the spiking network. Its derivative is local:

    neuron                 ∂r/∂c = g, the eligibility, see `_eligibility`
    normalisation          that of the normalisation of the mean input c, see `normalization.normalize_rate`
    any other operation    its own, at the rate of its input

so that ∂L/∂W = (∂L/∂c) rᵀ: autodiff keeps one value a neuron, not T, and goes back once.

Source: Yu et al., "Advancing Training Efficiency of Deep Spiking Neural Networks through Rate-based Backpropagation",
NeurIPS 2024. Unlike the authors' program, the gradient is not divided by T: it has the scale of BPTT's.
"""

import contextlib

from keras import ops

from keras_ratesnn import layer_kinds
from keras_ratesnn._core import backend, checks, keras_internals, registry, time_axis, tree
from keras_ratesnn.gradients import _element_wise, _eligibility
from keras_ratesnn.gradients.base import GradientMethod, Rule
from keras_ratesnn.gradients.forward import ForwardRule, noise_of, noise_place, restore_noise
from keras_ratesnn.gradients.orders import AllSteps
from keras_ratesnn.gradients.signals import Signal, only_signal, with_tensors


@registry.register
class Rate(GradientMethod):
    """Rate-based backpropagation: BPTT's loss and scale of gradient, at the backward cost of an ordinary network.

    The backward pass and the memory that it needs do not grow with T.

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

    def __init__(self, last_step_statistics=False):
        self.last_step_statistics = checks.boolean("last_step_statistics", last_step_statistics)

    def call(self, run):
        order = run.new_order()
        if not run.with_gradient:
            return order.run(ForwardRule(order, run.training, with_gradient=False), run)
        last_step = self.last_step_statistics and not order.sees_all_steps
        outputs = order.run(RecordingRule(order, run.training, last_step), run)
        rule = RateRule(order, run.training, last_step)
        rates = run.walk([rule.begin(tensor, has_time) for tensor, has_time in run.inputs], rule)
        order.add_losses()
        return tree.map_leaves(lambda value, rate: _onto(value, rate, run), outputs, rates)

    def check(self, neurons):
        for neuron in neurons:
            if not _eligibility.has_written_derivative(neuron.cell):
                _element_wise.check(neuron)

    def get_config(self):
        return {"last_step_statistics": self.last_step_statistics}


def _onto(outputs, signal, run):
    """The outputs with the derivative 1 by the rate; each step's, if they are wanted: a loss of all steps then gives the rate
    the sum of what it gives them."""
    rate = signal.value
    if run.return_sequences:
        rate = ops.repeat(rate[:, None], run.timesteps, axis=1)
    return backend.graft(outputs, time_axis.cast(rate, outputs.dtype), 1.0)


class RecordingRule(ForwardRule):
    """The spiking network without gradient, and what the rate pass will need to know of it.

    Args:
        order: See `Rule`.
        training: See `Rule`.
        last_step: Boolean, whether the statistics of the last step are to be remembered in the place of their means.
    """

    def __init__(self, order, training, last_step):
        super().__init__(order, training, with_gradient=False)
        self.last_step = last_step

    def evaluate(self, function):
        return backend.without_gradient(function)

    def neuron_pass(self, neuron):
        return _eligibility.EligibilityPass(neuron.cell, neuron.compute_dtype, self.order.timesteps)

    def normalization(self, call):
        if call.kind.normalization.normalize_rate is None:
            raise ValueError(
                'gradient="rate" must know how a normalisation acts on rates. Received: layer '
                f'{call.operation.name!r} with renorm=True. Make it with renorm=False, or train with gradient="bptt".'
            )
        return super().normalization(call)

    def remember_statistics(self, call, mean, variance):
        # 1 / mean_t(1 / (σ_t² + ε)) takes the place of σ² + ε.
        statistics = {"mean": mean, "precision": 1.0 / (variance + call.operation.epsilon)}
        if self.last_step:
            self.order.memory[call.place] = statistics
        else:
            self.order.average(call.place, statistics)

    def remember(self, call, outputs):
        return self.evaluate(lambda: self.order.average_steps(call.place, outputs)) if self._is_needed(call.kind) else outputs

    def _is_needed(self, kind):
        """Whether the rate pass takes the value of an operation's output from here.

        The rate of an affine operation follows from the rate of its input. With weights the time mean is cheaper to have; but
        in single-step order it would have to be carried from step to step.
        """
        return not kind.affine or (self.order.sees_all_steps and not kind.parameter_free)

    def regularize(self, call, outputs):
        """The rate pass regularises rates."""


class RateRule(Rule):
    """The network on rates: values of the spiking path where they were recorded, the derivative of each operation.

    Args:
        order: The order in which a `RecordingRule` ran.
        training: See `Rule`.
        last_step: See `RecordingRule`.
    """

    def __init__(self, order, training, last_step):
        super().__init__(order, training)
        self.last_step = last_step

    def begin(self, inputs, has_time):
        if not has_time:
            return Signal(inputs, static=True)
        return Signal(inputs[:, -1] if self.last_step else ops.mean(inputs, axis=1))

    def __call__(self, call):
        recorded = self.order.memory.get(call.place)
        if call.kind.role == layer_kinds.NEURON:
            outputs = self.neuron(call, recorded)
        elif call.kind.role == layer_kinds.ENCODER:
            outputs = self._with_value(recorded, only_signal(call).value, call.operation.rate_derivative)
        elif call.place in self.order.constants:
            return self.order.constants[call.place]
        elif self.normalizes(call):
            outputs = self.normalization(call, recorded)
        elif self.masks(call):
            outputs = only_signal(call).value * recorded
        else:
            outputs = self.operation(call, recorded)
        self.order.regularize(call, outputs)
        return tree.map_leaves(Signal, outputs)

    def neuron(self, call, recorded):
        rate = _eligibility.firing_rate(call.operation.cell, recorded, only_signal(call).value)
        return time_axis.cast(rate, call.operation.compute_dtype)

    def normalization(self, call, recorded):
        # The authors' program, which takes the last step's statistics, adds its ε a second time.
        variance = 1.0 / recorded["precision"] - (0.0 if self.last_step else call.operation.epsilon)
        rate = only_signal(call).value
        return call.kind.normalization.normalize_rate(call.operation, rate, recorded["mean"], variance)

    def operation(self, call, recorded):
        args, kwargs = with_tensors(lambda signal: signal.value, call)
        if self.takes_time(call):
            rates = self._mean_over_steps(call)
        else:
            with backend.derivative_only() if call.kind.affine and recorded is not None else contextlib.nullcontext():
                rates = self._without_traces(call, lambda: self.apply(call, args, kwargs))
        return rates if recorded is None else tree.map_leaves(self._with_value, recorded, rates)

    def _mean_over_steps(self, call):
        """The time mean of what an operation that takes the time step makes of the rate at each step."""
        steps = AllSteps(self.order.timesteps)

        def at_step(t):
            args, kwargs = with_tensors(lambda signal: signal.value, call)
            return self._without_traces(call, lambda: self.apply(call, args, {**kwargs, "time_step": t}))

        return tree.map_leaves(lambda rates: time_axis.mean(rates, steps.timesteps), steps.each(at_step))

    def _without_traces(self, call, function):
        """What `function()` computes by the operation, from the random numbers of the spiking path, its state left as it is."""
        variables = layer_kinds.changing_variables(call.operation)
        if not variables and not self.draws(call):
            return function()
        with keras_internals.without_autocast():
            before = [ops.copy(ops.convert_to_tensor(variable)) for variable in variables]
        if not self.draws(call):
            outputs = function()
        else:
            noise = noise_of(call)
            restore_noise(call, self.order.memory[noise_place(call)])
            outputs = function()
            restore_noise(call, noise)
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)
        return outputs

    def _with_value(self, value, rate, slope=1.0):
        return backend.graft(time_axis.cast(value, rate.dtype), rate, slope)
