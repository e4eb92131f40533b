r"""The firing rates of recurrent neurons, and their derivatives.

Recurrence couples neurons, so an eligibility g is that of the neurons given their whole
current, the input and what comes back through the synapse V. The latter has in each
window the mean ȳ of s_{t−1} over its steps t, with the derivative of the rates:

    dc_{w'} = dx_{w'} + dV ȳ_{w'} + V Σ_w κ_{w'w} dr_w
            κ_{w'w} = |{t ∈ w': t − 1 ∈ w}| / n_{w'}

Earlier windows are known. Within a window the equation is implicit, since r depends on
c: `SWEEPS` steps of its fixed-point iteration solve it approximately. If each window is
a step, κ_{ww} = 0, and the derivative is exact.
"""

from keras import ops

from keras_ratesnn._core import time_axis
from keras_ratesnn._core.annotations import Tensor
from keras_ratesnn._core.backend import engine
from keras_ratesnn.gradients.handlers.eligibility import EligibilityHandler, grafted
from keras_ratesnn.gradients.handlers.neuron import NeuronHandler, NeuronState
from keras_ratesnn.gradients.time.windows import accumulate, join
from keras_ratesnn.layers.recurrent import with_feedback

SWEEPS = 1
"""More have no effect that pays: the error that travels through the synapse twice is
small."""


class FeedbackHandler(EligibilityHandler):
    """Neurons with `feedback`, which also accumulate the means of what comes back."""

    fuses = False

    def start(self, inputs):
        state = NeuronHandler.start(self, inputs)
        sums = self.nothing(inputs[0], state.cell["cell"])
        return state._replace(record=sums._replace(fed=sums.spikes))

    def advance(self, state, inputs, phase):
        before = state.cell["spikes"]
        current = with_feedback(inputs[0], before, self.cell.feedback)
        inner = NeuronState(state.cell["cell"], state.record)
        after, (spikes,) = super().advance(inner, [current], phase)
        sums = after.record._replace(fed=accumulate(after.record.fed, before, phase))
        cell = {"cell": after.cell, "spikes": time_axis.cast(spikes, before.dtype)}
        return NeuronState(cell, sums), [spikes]

    def summarize(self, state):
        totals, record = state.record.fed, []
        state = super().summarize(state)
        sizes = self.windows.sizes
        for means, total, size in zip(state.record, totals, sizes, strict=True):
            fed = ops.convert_to_tensor(total) / size
            record.append(means._replace(fed=fed))
        return state._replace(record=record)

    def firing_rate(self, record, mean_input):
        windows = self.windows
        currents: list[Tensor] = []
        rates: list[Tensor] = []
        inputs = windows.cut(mean_input)
        for window, mean in enumerate(inputs):
            value, slopes, fed = self.means_of(record, window)
            within, from_previous = windows.followers(window, value)
            weights = self.values_of_weights(value)

            def answer(before, mean=mean, value=value, slopes=slopes, weights=weights):
                current = with_feedback(mean, before, self.cell.feedback)
                return current, grafted(value, [*currents, current, *weights], slopes)

            if rates:
                earlier = engine.graft(fed, rates[-1], from_previous)
            else:
                earlier = ops.stop_gradient(fed)
            current, rate = answer(earlier)
            for _ in range(SWEEPS if windows.sizes[window] > 1 else 0):
                same = engine.graft(ops.zeros_like(value), rate, within)
                current, rate = answer(earlier + same)
            currents.append(current)
            rates.append(rate)
        return join(rates)
