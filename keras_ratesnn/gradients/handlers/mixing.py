"""Layers that mix time steps, such as delays: all steps at once, or a queue of earlier inputs as the state."""

from typing import Any, NamedTuple

from keras_ratesnn._core import keras_internals, time_axis, tree
from keras_ratesnn.gradients import _time_loop
from keras_ratesnn.gradients.handlers.operation import OperationHandler
from keras_ratesnn.gradients.neuron_pass import NeuronPass


class State(NamedTuple):
    """What the layer carries from step to step, and what an `Operation` keeps."""

    carried: Any = ()
    loss: Any = ()
    totals: Any = ()
    masks: Any = ()


class MixingHandler(OperationHandler):
    """A layer that mixes time steps; on rates it is given the rate of its window at each step."""

    is_static_if_inputs_are = False

    def __init__(self, call, context, static):
        super().__init__(call, context, static)
        self.layer = self.operation.in_time(context.training)
        self.loop = _MixingPass(self.layer, self.operation.compute_dtype, context)

    def start(self, inputs):
        return self.resumed(self.loop.start(self.only_input(inputs)))

    def carried(self, state):
        return state.carried

    def resumed(self, carried):
        return State(carried)

    def membranes(self, state):
        return state.carried

    def finish(self, state):
        return state._replace(carried=()), state.carried

    def step(self, state, inputs, t):
        x = self.only_input(inputs)
        outputs, carried = _time_loop.step(self.loop, self.only_valid_places(x, t), state.carried, t)
        return self._after(state._replace(carried=carried), x, outputs, t)

    def all_steps(self, state, inputs):
        (x,), timesteps = self.rows([self.only_input(inputs)]), self.context.windows.timesteps
        valid = self.only_valid_places(self.context.checked(x), None)
        if self.context.streams:
            # All of them are the slots of one step.
            slots = time_axis.unfold(valid, timesteps)
            outputs, carried = self.loop.advance((), slots, state.carried if state else self.loop.start(slots))
            return self._after(State(carried), x, time_axis.fold(outputs), None)
        if self.context.between is None:
            outputs = time_axis.fold(self.layer.over_time(time_axis.unfold(valid, timesteps)))
        else:
            outputs, _ = _time_loop.run(self.loop, valid, False, timesteps)
        return self._after(State(), x, time_axis.cast(outputs, self.operation.compute_dtype), None)

    def _after(self, state, x, outputs, t):
        outputs = keras_internals.put_mask(outputs, keras_internals.mask_of(x))
        kept, outputs = self.after(state, [], {}, [outputs], None, t)
        return state._replace(loss=kept.loss, totals=kept.totals), outputs

    def _needs_mean(self, inputs):
        return True

    def rates(self, state, inputs):
        """The time mean, in each window, given the rate at each step."""
        windows = self.context.windows
        if self._has_steps(inputs):
            at_each_step = time_axis.unfold(self.only_input(inputs), windows.timesteps)
        else:
            at_each_step = windows.at_each_step(*self.rates_of(inputs))
        steps = self.layer.over_time(at_each_step)
        rates = [time_axis.cast(windows.means_over_steps(time_axis.fold(steps)), self.operation.compute_dtype)]
        rates = self.with_means(state, rates)
        return rates, self.regularization_of_rates(rates)


class _MixingPass(NeuronPass):
    """Runs a `layers.TimeMixing` step by step."""

    waits = False
    parallel = False
    compiles = False

    def __init__(self, layer, dtype, context):
        super().__init__(layer, dtype, context.with_gradient)
        self._between = context.between or (lambda carried: carried)

    def advance(self, phase, current, carried):
        layer: Any = self.cell
        outputs, after = layer.step(current, self._between(carried))
        # A loop carries tensors of one dtype, that of the initial state.
        after = tree.map_leaves(lambda new, old: time_axis.cast(new, old.dtype), after, carried)
        return time_axis.cast(outputs, self.dtype), after
