"""Neurons: spikes at each step, and for rates their eligibilities. How these are found, the facts of the cell say."""

from typing import Any, NamedTuple

from keras import ops

from keras_ratesnn._core import backend, keras_internals, time_axis
from keras_ratesnn._core.annotations import Tensor
from keras_ratesnn.gradients import _all_steps, _eligibility, _feedback, _time_loop
from keras_ratesnn.gradients._padded_pass import padded
from keras_ratesnn.gradients._windows import Means
from keras_ratesnn.gradients.handlers.handler import Handler, Time, plus
from keras_ratesnn.gradients.neuron_pass import NeuronPass


class State(NamedTuple):
    """What neurons keep.

    Attributes:
        carried: The state of the cell, and the sums for eligibilities, of a loop that goes on.
        finished: The state of the cell after the last step, and what rates need, of all steps at once.
        loss: The activity regularisation of the steps so far.
        counts: How often rows are not masked, see `Means`.
    """

    carried: Any = ()
    finished: Any = ()
    loss: Any = ()
    counts: Any = ()


class NeuronHandler(Handler):
    """A neuron layer: spikes at each step, and rates with the derivatives that its steps recorded."""

    is_static_if_inputs_are = False

    def __init__(self, call, context, static):
        super().__init__(call, context, static)
        self.means = Means(context.windows)
        self.loop = self.neuron_pass()

    def neuron_pass(self) -> NeuronPass:
        """What runs over time."""
        neuron, context = self.operation, self.context
        if context.records:
            return _recording_pass(neuron.cell, neuron.compute_dtype, context.windows)
        arguments = neuron.cell_in_time(context.training), neuron.compute_dtype, context.with_gradient
        return NeuronPass(*arguments) if context.between is None else _Cut(*arguments, context.between)

    def start(self, inputs):
        current = self.only_input(inputs)
        return State(self._running(self.valid_places(current, 0)).start(current))

    def step(self, state, inputs, t):
        current = inputs[0]
        running = self._running(self.valid_places(current, t))
        spikes, carried = _time_loop.step(running, current, state.carried, t)
        spikes = self.emitted(spikes, inputs, t)
        return self._after(state._replace(carried=running.as_tensors(carried)), current, spikes, t)

    def emitted(self, spikes: Tensor, inputs: list[Tensor], t: Time) -> Tensor:
        """The output of the layer, `(rows, ...)`: its spikes, to which a training method may give another derivative.

        Args:
            spikes: Tensor `(rows, ...)`, of a step, or of all steps for `t=None`.
            inputs: List of the input current, see `step` and `all_steps`.
            t: See `step`.
        """
        return spikes

    def _running(self, valid):
        return padded(self.loop, None if valid is None else lambda t: valid)

    def carried(self, state):
        return state.carried

    def resumed(self, carried):
        return State(carried)

    def all_steps(self, state, inputs):
        current, timesteps, (same,) = self.only_input(inputs), self.context.windows.timesteps, self.static
        rows = current if same else self.context.checked(current)
        (of_mask,) = self.rows(inputs) if keras_internals.mask_of(current) is not None else (current,)
        valid = self.context.windows.mask
        if self.row_mask(of_mask) is not None:
            valid = time_axis.unfold(self.valid_places(of_mask, None), timesteps)
        loop = _Continued(self.loop, self._finished(state)[0]) if state else self.loop
        spikes, finished = _time_loop.run(loop, rows, same, timesteps, valid)
        return self._after(State(finished=finished), of_mask, self.emitted(spikes, inputs, None), None)

    def _after(self, state, current, spikes, t):
        """`(state, outputs)` after a step, or all steps for `None`."""
        spikes = keras_internals.put_mask(spikes, keras_internals.mask_of(current))
        if not self.context.records:
            return state._replace(loss=plus(state.loss, self.regularization_of_step([spikes], t))), [spikes]
        mask = self.row_mask(current)
        if mask is not None:
            state = state._replace(counts=self.means.add(state.counts, [ops.cast(mask, "float32")], t))
        return state, [spikes]

    def _finished(self, state):
        return state.finished or self.loop.finish(state.carried)

    def finish(self, state):
        cell, recorded = self._finished(state)
        self.loop.after_steps(cell)
        return state._replace(carried=(), finished=((), recorded)), cell

    def rates(self, state, inputs):
        (mean_input,), (_, recorded) = self.rates_of(inputs), state.finished
        if state.counts:
            # Where rows are masked at some steps, the input changes at the others alone: by more than its mean does.
            share = self.means.rows(state.counts[0])
            by = ops.where(share > 0.0, 1.0 / ops.where(share > 0.0, share, 1.0), 0.0)
            by = time_axis.as_rows(time_axis.cast(by, mean_input.dtype), mean_input)
            mean_input = backend.graft(mean_input, mean_input, by)
        rate = _firing_rate(self.operation.cell, recorded, mean_input, self.context.windows)
        rates = [time_axis.cast(rate, self.operation.compute_dtype)]
        return rates, self.regularization_of_rates(rates)

    def membranes(self, state):
        return self._finished(state)[0]


class _Cut(NeuronPass):
    """Neurons whose state passes through a function between two steps."""

    # At once, a step would be differentiated with respect to the inputs of others.
    parallel = False

    def __init__(self, cell, dtype, with_gradient, between):
        super().__init__(cell, dtype, with_gradient)
        self._between = between

    @property
    def key(self):
        return *super().key, self._between

    def advance(self, phase, current, carried):
        return super().advance(phase, current, self._between(carried))


class _Continued(NeuronPass):
    """Neurons that start with the state of the cell after an earlier loop."""

    compiles = False

    def __init__(self, loop, before):
        super().__init__(loop.cell, loop.dtype, with_gradient=False)
        self._before = before

    def start(self, current):
        return self._before


def _recording_pass(cell, dtype, windows):
    """The `NeuronPass` that records what `firing_rate` needs.

    Args:
        cell: A `NeuronCell`.
        dtype: String, the dtype of the spikes.
        windows: `Windows`.
    """
    if cell.feeds_back:
        return _feedback.FeedbackPass(cell, dtype, windows.sizes)
    if _has_weights_of_steps(cell):
        return _all_steps.AllStepsPass(cell, dtype, windows)
    if cell.in_parallel and _eligibility.has_written_derivative(cell, "over_time_derivatives"):
        return _all_steps.PartialSumsPass(cell, dtype, windows)
    return _eligibility.EligibilityPass(cell, dtype, windows.sizes)


def _firing_rate(cell, recorded, mean_input, windows):
    """The firing rate in each window, `(batch * W, ...)`, with gradient.

    Args:
        cell: A `NeuronCell`.
        recorded: The record of its pass.
        mean_input: Tensor c `(batch * W, ...)`, the rate of the input current, with gradient.
        windows: `Windows`.
    """
    if cell.feeds_back:
        return _feedback.firing_rate(cell, recorded, mean_input, windows)
    found = _all_steps if _has_weights_of_steps(cell) else _eligibility
    return found.firing_rate(cell, recorded, mean_input, windows)


def _has_weights_of_steps(cell):
    return cell.in_parallel and not _eligibility.has_written_derivative(cell)
