"""Membranes of single neurons over time."""

import dataclasses
from typing import Any

import numpy as np
from keras import ops

from keras_ratesnn._core import checks, keras_internals, time_axis
from keras_ratesnn._core.annotations import Structure
from keras_ratesnn._graph import Signal
from keras_ratesnn.analysis import _figures, _neurons, _observation
from keras_ratesnn.gradients import NeuronHandler, with_neurons
from keras_ratesnn.gradients.handlers.neuron import State
from keras_ratesnn.spiking_model import SpikingModel, checked_model


@dataclasses.dataclass(frozen=True, eq=False)
class Membranes:
    """The result of `membranes`.

    Args:
        layer: String, the name of the layer.
        neurons: Array of N integers, indices in the flattened layer.
        values: Array `(samples, T, N)`: the membrane v_t at each step, after the input and before the reset.
        spikes: Array `(samples, T, N)`, 0 or 1, or integers for neurons that spike several times in a step.
    """

    layer: str
    neurons: np.ndarray
    values: np.ndarray
    spikes: np.ndarray

    def plot(self, sample: int = 0) -> Any:
        """Draws the membranes of one sample, with a mark where a neuron spikes.

        Args:
            sample: Integer, its index in the batch. Defaults to `0`.

        Returns:
            A `matplotlib.figure.Figure`.

        Raises:
            ImportError: If Matplotlib is not installed.
            TypeError: If `sample` is not an integer.
            IndexError: If there is no such sample.
        """
        sample = checks.index("sample", sample, len(self.values))
        values, spikes = self.values[sample], self.spikes[sample]
        figure = _figures.new_figure(5.5, 3.8)
        axes = figure.subplots()
        steps = np.arange(1, len(values) + 1)
        for index, neuron in enumerate(self.neurons):
            color, line = _figures.shade(index, len(self.neurons)), ("-", "--", "-.", ":")[index % 4]
            axes.plot(steps, values[:, index], color=color, linestyle=line, label=f"neuron {neuron}")
            fired = spikes[:, index] > 0
            axes.scatter(steps[fired], values[fired, index], color=color, marker="o", s=25)
        axes.scatter([], [], color="black", marker="o", s=25, label="spike")
        axes.set(xlabel="time step", ylabel=f"membrane of {self.layer}", xticks=_figures.step_ticks(len(steps)))
        axes.set_title(f"sample {sample}", fontsize="medium")
        axes.grid(alpha=0.3)
        if len(self.neurons) <= 8:
            figure.legend(loc="outside right upper", fontsize="small")
        return figure


def membranes(model: SpikingModel, x: Structure, layer: str, neurons: int | list[int] = 5) -> Membranes:
    """Records the membranes of some neurons of a layer at each time step.

    The model runs in inference mode, and is not changed.

    Example:

    >>> inputs = keras.Input((1,))
    >>> network = keras.Model(inputs, keras_ratesnn.layers.IF(name="neurons")(inputs))
    >>> model = keras_ratesnn.SpikingModel(network, timesteps=4)
    >>> found = membranes(model, np.array([[0.75]], "float32"), "neurons")
    >>> found.values[0, :, 0].tolist(), found.spikes[0, :, 0].tolist()
    ([0.75, 1.5, 1.25, 1.0], [0.0, 1.0, 1.0, 1.0])

    Args:
        model: A `SpikingModel`.
        x: A batch of inputs, as for `model.predict`. It is processed as one batch.
        layer: String, the name of a neuron layer. The second call of a shared layer is named "NAME (2)".
        neurons: Integer, how many neurons, evenly spaced; or a list of indices in the flattened layer. Defaults to `5`.

    Returns:
        `Membranes`.

    Raises:
        TypeError: If `model` is not a `SpikingModel`, `layer` not a string, or `neurons` are not integers.
        ValueError: If there is no such layer or neuron, or `x` does not fit the model or has no samples.
    """
    x = _observation.tensors(checked_model(model), x)
    checks.instance("layer", layer, str)
    names = _observation.Names()
    found: list[np.ndarray] = []

    def watched(call, context):
        if names.add(call.operation.name) != layer:
            return NeuronHandler(call, context)
        return _WithMembranes(call, context, found)

    _observation.observed(model, x, nodes=with_neurons(watched))
    names.check("layer", layer)
    indices, (values, spikes) = _neurons.chosen(neurons, found)
    return Membranes(layer, indices, values, spikes)


class _WithMembranes(NeuronHandler):
    """Neurons whose membranes and spikes at all steps are appended to `found`."""

    def __init__(self, call, context, found):
        super().__init__(call, context)
        self._found = found

    # A step, and all at once, give the spikes and the membrane before the reset, joined on a last axis of size 2.

    def advance(self, state, inputs, phase):
        membrane, spikes, cell = self.cell.step(inputs[0], state.cell)
        return State(cell), [_joined(membrane, spikes)]

    def at_once(self, currents, mask):
        membranes = self.cell.over_time(currents)
        return State(membranes), _joined(membranes, self.cell.fire(membranes))

    def regularization_of_step(self, outputs, t):
        """None: the outputs are not spikes alone."""

    def all_steps(self, state, inputs):
        state, (both,) = super().all_steps(state, inputs)
        spikes, membrane = both[..., 0], both[..., 1]
        timesteps = self.context.windows.timesteps
        counted = _observation.spikes(self, Signal(spikes), timesteps)
        self._found += [_observation.unfolded(membrane, timesteps), counted]
        spikes = time_axis.cast(spikes, self.operation.compute_dtype)
        return state, [keras_internals.put_mask(spikes, keras_internals.mask_of(both))]


def _joined(membrane, spikes):
    dtype = time_axis.accumulation_dtype(membrane.dtype)
    return ops.stack([time_axis.cast(spikes, dtype), time_axis.cast(membrane, dtype)], axis=-1)
