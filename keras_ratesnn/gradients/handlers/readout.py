"""Membranes that never spike: their values at each step."""

from typing import Any, NamedTuple

from keras_ratesnn._core import time_axis
from keras_ratesnn.gradients.handlers.handler import plus
from keras_ratesnn.gradients.handlers.looped import LoopedHandler


class State(NamedTuple):
    """What a readout carries from step to step, and the activity regularisation of the steps so far."""

    carried: Any = ()
    loss: Any = ()


class ReadoutHandler(LoopedHandler):
    """The membranes of a readout at each step, exactly differentiated; one value over time is made of them afterwards."""

    def __init__(self, call, context):
        super().__init__(call, context)
        self.dtype = self.operation.compute_dtype

    @property
    def loop_variables(self):
        return self.operation.variables

    def start(self, inputs):
        return State(self.operation.initial_state(self._only_input(inputs)))

    def advance(self, state, inputs, phase):
        membrane, after = self.operation.step(inputs[0], state.carried)
        return State(after), [time_axis.cast(membrane, self.dtype)]

    def step(self, state, inputs, t):
        after, outputs = super().step(State(state.carried), inputs, t)
        return self._after(after, state.loss, outputs, t)

    def all_steps(self, state, inputs):
        after, outputs = super().all_steps(state, inputs)
        return self._after(after, (), outputs, None)

    def _after(self, after, loss, outputs, t):
        return after._replace(loss=plus(loss, self.regularization_of_step(outputs, t))), outputs

    def carried(self, state):
        return state.carried

    def resumed(self, carried):
        return State(carried)

    def finish(self, state):
        return state._replace(carried=())
