"""Figures of the spikes of one sample, `(T, N)`: at rest, and step by step."""

from typing import Any

import numpy as np

from keras_ratesnn.analysis import _figures


def still(spikes: np.ndarray, neurons: np.ndarray, layer: str, title: str) -> _figures.Figure:
    """A figure with a mark for each spike of neurons with these indices, thicker for several spikes in a step."""
    figure = _figures.new_figure(5.5, 3.8)
    axes = figure.subplots()
    _mark(axes, spikes)
    _set_up(axes, spikes, neurons, layer, title)
    return figure


def animation(spikes: np.ndarray, neurons: np.ndarray, layer: str, title: str, interval: int) -> Any:
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
