"""Spikes of single neurons over time."""

import dataclasses
from typing import Any, Literal

import numpy as np

from keras_ratesnn._core import checks
from keras_ratesnn._core.annotations import Structure
from keras_ratesnn.analysis import _figures
from keras_ratesnn.analysis.activity._neurons import recorded
from keras_ratesnn.spiking_model import SpikingModel


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
        return _still(spikes, self.neurons, self.layer, f"sample {sample}")

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
        return _animation(spikes, self.neurons, self.layer, f"sample {sample}", interval)


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
    indices, spikes = recorded(model, x, layer, neurons, membranes=False)
    if order == "rate":
        slowest_first = np.argsort(spikes.mean(axis=(0, 1)), kind="stable")
        indices, spikes = indices[slowest_first], spikes[..., slowest_first]
    return Raster(layer, indices, spikes)


def _still(spikes: np.ndarray, neurons: np.ndarray, layer: str, title: str) -> _figures.Figure:
    """A figure with a mark for each spike of neurons with these indices, thicker for several spikes in a step."""
    figure = _figures.new_figure(5.5, 3.8)
    axes = figure.subplots()
    _mark(axes, spikes)
    _set_up(axes, spikes, neurons, layer, title)
    return figure


def _animation(spikes: np.ndarray, neurons: np.ndarray, layer: str, title: str, interval: int) -> Any:
    """An animation of the marks, and beside them the firing rates so far; a step takes `interval` milliseconds."""
    figure = _figures.new_figure(6.4, 3.8)
    from matplotlib.animation import FuncAnimation

    axes, of_rates = figure.subplots(1, 2, sharey=True, width_ratios=(4, 1))
    marks, rows = _mark(axes, spikes), np.arange(len(neurons))
    steps = marks.get_offsets()[:, 0]
    _set_up(axes, spikes, neurons, layer, title)
    so_far = np.cumsum(spikes, axis=0) / np.arange(1, len(spikes) + 1)[:, None]
    bars = of_rates.barh(rows, so_far[0], height=1.0, color="0.5")
    of_rates.set(xlim=(0, 1.05 * max(1.0, so_far.max())), xlabel="spikes per step")
    of_rates.grid(alpha=0.3, axis="x")

    # Laid out once: the texts of later steps take no other space.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")

    def show(t: int) -> None:
        # Matplotlib fails with no marks.
        if len(steps):
            # What is to come is transparent, the present step black.
            marks.set_alpha(np.where(steps == t + 1, 1.0, np.where(steps <= t, 0.5, 0.0)))
        for bar, rate in zip(bars, so_far[t], strict=True):
            bar.set_width(rate)
        of_rates.set_title(f"after step {t + 1}", fontsize="medium")

    return FuncAnimation(figure, show, frames=len(spikes), interval=interval)


def _mark(axes: Any, spikes: np.ndarray) -> Any:
    steps, rows = np.nonzero(spikes)
    return axes.scatter(steps + 1, rows, marker="|", color="black", s=30, linewidths=1.5 * spikes[steps, rows])


def _set_up(axes: Any, spikes: np.ndarray, neurons: np.ndarray, layer: str, title: str) -> None:
    """Gives axes their names, limits and ticks."""
    axes.set(xlabel="time step", ylabel=f"neuron of {layer}", xlim=(0.5, len(spikes) + 0.5), ylim=(-1, len(neurons)))
    axes.set_title(title, fontsize="medium")
    axes.set_xticks(_figures.step_ticks(len(spikes)))
    ticks = np.unique(np.linspace(0, len(neurons) - 1, min(6, len(neurons)), dtype=int))
    axes.set_yticks(ticks, [str(index) for index in neurons[ticks]])
