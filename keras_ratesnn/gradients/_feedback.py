r"""The firing rates of recurrent neurons, and their derivatives.

Recurrence couples neurons, so an eligibility g is that of the neurons given their whole current, the input and what comes back
through the synapse V. The latter has in each window the mean ȳ of s_{t−1} over its steps t, with the derivative of the rates:

    dc_{w'} = dx_{w'} + dV ȳ_{w'} + V Σ_w κ_{w'w} dr_w            κ_{w'w} = |{t ∈ w': t − 1 ∈ w}| / n_{w'}

Earlier windows are known. Within a window the equation is implicit, since r depends on c: `SWEEPS` steps of its fixed-point
iteration solve it approximately. If each window is a step, κ_{ww} = 0, and the derivative is exact.
"""

from keras import ops

from keras_ratesnn._core import backend, time_axis
from keras_ratesnn._core.annotations import Tensor
from keras_ratesnn.gradients import _eligibility, _windows
from keras_ratesnn.gradients.neuron_pass import NeuronPass

SWEEPS = 1
"""More have no effect that pays: the error that travels through the synapse twice is small."""


class FeedbackPass(NeuronPass):
    """Recurrent neurons in a time loop that also record their rates, eligibilities, and the means of what comes back.

    Args:
        cell: A cell that `feeds_back`.
        dtype: String, the dtype of the spikes.
        sizes: Tuple of integers, the sizes of the windows.
    """

    def __init__(self, cell, dtype, sizes):
        super().__init__(cell, dtype, with_gradient=False)
        self._neurons = _eligibility.EligibilityPass(cell.independent_cell(), dtype, sizes)

    def phase(self, t):
        return self._neurons.phase(t)

    def start(self, current):
        spikes = ops.zeros_like(current, dtype=time_axis.accumulation_dtype(current.dtype))
        return {"neurons": self._neurons.start(current), "spikes": spikes, "fed": [0.0 for _ in self._neurons.sizes]}

    def advance(self, phase, current, carried):
        before = carried["spikes"]
        current = time_axis.cast(current, before.dtype) + self.cell.fed_back(before)
        spikes, neurons = self._neurons.advance(phase, current, carried["neurons"])
        fed = _windows.accumulate(carried["fed"], before, phase)
        return spikes, {"neurons": neurons, "spikes": time_axis.cast(spikes, before.dtype), "fed": fed}

    def at_padding(self, carried):
        return {**carried, "spikes": ops.zeros_like(carried["spikes"])}

    def as_tensors(self, carried):
        fed = [x if ops.is_tensor(x) else ops.full_like(carried["spikes"], x) for x in carried["fed"]]
        return {**carried, "neurons": self._neurons.as_tensors(carried["neurons"]), "fed": fed}

    def finish(self, carried):
        state, recorded = self._neurons.finish(carried["neurons"])
        sizes = self._neurons.sizes
        fed = [ops.convert_to_tensor(total) / size for total, size in zip(carried["fed"], sizes, strict=True)]
        record = [{**of_window, "fed": mean} for of_window, mean in zip(recorded, fed, strict=True)]
        return {"cell": state, "spikes": carried["spikes"]}, record


def firing_rate(cell, recorded, mean_input, windows):
    """The firing rate in each window, as `_eligibility.firing_rate` gives it, from the record of a `FeedbackPass`."""
    currents: list[Tensor] = []
    rates: list[Tensor] = []
    for window, (mean, of_window) in enumerate(zip(windows.cut(mean_input), recorded, strict=True)):
        value, slopes, fed = (windows.of_steps_that_count(of_window[name], window) for name in ("rate", "slopes", "fed"))
        within, from_previous = windows.followers(window, value)
        weights = _eligibility.values_of_weights(cell.independent_cell(), value)

        def answer(before, mean=mean, value=value, slopes=slopes, weights=weights):
            current = time_axis.cast(mean, value.dtype) + cell.fed_back(before)
            return current, _eligibility.grafted(value, [*currents, current, *weights], slopes)

        earlier = backend.graft(fed, rates[-1], from_previous) if rates else ops.stop_gradient(fed)
        current, rate = answer(earlier)
        for _ in range(SWEEPS if windows.sizes[window] > 1 else 0):
            current, rate = answer(earlier + backend.graft(ops.zeros_like(value), rate, within))
        currents.append(current)
        rates.append(rate)
    return _windows.join(rates)
