"""Dropout and its like: one random mask for all steps of a sample and for its rate."""

from typing import NamedTuple

from keras import ops

from keras_ratesnn._core import keras_internals, time_axis
from keras_ratesnn._core.annotations import Tensor
from keras_ratesnn.gradients.handlers.handler import Handler, Time, plus


class RandomMaskState(NamedTuple):
    """The factors of each step, `(batch, ...)`, and the losses of the steps so far."""

    mask: Tensor
    loss: Tensor | tuple[()] = ()


class RandomMaskHandler(Handler):
    """A layer that multiplies by a random mask, such as dropout: the same one at all
    steps, and on rates.

    Args: as in `Handler`.
    """

    def start(self, inputs):
        (mask,), _ = self.apply([ops.ones_like(self._only_input(inputs))])
        return RandomMaskState(mask)

    def step(self, state, inputs, t):
        x = self._only_input(inputs)
        output = self.masked(time_axis.cast(x, state.mask.dtype), state.mask, t)
        keras_internals.masked_as(output, x)
        if not self.context.records:
            loss = self.regularization_of_step([output], t)
            state = state._replace(loss=plus(state.loss, loss))
        return state, [output]

    def masked(self, x: Tensor, mask: Tensor, t: Time) -> Tensor:
        """Rows of a step, or of all steps for `None`, times the mask."""
        if t is not None:
            return x * mask
        steps = time_axis.unfold(x, self.windows.timesteps)
        return time_axis.fold(steps * mask[:, None])

    def replayed_state(self, state):
        return RandomMaskState(state.mask)

    def all_steps(self, state, inputs):
        state = self.start(self._inputs_at(0, inputs))
        return self.step(state, self.rows(inputs), None)

    def rates(self, state, inputs):
        (rates,) = self.rates_of(inputs)
        masks = self.windows.repeat(state.mask)
        rates = time_axis.cast(rates, state.mask.dtype) * masks
        return [rates], self.regularization_of_rates([rates])
