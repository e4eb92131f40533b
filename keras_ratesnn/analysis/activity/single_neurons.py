"""Membranes and spikes of single neurons over time."""

import dataclasses
import math
from typing import Any, Literal

import numpy as np
from keras import ops

from keras_ratesnn._core import checks
from keras_ratesnn._core.annotations import Structure
from keras_ratesnn._core.backend import engine
from keras_ratesnn._model.call_inputs import call_inputs, starting_at
from keras_ratesnn.analysis import _figures, _observation
from keras_ratesnn.layer_kinds import NEURON, kind_of
from keras_ratesnn.layers import ILIFCell
from keras_ratesnn.observed_model import named_calls, observed
from keras_ratesnn.spiking_model import SpikingModel, checked_model

ADVICE = (
    "Pass how many neurons to show, evenly spaced, or a list of their indices in "
    "the flattened layer."
)


@dataclasses.dataclass(frozen=True, eq=False)
class Membranes:
    """The result of `membranes`.

    Args:
        layer: String, the name of the layer.
        neurons: Array of N integers, indices in the flattened layer.
        values: Array `(samples, T, N)`: the membrane v_t at each step, after the input
            and before the reset.
        spikes: Array `(samples, T, N)`, 0 or 1, or integers for neurons that spike
            several times in a step.
        thresholds: Array `(N,)`: the membrane at which each neuron spikes, at rest if
            spikes raise it.
    """

    layer: str
    neurons: np.ndarray
    values: np.ndarray
    spikes: np.ndarray
    thresholds: np.ndarray

    def plot(self, sample: int = 0) -> Any:
        """Draws the membranes of one sample and their thresholds, with a mark where a
        neuron spikes.

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
        figure, axes = _figures.new_figure(5.5, 3.8)
        steps = np.arange(1, len(values) + 1)
        count = len(self.neurons)
        shades = [_figures.shade(index, count) for index in range(count)]
        look = {"marker": "o", "s": 25}
        for index, neuron in enumerate(self.neurons):
            axes.plot(
                steps,
                values[:, index],
                color=shades[index],
                linestyle=("-", "--", "-.", ":")[index % 4],
                label=f"neuron {neuron}",
            )
            fired = spikes[:, index] > 0
            axes.scatter(
                steps[fired], values[fired, index], color=shades[index], **look
            )
        axes.scatter([], [], color="black", label="spike", **look)
        # Where all are the same, the line of the first neuron, which is black, is above
        # the others.
        axes.hlines(
            self.thresholds[::-1],
            1,
            len(values),
            shades[::-1],
            linestyles=(0, (1, 3)),
            linewidths=1,
            label="threshold",
        )
        axes.set(
            xlabel="time step",
            ylabel=f"membrane of {self.layer}",
            xticks=_figures.step_ticks(len(steps)),
        )
        axes.set_title(f"sample {sample}", fontsize="medium")
        axes.grid(alpha=0.3)
        if len(self.neurons) <= 8:
            figure.legend(loc="outside right upper", fontsize="small")
        return figure


def membranes(
    model: SpikingModel, x: Structure, layer: str, neurons: int | list[int] = 5
) -> Membranes:
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
        layer: String, the name of a neuron layer. The second call of a shared layer is
            named "NAME (2)".
        neurons: Integer, how many neurons, evenly spaced; or a list of indices in the
            flattened layer. Defaults to `5`.

    Returns:
        `Membranes`.

    Raises:
        TypeError: If `model` is not a `SpikingModel`, `layer` not a string, or
            `neurons` are not integers.
        ValueError: If there is no such layer or neuron, or `x` does not fit the model
            or has no samples.
    """
    indices, thresholds, spikes, values = _recorded(
        model, x, layer, neurons, membranes=True
    )
    return Membranes(layer, indices, values, spikes, thresholds)


@dataclasses.dataclass(frozen=True, eq=False)
class Raster:
    """The result of `raster`.

    Args:
        layer: String, the name of the layer.
        neurons: Array of N integers, indices in the flattened layer.
        spikes: Array `(samples, T, N)`, 0 or 1, or integers for neurons that spike
            several times in a step.
    """

    layer: str
    neurons: np.ndarray
    spikes: np.ndarray

    def plot(self, sample: int = 0) -> Any:
        """Draws a mark where a neuron spikes, for one sample; it is thicker for several
        spikes in a step.

        Args:
            sample: Integer, its index in the batch. Defaults to `0`.

        Returns:
            A `matplotlib.figure.Figure`.

        Raises:
            ImportError: If Matplotlib is not installed.
            TypeError: If `sample` is not an integer.
            IndexError: If there is no such sample.
        """
        figure, axes = _figures.new_figure(5.5, 3.8)
        self._draw(axes, sample)
        return figure

    def animate(self, sample: int = 0, interval: int = 200) -> Any:
        """Draws the spikes of one sample step by step, and beside them the firing rate
        of each neuron so far.

        `animate().save("raster.gif", writer="pillow")` writes a GIF; `to_jshtml()` of
        the animation is HTML with buttons.

        Args:
            sample: Integer, its index in the batch. Defaults to `0`.
            interval: Integer, how long a time step is shown, in milliseconds. Defaults
                to `200`.

        Returns:
            A `matplotlib.animation.FuncAnimation`. It must be saved or shown:
            Matplotlib warns of one that is thrown away.

        Raises:
            ImportError: If Matplotlib is not installed.
            TypeError: If `sample` or `interval` is not an integer.
            ValueError: If `interval` is not >= 1.
            IndexError: If there is no such sample.
        """
        interval = checks.positive_integer("interval", interval)
        figure, (axes, bars_axes) = _figures.new_figure(
            6.4, 3.8, 1, 2, sharey=True, width_ratios=(4, 1)
        )
        from matplotlib.animation import FuncAnimation

        spikes, marks = self._draw(axes, sample)
        steps = marks.get_offsets()[:, 0]
        so_far = np.cumsum(spikes, axis=0) / np.arange(1, len(spikes) + 1)[:, None]
        bars = bars_axes.barh(
            np.arange(len(self.neurons)), so_far[0], height=1.0, color="0.5"
        )
        bars_axes.set(xlim=(0, 1.05 * max(1.0, so_far.max())), xlabel="spikes per step")
        bars_axes.grid(alpha=0.3, axis="x")

        # Laid out once: the texts of later steps take no other space.
        figure.draw_without_rendering()
        figure.set_layout_engine("none")

        def show(t: int) -> None:
            # Matplotlib fails with no marks.
            if len(steps):
                # What is to come is transparent, the present step black.
                marks.set_alpha(
                    np.where(steps == t + 1, 1.0, np.where(steps <= t, 0.5, 0.0))
                )
            for bar, rate in zip(bars, so_far[t], strict=True):
                bar.set_width(rate)
            bars_axes.set_title(f"after step {t + 1}", fontsize="medium")

        return FuncAnimation(figure, show, frames=len(spikes), interval=interval)

    def _draw(self, axes, sample):
        """Draws a mark for each spike of a sample, thicker for several in a step;
        returns the spikes, and the marks."""
        spikes = self.spikes[checks.index("sample", sample, len(self.spikes))]
        steps, rows = np.nonzero(spikes)
        marks = axes.scatter(
            steps + 1,
            rows,
            marker="|",
            color="black",
            s=30,
            linewidths=1.5 * spikes[steps, rows],
        )
        count = len(self.neurons)
        ticks = np.unique(np.linspace(0, count - 1, min(6, count), dtype=int))
        # In another order than that of the layer, some of the indices would look like
        # an axis that goes up and down.
        ordered = len(ticks) < count and bool((np.diff(self.neurons) < 0).any())
        label, indices = f"neuron of {self.layer}", self.neurons[ticks]
        if ordered:
            label, indices = f"neurons of {self.layer}, in their order", ticks + 1
        axes.set(
            xlabel="time step",
            ylabel=label,
            xlim=(0.5, len(spikes) + 0.5),
            ylim=(-1, count),
        )
        axes.set_title(f"sample {sample}", fontsize="medium")
        axes.set_xticks(_figures.step_ticks(len(spikes)))
        axes.set_yticks(ticks, [str(index) for index in indices])
        return spikes, marks


def raster(
    model: SpikingModel,
    x: Structure,
    layer: str,
    neurons: int | list[int] = 50,
    order: Literal["rate"] | None = None,
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
        layer: String, the name of a neuron layer. The second call of a shared layer is
            named "NAME (2)".
        neurons: Integer, how many neurons, evenly spaced; or a list of indices in the
            flattened layer. Defaults to `50`.
        order: `"rate"`: from the neuron that spikes least in the batch to the one that
            spikes most. Defaults to `None`: the order of `neurons`, or of the layer.

    Returns:
        `Raster`.

    Raises:
        TypeError: If `model` is not a `SpikingModel`, `layer` not a string, or
            `neurons` are not integers.
        ValueError: If there is no such layer, neuron or order, or `x` does not fit the
            model or has no samples.
    """
    checks.one_of("order", order, (None, "rate"))
    indices, _, spikes = _recorded(model, x, layer, neurons, membranes=False)
    if order == "rate":
        slowest_first = np.argsort(spikes.mean(axis=(0, 1)), kind="stable")
        indices, spikes = indices[slowest_first], spikes[..., slowest_first]
    return Raster(layer, indices, spikes)


def _recorded(model, x, layer, neurons, membranes):
    """The indices and thresholds of chosen neurons, `(N,)`, their spikes, and if wanted
    their membranes, `(samples, T, N)`."""
    x = _observation.tensors(checked_model(model), x)
    checks.instance("layer", layer, str)
    calls = {
        name: call
        for name, call in named_calls(model.network).items()
        if kind_of(call.operation).role == NEURON
    }
    checks.one_of("layer", layer, calls)
    watched = observed(model, [layer] if membranes else [], [layer])
    watched.compile(jit_compile=False)
    with engine.no_gradient():
        outputs = watched(x, training=False)
    # Steps count from the first one of each sample that is not padding.
    _, _, first = call_inputs(model, x)
    recorded = []
    for kind in ("spikes", "membrane") if membranes else ("spikes",):
        tensor = outputs[kind][layer]
        if first is not None:
            tensor = starting_at(first, tensor)
        recorded.append(_observation.array(tensor))
    operation, shape = calls[layer].operation, recorded[0].shape
    # Half precision rounds normalised spikes.
    recorded[0] = np.rint(recorded[0] / operation.cell.spike_size)
    indices = _indices(neurons, math.prod(shape[2:]))
    thresholds = np.broadcast_to(_threshold(operation), (1, *shape[2:])).reshape(-1)
    chosen = [values.reshape(*shape[:2], -1)[..., indices] for values in recorded]
    return indices, thresholds[indices], *chosen


def _threshold(layer):
    """The membrane at which the neurons of a layer spike in inference: a number, or an
    array that broadcasts to them."""
    cell, stabilizer = layer.cell.independent_cell(), getattr(layer, "stabilizer", None)
    if stabilizer is None:
        threshold = cell.effective_threshold()
    else:
        threshold = stabilizer.running_threshold
    threshold = np.asarray(ops.convert_to_numpy(threshold), "float32")
    # Integer spikes are rounded.
    return threshold / 2 if isinstance(cell, ILIFCell) else threshold


def _indices(neurons, size):
    if not isinstance(neurons, (list, tuple, np.ndarray)) or np.ndim(neurons) == 0:
        count = min(checks.positive_integer("neurons", neurons, advice=ADVICE), size)
        return np.unique(np.linspace(0, size - 1, count, dtype=int))
    indices = [checks.integer("neurons", index, advice=ADVICE) for index in neurons]
    if not indices or not all(0 <= index < size for index in indices):
        raise ValueError(
            f"`neurons` must be from 0 to {size - 1} in this layer. Received: "
            f"neurons={list(neurons)}. {ADVICE}"
        )
    return np.array(indices)
