"""Random layers: the same numbers at all steps of a sample, and for its rate."""

import contextlib
from typing import Any, NamedTuple

from keras import ops

from keras_ratesnn import layer_kinds
from keras_ratesnn._core.backend import engine
from keras_ratesnn.gradients.handlers.operation import OperationHandler


class RandomState(NamedTuple):
    """The state of a random layer: `seeds` and `noise` before its first step, and the
    state of an operation."""

    seeds: Any
    noise: Any
    loss: Any = ()
    totals: Any = ()
    masks: Any = ()


class RandomHandler(OperationHandler):
    """A layer that draws random numbers: the same ones at all steps of a sample, and on
    its rate.

    Args: as in `Handler`.
    """

    _separates_windows = True

    def start(self, inputs):
        seeds = [ops.copy(seed) for seed in layer_kinds.seeds_of(self.operation)]
        return RandomState(seeds, engine.noise_state())

    def step(self, state, inputs, t):
        masks = self._masks_in_time(inputs)
        with self._drawing(state, repeated=not (isinstance(t, int) and t == 0)):
            outputs, loss = self.apply(inputs, t)
        return self.after(
            state, outputs, t, self._with_chosen_gradient(loss, t), inputs, masks
        )

    def replayed_state(self, state):
        return RandomState(state.seeds, state.noise)

    def all_steps(self, state, inputs):
        state, rows = self.start(inputs), self.rows(inputs)
        outputs, loss = self._step_by_step(
            inputs, lambda t: self._drawing(state, repeated=t > 0)
        )
        return self.after(state, outputs, None, loss, rows, self._masks_in_time(rows))

    def _on_steps(self, state, inputs):
        return self._step_by_step(inputs, lambda t: self.on_rates(state))

    @contextlib.contextmanager
    def on_rates(self, state, seeds=()):
        with super().on_rates(state, state.seeds), engine.repeated_noise(state.noise):
            yield

    @contextlib.contextmanager
    def _drawing(self, state, repeated):
        """A context in which a call draws the numbers of the first step.

        Args:
            state: `RandomState`.
            repeated: Boolean, whether it has drawn them before. Later calls then
                draw as if it had not done so again.
        """
        variables = layer_kinds.seeds_of(self.operation)
        for variable, seed in zip(variables, state.seeds, strict=True):
            variable.assign(seed)
        if repeated:
            with engine.repeated_noise(state.noise):
                yield
        else:
            engine.set_noise_state(state.noise)
            yield
