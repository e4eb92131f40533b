"""Spikes of single neurons over time."""

import dataclasses
from typing import Any

import numpy as np

from keras_ratesnn._core import checks
from keras_ratesnn._core.annotations import Structure
from keras_ratesnn.analysis import _figures, _neurons, _observation
from keras_ratesnn.spiking_model import SpikingModel, checked_model


@dataclasses.dataclass(frozen=True, eq=False)
class Raster:
    """The result of `raster`.

    Args:
        layer: String, the name of the layer.
        neurons: Array of N integers, indices in the flattened layer.
        spikes: Array `(samples, T, N)`, 0 or 1, or integers for neurons that spike several times in a step.
    """

    layer: str
    neurons: np.ndarray
    spikes: np.ndarray

    def plot(self, sample: int = 0) -> Any:
        """Draws a mark where a neuron spikes, for one sample; it is thicker for several spikes in a step.

        Args:
            sample: Integer, its index in the batch. Defaults to `0`.

        Returns:
            A `matplotlib.figure.Figure`.

        Raises:
            ImportError: If Matplotlib is not installed.
            TypeError: If `sample` is not an integer.
            IndexError: If there is no such sample.
        """
        spikes = self.spikes[checks.integer("sample", sample)]
        figure = _figures.new_figure(5.5, 3.8)
        axes = figure.subplots()
        steps, rows = np.nonzero(spikes)
        axes.scatter(steps + 1, rows, marker="|", color="black", s=30, linewidths=1.5 * spikes[steps, rows])
        axes.set(xlabel="time step", ylabel=f"neuron of {self.layer}", title=f"sample {sample}")
        axes.set(xticks=range(1, len(spikes) + 1), xlim=(0.5, len(spikes) + 0.5), ylim=(-1, len(self.neurons)))
        ticks = np.unique(np.linspace(0, len(self.neurons) - 1, min(6, len(self.neurons)), dtype=int))
        axes.set_yticks(ticks, [str(index) for index in self.neurons[ticks]])
        return figure


def raster(model: SpikingModel, x: Structure, layer: str, neurons: int | list[int] = 50) -> Raster:
    """Records the spikes of some neurons of a layer at each time step.

    The model runs in inference mode, and is not changed.

    Example:

    >>> inputs = keras.Input((2,))
    >>> network = keras.Model(inputs, keras_ratesnn.layers.IF(name="neurons")(inputs))
    >>> model = keras_ratesnn.SpikingModel(network, timesteps=4)
    >>> raster(model, np.array([[0.5, 1.0]], "float32"), "neurons").spikes[0].tolist()
    [[0.0, 1.0], [1.0, 1.0], [0.0, 1.0], [1.0, 1.0]]

    Args:
        model: A `SpikingModel`.
        x: A batch of inputs, as for `model.predict`. It is processed as one batch.
        layer: String, the name of a neuron layer. The second call of a shared layer is named "NAME (2)".
        neurons: Integer, how many neurons, evenly spaced; or a list of indices in the flattened layer. Defaults to `50`.

    Returns:
        `Raster`.

    Raises:
        TypeError: If `model` is not a `SpikingModel`, `layer` not a string, or `neurons` are not integers.
        ValueError: If there is no such layer or neuron, or `x` does not fit the model or has no samples.
    """
    x = _observation.tensors(checked_model(model), x)
    checks.instance("layer", layer, str)
    names, found = _observation.Names(), []

    def observe(call, outputs):
        if _observation.is_neuron(call) and names.add(call.operation.name) == layer:
            found.append(_observation.spikes(call, outputs, model.timesteps))
        return outputs

    _observation.observed(model, x, observe)
    names.check("layer", layer)
    indices, (spikes,) = _neurons.chosen(neurons, found)
    return Raster(layer, indices, spikes)
