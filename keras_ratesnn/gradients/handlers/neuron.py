"""Neurons: spikes at each step. What also finds the derivatives of their rates is in
`eligibility`, `feedback`, `parallel`."""

from typing import Any, NamedTuple

from keras import ops

from keras_ratesnn._core import keras_internals, time_axis
from keras_ratesnn._core.annotations import Tensor
from keras_ratesnn._core.backend import engine
from keras_ratesnn.gradients.handlers.handler import Time, plus, stopped
from keras_ratesnn.gradients.handlers.looped import LoopedHandler


class NeuronState(NamedTuple):
    """The state of neurons.

    Attributes:
        cell: The state of the cell; after all steps at once, what may be NaN.
        record: What rates need of the steps so far, and after the last one of all.
        loss: The activity regularisation of the steps so far.
        counts: How often rows are not masked, see `Means`.
    """

    cell: Any = ()
    record: Any = ()
    loss: Any = ()
    counts: Any = ()


class NeuronHandler(LoopedHandler):
    """A neuron layer: spikes at each step.

    Args: as in `Handler`.
    """

    def __init__(self, call, context):
        super().__init__(call, context)
        self.cell = self.operation.cell_in_time(context.training)
        self.dtype = self.operation.compute_dtype
        self.moves_in_padding = self.operation.cell.independent_cell().in_parallel

    @property
    def fuses(self):
        # What another function does between steps is not known.
        return self.cell.fuses and self.context.between in (None, stopped)

    @property
    def key(self):
        return type(self), self.dtype, self.context.between is None

    @property
    def loop_variables(self):
        return self.cell.variables

    @property
    def parallel(self):
        # With `between` a step would be differentiated with respect to the inputs of
        # others.
        return self.cell.in_parallel and self.context.between is None

    def start(self, inputs):
        return NeuronState(self.cell.initial_state(self._only_input(inputs)))

    def phase(self, t, valid=None):
        # With the number of the step in it, each would be compiled by itself.
        return ()

    def advance(self, state, inputs, phase):
        membrane, spikes, cell = self.cell.step(inputs[0], state.cell)
        return NeuronState(cell), [self._output(membrane, spikes)]

    def at_once(
        self, currents: Tensor, mask: Tensor | None
    ) -> tuple[NeuronState, Tensor]:
        """All steps at once, in the place of `start`, `advance` and `summarize`:
        `(state, spikes)`.

        Args:
            currents: Tensor `(batch, T, ...)`, zeros where steps do not count.
            mask: Boolean tensor of its first axes, false there; `None` if all steps
                count.
        """
        membranes = self.cell.over_time(currents)
        spikes = self.cell.fire(membranes)
        return NeuronState(membranes), self._output(membranes, spikes)

    def _output(self, membranes, spikes):
        """The output of the loop over time."""
        return time_axis.cast(spikes, self.dtype)

    def at_padding(self, state):
        return state._replace(cell=self.cell.state_at_padding(state.cell))

    def emitted(self, spikes: Tensor, inputs: list[Tensor], t: Time) -> Tensor:
        """The output of the layer, `(rows, ...)`: its spikes, to which a training
        method may give another derivative.

        Args:
            spikes: Tensor `(rows, ...)`: `(batch, ...)` of step t, or `(batch * T,
                ...)` of all steps for `t=None`.
            inputs: List of the input current, likewise `(rows, ...)`.
            t: See `step`.
        """
        return spikes

    def step(self, state, inputs, t):
        after, spikes = super().step(NeuronState(state.cell, state.record), inputs, t)
        state = state._replace(cell=after.cell, record=after.record)
        return self._after(state, spikes, inputs, t)

    def all_steps(self, state, inputs):
        state, spikes = super().all_steps(state, inputs)
        return self._after(state, spikes, inputs, None)

    def _after(self, state, outputs, inputs, t):
        """`(state, outputs)` after a step, or all steps for `None`."""
        (spikes,) = outputs
        if t is None and type(self).emitted is not NeuronHandler.emitted:
            inputs = self.rows(inputs)
        spikes = keras_internals.masked_as(self.emitted(spikes, inputs, t), spikes)
        if not self.context.records:
            loss = plus(state.loss, self.regularization_of_step([spikes], t))
            return state._replace(loss=loss), [spikes]
        mask = keras_internals.row_mask(spikes)
        if mask is not None:
            counts = self.means.add(state.counts, [ops.cast(mask, "float32")], t)
            state = state._replace(counts=counts)
        return state, [spikes]

    def carried(self, state):
        return state.cell

    def resumed(self, carried):
        return NeuronState(carried)

    def release(self, state):
        # All steps at once have been summarised.
        state = state if self.context.all_at_once else self.summarize(state)
        self.cell.after_steps(state.cell)
        return state._replace(cell=())

    def rates(self, state, inputs):
        (mean_input,) = self.rates_of(inputs)
        if state.counts:
            # Where rows are masked at some steps, the input changes at the others
            # alone: by more than its mean does.
            share = self.means.rows(state.counts[0])
            some = share > 0.0
            slope = ops.where(some, 1.0 / ops.where(some, share, 1.0), 0.0)
            slope = time_axis.cast(slope, mean_input.dtype)
            slope = time_axis.as_rows(slope, mean_input)
            mean_input = engine.graft(mean_input, mean_input, slope)
        rate = time_axis.cast(self.firing_rate(state.record, mean_input), self.dtype)
        return [rate], self.regularization_of_rates([rate])

    def firing_rate(self, record: Any, mean_input: Tensor) -> Tensor:
        """The firing rate in each window, `(batch * W, ...)`, with gradient.

        Args:
            record: What `summarize` recorded.
            mean_input: Tensor c `(batch * W, ...)`, the rate of the input current, with
                gradient.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must implement `firing_rate(record, mean_input)`, "
            "or be a subclass of EligibilityHandler."
        )
