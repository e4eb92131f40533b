"""A layer that mixes time steps, in a time loop."""

from typing import Any

from keras_ratesnn._core import time_axis, tree
from keras_ratesnn.gradients.neuron_pass import NeuronPass


class MixingPass(NeuronPass):
    """Runs a `layers.TimeMixing` step by step."""

    quantity = "mixed"
    waits = False
    parallel = False
    compiles = False

    def start(self, current):
        return self.cell.initial_state(current)

    def advance(self, phase, current, carried):
        layer: Any = self.cell
        outputs, after = layer.step(current, carried)
        # A loop carries tensors of one dtype, that of the initial state.
        after = tree.map_leaves(lambda new, old: time_axis.cast(new, old.dtype), after, carried)
        return time_axis.cast(outputs, self.dtype), after

    def after_steps(self, state):
        """Does nothing."""
