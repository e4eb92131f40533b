"""The firing rates of neurons whose weights belong to time steps, such as parallel neurons, and their derivatives.

The membranes are affine in the inputs of all steps, v_t = Σ_j W_tj I_j + b_t. With a shift c of the inputs in a window w,

    ∂r_{w'}/∂c_w = (1/n_{w'}) Σ_{t ∈ w'} h(v_t) Σ_{j ∈ w} W_tj

also for windows w later than w'. The own weights need h(v_t) and I_t at every step, 2T numbers a neuron; if all steps share
them, a sum over time for each.
"""

from keras import ops

from keras_ratesnn._core import backend, time_axis
from keras_ratesnn.gradients import _eligibility, _windows
from keras_ratesnn.gradients.neuron_pass import NeuronPass


class AllStepsPass(NeuronPass):
    """Neurons of a cell with `in_parallel` that also record what the rate pass needs, as an `EligibilityPass` does.

    Args:
        cell: A `NeuronCell`.
        dtype: String, the dtype of the spikes.
        windows: `Windows`.
    """

    compiles = False

    def __init__(self, cell, dtype, windows):
        super().__init__(cell, dtype, with_gradient=False)
        self.windows = windows

    def all_steps(self, currents, mask):
        membranes, spikes, record = self._of_all_steps(currents, mask)
        return time_axis.cast(spikes, self.dtype), (membranes, record)

    # One step after the other, the inputs of all steps are kept for the end.

    def phase(self, t):
        return ops.reshape(ops.arange(self.windows.timesteps, dtype="int32") == t, (1, -1)), ()

    def valid_phase(self, phase, valid):
        return phase[0], valid

    def start(self, current):
        like = ops.repeat(
            ops.zeros_like(current[:, None], dtype=time_axis.accumulation_dtype(current.dtype)), self.windows.timesteps, axis=1
        )
        return {"state": self.cell.initial_state(current), "inputs": like, "counts": ()}

    def advance(self, phase, current, carried):
        _, spikes, state = self.cell.step(current, carried["state"])
        inputs, counts, (is_now, valid) = carried["inputs"], carried["counts"], phase
        now = ops.reshape(is_now, (1, -1, *[1 for _ in current.shape[1:]]))
        inputs = ops.where(now, time_axis.cast(current, inputs.dtype)[:, None], inputs)
        if ops.is_tensor(valid):
            counts_now = ops.logical_and(now, valid[:, None])
            counts = ops.logical_or(counts, counts_now) if ops.is_tensor(counts) else counts_now
        return time_axis.cast(spikes, self.dtype), {"state": state, "inputs": inputs, "counts": counts}

    def finish(self, carried):
        mask = carried["counts"] if ops.is_tensor(carried["counts"]) else None
        _, _, record = backend.detached(self._of_all_steps, carried["inputs"], mask)
        return carried["state"], record

    def _of_all_steps(self, currents, mask):
        cell, windows = self.cell, self.windows
        membranes, spikes, slope = _fired(cell, currents, mask)
        record = {
            "rate": _means(windows, time_axis.zero_unless(mask, spikes)),
            "slopes": [_means(windows, slope * of_window) for of_window in _shifts(cell, windows, mask, membranes)],
            "own": {"slope": slope, "inputs": currents} if cell.trainable_variables else (),
        }
        return membranes, spikes, record


def firing_rate(cell, recorded, mean_input, windows):
    """The firing rate in each window, as `_eligibility.firing_rate` gives it, from the record of an `AllStepsPass`."""
    inputs = windows.cut(mean_input)
    values = windows.cut(recorded["rate"])
    slopes = zip(*map(windows.cut, recorded["slopes"]), strict=True)
    rates = [_eligibility.grafted(value, inputs, of_window) for value, of_window in zip(values, slopes, strict=True)]
    rate = _windows.join(rates)
    if recorded["own"]:
        # With respect to the own weights alone.
        slope, currents = (ops.stop_gradient(recorded["own"][name]) for name in ("slope", "inputs"))
        own = _means(windows, slope * cell.over_time(currents))
        rate = rate + (own - ops.stop_gradient(own))
    return rate


class PartialSumsPass(_eligibility.EligibilityPass):
    """An `EligibilityPass` that in multi-step mode computes its sums over time from all steps at once.

    Args:
        cell: A `NeuronCell` with `in_parallel`, whose membranes depend on earlier inputs alone, and `over_time_derivatives`.
        dtype: String, the dtype of the spikes.
        windows: `Windows`.
    """

    parallel = True

    def __init__(self, cell, dtype, windows):
        super().__init__(cell, dtype, windows.sizes)
        self.windows = windows

    def all_steps(self, currents, mask):
        membranes, spikes, slope = _fired(self.cell, currents, mask)
        shifts = _shifts(self.cell, self.windows, mask, membranes)
        # Each product is summed before the next one needs memory.
        by_window = [self._sums(slope * shift) for shift in shifts]
        by_part = [self._sums(slope * derivative) for derivative in self.cell.over_time_derivatives(currents)]
        record = [
            {"rate": rate, "slopes": [sums[window] for sums in (*by_window[: window + 1], *by_part)]}
            for window, rate in enumerate(self._sums(time_axis.zero_unless(mask, spikes)))
        ]
        return time_axis.cast(spikes, self.dtype), (membranes, record)

    def _sums(self, steps):
        """The sum over the steps of each window, divided by its size."""
        return [ops.sum(steps[:, start:end], axis=1) / (end - start) for start, end in _windows.spans(self.sizes)]


def _fired(cell, currents, mask):
    """Membranes and spikes of all steps, `(batch, T, ...)`, and the surrogate derivatives, 0 at steps that do not count."""
    membranes = cell.over_time(currents)
    return membranes, cell.fire(membranes), time_axis.zero_unless(mask, cell.surrogate_derivative(membranes))


def _shifts(cell, windows, mask, like):
    """By how much membranes rise if the inputs of the steps of a window that count do by 1, for each window.

    Tensors that broadcast to the membranes of all steps, `like`.
    """
    inside = [_windows.inside(windows.sizes, t) or (1.0,) for t in range(windows.timesteps)]
    axes = [1 for _ in like.shape[2:]]
    inside = ops.reshape(ops.convert_to_tensor(inside, like.dtype), (1, windows.timesteps, *axes, len(windows)))
    if mask is not None:
        inside = inside * ops.reshape(ops.cast(mask, like.dtype), (*ops.shape(mask), *axes[len(mask.shape) - 2 :], 1))
    shifted = cell.over_time(inside) - cell.over_time(ops.zeros_like(inside))
    return [shifted[..., window] for window in range(len(windows))]


def _means(windows, steps):
    return windows.means_over_steps(time_axis.fold(steps))
