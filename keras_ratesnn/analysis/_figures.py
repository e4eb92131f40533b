"""The look of all figures. Matplotlib is needed here alone, and imported when a figure
is drawn."""

from typing import Any, TypeAlias

from keras_ratesnn._core import optional_packages

Figure: TypeAlias = Any
"""A `matplotlib.figure.Figure`."""

MARKERS = "os^Dv"


def new_figure(
    width: float, height: float, *grid: int, **options: Any
) -> tuple[Figure, Any]:
    """A figure, in inches, and its empty axes, for whose arguments see
    `matplotlib.figure.Figure.subplots`.

    Raises:
        ImportError: If Matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "Figures need Matplotlib, which is not installed. It comes with the extra "
            f"`plots`: {optional_packages.how_to_install('plots')}."
        ) from error
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(*grid, **options)


def width_for(bars: int) -> float:
    """The width of a figure with a named bar or point for each layer."""
    return max(5.0, 1.5 + 0.75 * bars)


def name_layers(axes: Any, names: tuple[str, ...]) -> None:
    """Writes the names of layers below an axis, slanted."""
    axes.set_xticks(
        range(len(names)), names, rotation=35, ha="right", rotation_mode="anchor"
    )
    axes.grid(alpha=0.3, axis="y")


def step_ticks(timesteps: int) -> range:
    """The time steps that have a tick: all of them, if there is space."""
    return range(1, timesteps + 1, -(-timesteps // 16))


def shade(index: int, count: int) -> str:
    """A grey for one of several lines: from black, the first, to light."""
    return str(0.75 * index / max(1, count - 1))
