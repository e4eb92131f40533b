"""Neurons that give their membranes beside their spikes, for what watches a network."""

from keras import ops

from keras_ratesnn._core import keras_internals, time_axis
from keras_ratesnn.gradients.handlers.neuron import NeuronHandler


class WithMembranes(NeuronHandler):
    """Neurons with two outputs: spikes, and membranes before the reset."""

    def __init__(self, call, context):
        super().__init__(call, context)
        # A loop over time has one output: the two are joined on a last axis.
        self.dtype = time_axis.accumulation_dtype(self.dtype)

    def _output(self, membranes, spikes):
        return ops.stack(
            [time_axis.cast(spikes, self.dtype), time_axis.cast(membranes, self.dtype)],
            axis=-1,
        )

    def regularization_of_step(self, outputs, t):
        """Nothing: the outputs are not spikes alone."""

    def step(self, state, inputs, t):
        return self._apart(*super().step(state, inputs, t))

    def all_steps(self, state, inputs):
        return self._apart(*super().all_steps(state, inputs))

    def _apart(self, state, outputs):
        (both,) = outputs
        spikes = time_axis.cast(both[..., 0], self.operation.compute_dtype)
        return state, [keras_internals.masked_as(spikes, both), both[..., 1]]
