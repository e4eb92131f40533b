"""Neurons in a time loop that show more than their spikes at each step."""

from keras import ops

from keras_ratesnn._core import time_axis, tree
from keras_ratesnn.gradients import _eligibility
from keras_ratesnn.gradients.neuron_pass import NeuronPass


class MembranePass(NeuronPass):
    """The result of each step is the spikes and the membrane before the reset, joined on a last axis of size 2."""

    def advance(self, phase, current, carried):
        membrane, spikes, state = self.cell.step(current, carried)
        return self._joined(membrane, spikes), state

    def all_steps(self, currents, mask):
        membranes = self.cell.over_time(currents)
        return self._joined(membranes, self.cell.fire(membranes)), (membranes, ())

    @staticmethod
    def _joined(membrane, spikes):
        dtype = time_axis.accumulation_dtype(membrane.dtype)
        return ops.stack([time_axis.cast(spikes, dtype), time_axis.cast(membrane, dtype)], axis=-1)


class SensitivityPass(NeuronPass):
    """The result of each step is κ_t = Σ_τ ∂s_t/∂I_τ: the derivative of the spikes along a constant shift of the input.

    Its time mean is the eligibility of the rate gradient, see `_eligibility`.
    """

    @property
    def compiles(self):
        return _eligibility.has_written_derivative(self.cell)

    def all_steps(self, currents, mask):
        membranes = self.cell.over_time(currents)
        shift = self.cell.over_time(ops.ones_like(currents[:1])) - self.cell.over_time(ops.zeros_like(currents[:1]))
        return time_axis.widen(self.cell.surrogate_derivative(membranes) * shift), (membranes, ())

    def at_padding(self, carried):
        return {**carried, "state": super().at_padding(carried["state"])}

    def start(self, current):
        state = self.cell.initial_state(current)
        return {"state": state, "tangent": tree.map_leaves(lambda _: 0.0, state)}

    def advance(self, phase, current, carried):
        _, state, along, slope = _eligibility.step(self.cell, current, carried["state"])
        of_distance, tangent = along(1.0, carried["tangent"], None)
        sensitivity = slope * of_distance
        return time_axis.widen(sensitivity), {"state": state, "tangent": tangent}

    def as_tensors(self, carried):
        like = tree.flatten(carried["state"])[0]
        tangent = tree.map_leaves(
            lambda x: x if ops.is_tensor(x) else ops.convert_to_tensor(x, dtype=like.dtype), carried["tangent"]
        )
        return {"state": carried["state"], "tangent": tangent}

    def finish(self, carried):
        return carried["state"], ()
