"""Membranes of single neurons over time."""

import dataclasses
from typing import Any

import numpy as np

from keras_ratesnn._core import checks
from keras_ratesnn._core.annotations import Structure
from keras_ratesnn.analysis import _figures
from keras_ratesnn.analysis.activity._neurons import recorded
from keras_ratesnn.spiking_model import SpikingModel


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
    indices, spikes, values = recorded(model, x, layer, neurons, membranes=True)
    return Membranes(layer, indices, values, spikes)
