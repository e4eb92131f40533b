"""Neurons whose membranes pass from one sample of a batch to the next, as they do in a
published program."""

from keras import ops

from keras_ratesnn._core import registry, time_axis, tree
from keras_ratesnn._core.annotations import Structure, Tensor
from keras_ratesnn.layers.neuron_cell import WrappingCell


@registry.register
class SharedMembraneCell(WrappingCell):
    """One time step of neurons that take the samples of a batch for time steps.

    The first sample starts with the state that the last one left in the step before,
    and each other one with the state that the one before it left. It is for inference:
    outputs depend on the batch and its order.

    Args:
        cell: A `NeuronCell`.
        **kwargs: `name`, `dtype`, `trainable` of a Keras layer.

    Source: the last neurons of self-attention in the program of Zhou et al.,
    "QKFormer", NeurIPS 2024.
    """

    couples_samples = True

    def initial_state(self, inputs: Tensor) -> Structure:
        return self.cell.initial_state(inputs)

    def step(
        self, inputs: Tensor, state: Structure
    ) -> tuple[Tensor, Tensor, Structure]:
        def next_sample(carried, current):
            _, _, *before = carried
            state_before = tree.filled(state, [leaf[None] for leaf in before])
            results = self.cell.step(current[None], state_before)
            # On TensorFlow outputs must be like what is carried.
            outputs = [leaf[0] for leaf in tree.flatten(results)]
            return outputs, outputs

        currents = time_axis.widen(inputs)
        nothing = ops.zeros_like(currents[0])
        last = [leaf[-1] for leaf in tree.flatten(state)]
        _, (membrane, spikes, *after) = ops.scan(
            next_sample, [nothing, nothing, *last], currents
        )
        return membrane, spikes, tree.filled(state, after)
