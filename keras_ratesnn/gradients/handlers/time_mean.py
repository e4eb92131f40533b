"""Time means in a stream: those of the steps so far. Elsewhere a mean ends the part of
a network that runs at each step."""

from typing import NamedTuple

from keras import ops

from keras_ratesnn._core import time_axis
from keras_ratesnn._core.annotations import Tensor
from keras_ratesnn.gradients.handlers.handler import Handler


class TimeMeanState(NamedTuple):
    """The sum of the inputs so far, and the number of steps."""

    sum: Tensor
    steps: Tensor


class TimeMeanHandler(Handler):
    """A time mean in a stream: that of the steps so far."""

    is_static_if_inputs_are = False

    def start(self, inputs):
        value = time_axis.widen(self._only_input(inputs))
        return TimeMeanState(ops.zeros_like(value), ops.zeros((), value.dtype))

    def carried(self, state):
        return state._asdict()

    def resumed(self, carried):
        return TimeMeanState(**carried)

    def step(self, state, inputs, t):
        state = TimeMeanState(state.sum + time_axis.widen(inputs[0]), state.steps + 1.0)
        return state, [ops.cast(state.sum / state.steps, self.operation.output.dtype)]
