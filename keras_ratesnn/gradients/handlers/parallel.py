"""The firing rates of neurons whose weights belong to time steps, such as parallel
neurons, and their derivatives.

The membranes are affine in the inputs of all steps, v_t = Σ_j W_tj I_j + b_t. With a
shift c of the inputs in a window w,

    ∂r_{w'}/∂c_w = (1/n_{w'}) Σ_{t ∈ w'} h(v_t) Σ_{j ∈ w} W_tj

also for windows w later than w'. The own weights need h(v_t) and I_t at every step, 2T
numbers a neuron; if all steps share them, a sum over time for each.
"""

from typing import Any, NamedTuple

from keras import ops

from keras_ratesnn._core import time_axis
from keras_ratesnn._core.backend import engine
from keras_ratesnn.gradients.handlers.eligibility import (
    EligibilityHandler,
    WindowMeans,
    grafted,
)
from keras_ratesnn.gradients.handlers.neuron import NeuronHandler, NeuronState
from keras_ratesnn.gradients.time.windows import join


class Inputs(NamedTuple):
    """The inputs of all steps so far, `(batch, T, ...)`, and which of them count; `()`
    if all do."""

    inputs: Any
    counts: Any = ()


class Record(NamedTuple):
    """The rate in each window, its slopes by the inputs of each, and for the own
    weights the slopes and inputs of all steps."""

    rate: Any
    slopes: Any
    own: Any


class AllStepsHandler(NeuronHandler):
    """Neurons of a cell with `in_parallel` and without a `step_derivative`."""

    begins_incomplete = True
    fuses = False

    def at_once(self, currents, mask):
        membranes, spikes, slope = _fired(self.cell, currents, mask)
        shifts = _shifts(self.cell, self.windows, mask, membranes)
        slopes = [self._means(slope * shift) for shift in shifts]
        own = (slope, currents) if self.cell.trainable_variables else ()
        rate = self._means(time_axis.zero_unless(mask, spikes))
        state = NeuronState(membranes, Record(rate, slopes, own))
        return state, time_axis.cast(spikes, self.dtype)

    # One step after the other, the inputs of all steps are kept for the end.

    def phase(self, t, valid=None):
        steps = ops.arange(self.windows.timesteps, dtype="int32")
        is_now = ops.reshape(steps == t, (1, -1))
        return is_now, () if valid is None else valid

    def start(self, inputs):
        (current,), timesteps = inputs, self.windows.timesteps
        dtype = time_axis.accumulation_dtype(current.dtype)
        zeros = ops.zeros_like(current[:, None], dtype=dtype)
        record = Inputs(ops.repeat(zeros, timesteps, axis=1))
        return super().start(inputs)._replace(record=record)

    def advance(self, state, inputs, phase):
        (current,), (so_far, counts), (is_now, valid) = inputs, state.record, phase
        now = ops.reshape(is_now, (1, -1, *[1 for _ in current.shape[1:]]))
        so_far = ops.where(now, time_axis.cast(current, so_far.dtype)[:, None], so_far)
        if ops.is_tensor(valid):
            counts_now = ops.logical_and(now, valid[:, None])
            if ops.is_tensor(counts):
                counts_now = ops.logical_or(counts, counts_now)
            counts = counts_now
        after, spikes = super().advance(state, inputs, phase)
        return after._replace(record=Inputs(so_far, counts)), spikes

    def summarize(self, state):
        mask = state.record.counts if ops.is_tensor(state.record.counts) else None
        after, _ = engine.detached(self.at_once, state.record.inputs, mask)
        return state._replace(record=after.record)

    def firing_rate(self, record, mean_input):
        cut = self.windows.cut
        inputs = cut(mean_input)
        slopes = zip(*map(cut, record.slopes), strict=True)
        rates = [
            grafted(value, inputs, by_input)
            for value, by_input in zip(cut(record.rate), slopes, strict=True)
        ]
        rate = join(rates)
        if record.own:
            # With respect to the own weights alone.
            slope, currents = map(ops.stop_gradient, record.own)
            own = self._means(slope * self.cell.over_time(currents))
            rate = rate + (own - ops.stop_gradient(own))
        return rate

    def _means(self, steps):
        return self.windows.means_over_steps(time_axis.fold(steps))


class PartialSumsHandler(EligibilityHandler):
    """Neurons of a cell with `in_parallel` whose membranes depend on earlier inputs
    alone, with `over_time_derivatives`.

    In multi-step mode the sums over time are computed from all steps at once.
    """

    parallel = True

    def at_once(self, currents, mask):
        membranes, spikes, slope = _fired(self.cell, currents, mask)
        # Each product is summed before the next one needs memory.
        by_window = [
            self._means(slope * shift)
            for shift in _shifts(self.cell, self.windows, mask, membranes)
        ]
        by_part = [
            self._means(slope * derivative)
            for derivative in self.cell.over_time_derivatives(currents)
        ]
        rates = self._means(time_axis.zero_unless(mask, spikes))
        record = []
        for window, rate in enumerate(rates):
            affecting = by_window[self.windows.until(window)] + by_part
            slopes = [means[window] for means in affecting]
            record.append(WindowMeans(rate, slopes))
        return NeuronState(membranes, record), time_axis.cast(spikes, self.dtype)

    def _means(self, steps):
        """The sum over the steps of each window, divided by its size."""
        return [
            ops.sum(part, axis=1) / part.shape[1]
            for part in self.windows.steps_of_each(steps)
        ]


def _fired(cell, currents, mask):
    """Membranes and spikes of all steps, `(batch, T, ...)`, and the surrogate
    derivatives, 0 at steps that do not count."""
    membranes = cell.over_time(currents)
    spikes = cell.fire(membranes)
    slope = time_axis.zero_unless(mask, cell.surrogate_derivative(membranes))
    return membranes, spikes, slope


def _shifts(cell, windows, mask, membranes):
    """By how much membranes rise if the inputs of the steps of a window that count do
    by 1, for each window.

    Tensors that broadcast to the membranes of all steps. The cell is given inputs of
    all neurons, unless one stands for them, of one sample if all steps count.
    """
    axes = [1 for _ in membranes.shape[2:]]
    here = ops.convert_to_tensor(windows.membership(), membranes.dtype)
    here = ops.reshape(here, (1, len(windows), windows.timesteps, *axes))
    if mask is not None:
        batch, *shape = ops.shape(mask)
        counts = ops.reshape(mask, (batch, 1, *shape, *axes[len(shape) - 1 :]))
        here = here * ops.cast(counts, here.dtype)
    here = time_axis.fold(here)
    # Of this very class: a subclass may add weights.
    if not vars(type(cell)).get("neurons_share_weights"):
        here = here + ops.zeros_like(membranes[:1])
    shifted = cell.over_time(here) - cell.over_time(ops.zeros_like(here[:1]))
    return windows.cut(shifted)
