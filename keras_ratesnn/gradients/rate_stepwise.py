"""Rate-based backpropagation in single-step order: T walks that record, without gradient, and one walk on rates with it."""

import operator

from keras import ops

from keras_ratesnn._core import backend, time_axis, tree
from keras_ratesnn.gradients import _eligibility, _normalization, stepwise
from keras_ratesnn.gradients.base import without_activity_loss
from keras_ratesnn.gradients.signals import RateSignal, map_signals, only_signal


def single_step(run, last_step_statistics):
    """The outputs of a call: their values from the T steps, their derivatives from the rate pass.

    Args:
        run: `Run`.
        last_step_statistics: Boolean, see `Rate`.

    Returns:
        As `GradientMethod.single_step`.
    """
    if not backend.grad_enabled():
        return stepwise.run_steps(stepwise.StepRule(run.timesteps), run, may_compile_loop=True)
    recording = RecordingRule(run.timesteps, last_step_statistics)
    outputs = stepwise.run_steps(recording, run, may_compile_loop=True)
    if run.return_sequences:
        return outputs
    rule = RatePassRule(recording)
    rates = run.walk([rule.begin(tensor, has_time) for tensor, has_time in run.inputs], rule)
    rule.add_losses()
    return tree.map_leaves(lambda value, signal: backend.graft(value, signal.rate, 1.0), outputs, rates)


class RecordingRule(stepwise.StepRule):
    """One time step of every operation, without gradient, and what the rate pass will need to know of it.

    Args:
        timesteps: Integer T.
        last_step_statistics: Boolean, see `Rate`.
    """

    def __init__(self, timesteps, last_step_statistics):
        super().__init__(timesteps)
        self.last_step_statistics = last_step_statistics

    def evaluate(self, function):
        return backend.without_gradient(function)

    def static_tensor(self, signal):
        return signal.rate

    def static_signal(self, tensor):
        return RateSignal.constant(tensor)

    def at_rest(self, cell, current):
        return {**super().at_rest(cell, current), "traces": _eligibility.start(cell)}

    def remember(self, cell, memory, membrane, spikes, state):
        traces = _eligibility.advance(cell, memory["traces"], membrane, spikes, state)
        return {"state": state, "traces": _eligibility.as_tensors(traces)}

    def remember_statistics(self, place, layer, mean, variance):
        statistics = {"mean": mean, "precision": 1.0 / (variance + layer.epsilon)}
        if self.last_step_statistics:
            self.memory[place] = statistics
        else:
            self._add(place, statistics)

    def remember_outputs(self, place, outputs):
        # Only where they are needed: the rate of an affine operation follows from the rate of its input.
        self._add(place, tree.map_leaves(time_axis.widen, outputs))

    def regularize(self, operation, outputs):
        """The rate pass regularises rates."""

    def _add(self, place, values):
        so_far = self.memory.get(place)
        self.memory[place] = values if so_far is None else tree.map_leaves(operator.add, so_far, values)


class RatePassRule(stepwise.PlacedRule):
    """The network on rates: the values of the T steps where they are recorded, the derivatives of each operation.

    Args:
        recording: `RecordingRule`, after the last step.
    """

    def __init__(self, recording):
        super().__init__(recording.timesteps, recording.constant, recording.memory)
        self.last_step_statistics = recording.last_step_statistics
        self.layout = recording.layout

    def begin(self, inputs, has_time):
        if not has_time:
            return RateSignal.constant(inputs)
        return RateSignal(None, inputs[:, -1] if self.last_step_statistics else ops.mean(inputs, axis=1))

    def neuron(self, operation, args, kwargs):
        traces = self.memory[self.next_place()]["traces"]
        mean_input = only_signal(operation, args, kwargs).rate
        rate = _eligibility.firing_rate(operation.cell, _eligibility.means(traces, self.timesteps), mean_input)
        rate = ops.cast(rate, operation.compute_dtype)
        self.regularize(operation, rate)
        return RateSignal(None, rate)

    def encoder(self, operation, args, kwargs):
        inputs = only_signal(operation, args, kwargs).rate
        return RateSignal(None, self._with_value(self.memory[self.next_place()], inputs, operation.rate_derivative))

    def batch_normalization(self, operation, args, kwargs):
        signal = only_signal(operation, args, kwargs)
        if signal.static or not _normalization.is_normalizing(operation, kwargs):
            return self.affine(operation, args, kwargs)
        recorded = self.memory[self.next_place()]
        if not self.last_step_statistics:
            recorded = tree.map_leaves(lambda total: total / self.timesteps, recorded)
        # 1 / mean_t(1 / (σ_t² + ε)) takes the place of σ² + ε; the authors' program adds its ε a second time.
        variance = 1.0 / recorded["precision"] - (0.0 if self.last_step_statistics else operation.epsilon)
        rate = _normalization.normalize_rate(operation, signal.rate, recorded["mean"], variance)
        self.regularize(operation, rate)
        return RateSignal(None, rate)

    def dropout(self, operation, args, kwargs):
        signal = only_signal(operation, args, kwargs)
        if signal.static:
            return self.other(operation, args, kwargs)
        return RateSignal(None, signal.rate * self.memory[self.next_place()])

    def other(self, operation, args, kwargs):
        place = self.next_place()
        if place in self.constant:
            return self.constant[place]
        args, kwargs = map_signals(lambda signal: signal.rate, args, kwargs)
        with without_activity_loss(operation):
            rates = self.call(operation, args, kwargs)
        if place in self.memory:
            rates = tree.map_leaves(self._with_value, self.memory[place], rates)
        self.regularize(operation, rates)
        return tree.map_leaves(lambda rate: RateSignal(None, rate), rates)

    def _with_value(self, total, rate, slope=1.0):
        return backend.graft(time_axis.cast(total / self.timesteps, rate.dtype), rate, slope)
