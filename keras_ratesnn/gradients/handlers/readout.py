"""Membranes that never spike: their values at each step."""

from keras_ratesnn.gradients.handlers.handler import plus
from keras_ratesnn.gradients.handlers.looped import SteppedHandler, SteppedState


class ReadoutHandler(SteppedHandler):
    """The membranes of a readout at each step, exactly differentiated; one value over
    time is made of them afterwards."""

    def step(self, state, inputs, t):
        after, outputs = super().step(SteppedState(state.carried), inputs, t)
        return self._after(after, state.loss, outputs, t)

    def all_steps(self, state, inputs):
        after, outputs = super().all_steps(state, inputs)
        return self._after(after, (), outputs, None)

    def _after(self, after, loss, outputs, t):
        loss = plus(loss, self.regularization_of_step(outputs, t))
        return after._replace(loss=loss), outputs
