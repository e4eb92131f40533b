"""Plots the record of a benchmark. Needs Matplotlib."""

from recipes import methods, plots
from recipes.benchmark import report
from recipes.benchmark.settings import FLOOR, FORWARD, ORDINARY


def save(record, path):
    """Draws time and its ratio to the floor against T, and memory if it was measured.

    Args:
        record: Dictionary, see `measure.benchmark`.
        path: Path of the image file; its suffix determines the format.

    Raises:
        ImportError: If Matplotlib is not installed.
    """
    rows = [row for row in record["rows"] if row["method"] not in (ORDINARY, FORWARD)]
    panels = [
        ("time of a step, ms", rows, lambda row: _scaled(row["seconds"], 1000)),
        ("time, ratio to the floor", rows, lambda row: _scaled(row["ratio_to_floor"], 1)),
    ]
    with_memory = [row for row in record["rows"] if row["memory_bytes"] is not None]
    if with_memory:
        panels.append(("peak memory of a step, MiB", with_memory, lambda row: (row["memory_bytes"] / 2**20,) * 3))
    figure = plots.new_figure(5 * len(panels), 4.5)
    for axes, (title, rows, values) in zip(figure.subplots(1, len(panels)), panels, strict=True):
        _draw(axes, title, rows, values)
    figure.suptitle(report.subject(record), fontsize="medium")
    plots.save(figure, path, dpi=150)


def _draw(axes, title, rows, values):
    """One line per method, with quartiles as error bars; `values` returns the median and the quartiles of a row."""
    for index, method in enumerate(dict.fromkeys(row["method"] for row in rows)):
        timesteps = [row["timesteps"] for row in rows if row["method"] == method]
        medians, lower, upper = zip(*(values(row) for row in rows if row["method"] == method), strict=True)
        below = [median - quartile for median, quartile in zip(medians, lower, strict=True)]
        above = [quartile - median for median, quartile in zip(medians, upper, strict=True)]
        style = {"color": "0.5", "linestyle": "--"} if method in (FLOOR, ORDINARY) else plots.style(index)
        axes.errorbar(timesteps, medians, yerr=[below, above], label=methods.in_words(method), capsize=2, **style)
    plots.set_up_against_timesteps(axes, (row["timesteps"] for row in rows), title)
    axes.set_ylim(bottom=0)


def _scaled(spread, scale):
    return tuple(spread[key] * scale for key in ("median", "lower_quartile", "upper_quartile"))
