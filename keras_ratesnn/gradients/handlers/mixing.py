"""Layers that mix time steps, such as delays: all steps at once, or a queue of earlier
inputs as the state."""

from keras_ratesnn._core import keras_internals, time_axis
from keras_ratesnn.gradients.handlers.looped import SteppedHandler, SteppedState
from keras_ratesnn.gradients.handlers.operation import OperationHandler
from keras_ratesnn.gradients.time import loops


class MixingHandler(SteppedHandler, OperationHandler):
    """A layer that mixes time steps; on rates it is given the rate of its window at
    each step.

    Args: as in `Handler`.
    """

    def __init__(self, call, context):
        super().__init__(call, context)
        self.layer = self.operation.in_time(context.training)

    # The layer goes on in padding, and does not know of masks: it is given zeros.

    def step(self, state, inputs, t):
        x = self._only_input(inputs)
        before, valid = SteppedState(state.carried), self._only_valid_rows(x, t)
        after, (outputs,) = loops.step(self, before, [valid], t, None)
        return self._after(state._replace(carried=after.carried), x, outputs, t)

    def all_steps(self, state, inputs):
        timesteps = self.windows.timesteps
        (x,) = self.rows([self._only_input(inputs)])
        valid = self._only_valid_rows(self.context.checked(x), None)
        if self.context.streams:
            # All of them are the substeps of one step.
            steps = time_axis.unfold(valid, timesteps)
            state = state or self.start([steps])
            state, (outputs,) = self.advance(state, [steps], None)
            return self._after(state, x, time_axis.fold(outputs), None)
        if self.context.between is None:
            steps = time_axis.unfold(valid, timesteps)
            outputs = time_axis.fold(self.layer.over_time(steps))
        else:
            _, (outputs,) = loops.all_steps(self, (), [valid], [False], None)
        return self._after(SteppedState(), x, time_axis.cast(outputs, self.dtype), None)

    def _after(self, state, x, outputs, t):
        keras_internals.masked_as(outputs, x)
        return self.after(state, [outputs], t)

    def _needs_mean(self, inputs):
        return True

    def rates(self, state, inputs):
        """The time mean, in each window, given the rate at each step."""
        windows = self.windows
        if self._has_steps(inputs):
            at_each_step = time_axis.unfold(self._only_input(inputs), windows.timesteps)
        else:
            at_each_step = windows.at_each_step(*self.rates_of(inputs))
        steps = time_axis.fold(self.layer.over_time(at_each_step))
        means = time_axis.cast(windows.means_over_steps(steps), self.dtype)
        rates = self.with_means(state, [means])
        return rates, self.regularization_of_rates(rates)
