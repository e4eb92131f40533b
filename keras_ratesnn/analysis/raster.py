"""Spikes of single neurons over time."""

import dataclasses
from typing import Any, Literal

import numpy as np

from keras_ratesnn._core import checks
from keras_ratesnn._core.annotations import Structure
from keras_ratesnn.analysis import _neurons, _observation, _raster_figures
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
        spikes = self.spikes[checks.index("sample", sample, len(self.spikes))]
        return _raster_figures.still(spikes, self.neurons, self.layer, f"sample {sample}")

    def animate(self, sample: int = 0, interval: int = 200) -> Any:
        """Draws the spikes of one sample step by step, and beside them the firing rate of each neuron so far.

        `animate().save("raster.gif", writer="pillow")` writes a GIF; `to_jshtml()` of the animation is HTML with buttons.

        Args:
            sample: Integer, its index in the batch. Defaults to `0`.
            interval: Integer, how long a time step is shown, in milliseconds. Defaults to `200`.

        Returns:
            A `matplotlib.animation.FuncAnimation`. It must be saved or shown: Matplotlib warns of one that is thrown away.

        Raises:
            ImportError: If Matplotlib is not installed.
            TypeError: If `sample` or `interval` is not an integer.
            ValueError: If `interval` is not >= 1.
            IndexError: If there is no such sample.
        """
        interval = checks.positive_integer("interval", interval)
        spikes = self.spikes[checks.index("sample", sample, len(self.spikes))]
        return _raster_figures.animation(spikes, self.neurons, self.layer, f"sample {sample}", interval)


def raster(
    model: SpikingModel, x: Structure, layer: str, neurons: int | list[int] = 50, order: Literal["rate"] | None = None
) -> Raster:
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
        order: `"rate"`: from the neuron that spikes least in the batch to the one that spikes most. Defaults to `None`: the
            order of `neurons`, or of the layer.

    Returns:
        `Raster`.

    Raises:
        TypeError: If `model` is not a `SpikingModel`, `layer` not a string, or `neurons` are not integers.
        ValueError: If there is no such layer, neuron or order, or `x` does not fit the model or has no samples.
    """
    checks.one_of("order", order, (None, "rate"))
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
    if order == "rate":
        slowest_first = np.argsort(spikes.mean(axis=(0, 1)), kind="stable")
        indices, spikes = indices[slowest_first], spikes[..., slowest_first]
    return Raster(layer, indices, spikes)
