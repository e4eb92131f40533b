"""The subject of the checks of a cell: copies of the cell, and inputs that make it
spike."""

import keras
import numpy as np
from keras import ops

from keras_ratesnn.layer_kinds import seeds_of
from keras_ratesnn.layers import Neuron
from keras_ratesnn.spiking_model import SpikingModel
from keras_ratesnn.testing._findings import to_numpy

TIMESTEPS = 4
BATCH = 3


class Subject:
    """A cell under check, with inputs of one shape.

    Args:
        cell: A `NeuronCell`; only copies of it are run.
        shape: Tuple, the shape of its inputs without the batch.
        scale: Float, the scale of the inputs.
    """

    def __init__(self, cell, shape, scale):
        self.cell = cell
        self.name = type(cell).__name__
        self.shape = shape
        random = np.random.default_rng(0)
        built = self.copy(moved=False)
        self.seeds = to_numpy(seeds_of(built))
        amplitude = scale * float(np.mean(built.threshold))
        self.inputs = amplitude * random.uniform(
            -0.5, 1.5, (TIMESTEPS, BATCH, *shape)
        ).astype("float32")
        # The effect of weights that start at zero or one would be hidden.
        self.weights = [self._moved(random, variable) for variable in built.variables]

    def copy(self, dtype="float32", shape=None, moved=True):
        """A built copy of the cell, with weights of its own; if `moved`, with the
        values of `weights`."""
        cell = type(self.cell).from_config({**self.cell.get_config(), "dtype": dtype})
        cell.build((None, *(self.shape if shape is None else shape)))
        if moved:
            for variable, value in zip(cell.variables, self.weights, strict=True):
                variable.assign(value)
        return cell

    def rewind(self, cell):
        """Lets a copy draw the random numbers of a new one."""
        for variable, value in zip(seeds_of(cell), self.seeds, strict=True):
            variable.assign(value)

    def steps(self, cell, inputs):
        """`(spikes, states)` of a cell at each step: lists."""
        state, all_spikes, states = None, [], []
        for current in inputs:
            spikes, state = cell(
                ops.convert_to_tensor(current, dtype=cell.compute_dtype), state
            )
            all_spikes.append(spikes)
            states.append(state)
        return all_spikes, states

    def model(self, cell, before=(), **kwargs):
        """A `SpikingModel` of one neuron layer, after the layers `before`."""
        x = inputs = keras.Input(self.shape, dtype=cell.compute_dtype)
        for layer in before:
            x = layer(x)
        network = keras.Model(
            inputs, Neuron(cell, dtype=cell.dtype_policy, name="neurons")(x)
        )
        return SpikingModel(network, timesteps=TIMESTEPS, **kwargs)

    def values(self, dtype="float32"):
        """The values that spikes may have: an array, 0 first."""
        values = np.arange(self.cell.levels + 1) * self.cell.spike_size
        return to_numpy(ops.convert_to_tensor(values, dtype=dtype))

    def values_as_text(self):
        """These values, for messages."""
        cell = self.cell
        if cell.levels == 1 and cell.spike_size == 1.0:
            return "0 or 1"
        return f"integers from 0 to {cell.levels}" + (
            "" if cell.spike_size == 1.0 else f", times {cell.spike_size:.6g}"
        )

    def sequence(self):
        """The inputs as a batch of a `SpikingModel`."""
        return np.moveaxis(self.inputs, 0, 1)

    @staticmethod
    def _moved(random, variable):
        value = np.asarray(ops.convert_to_numpy(variable))
        return (
            value + random.uniform(-0.1, 0.1, value.shape).astype(value.dtype)
            if variable.trainable
            else value
        )
