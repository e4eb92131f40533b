"""One picture of what the library gives: `KERAS_BACKEND=torch python
docs/mkdocs/overview.py` draws docs/images/overview.png.

One image goes through a shipped network: what its membranes and spikes are at each time
step, and how the steps vote. What a training step costs against T is read from the
record of an earlier version: the recipe `digits` at several T.
"""

import pathlib

import keras
import numpy as np

import keras_ratesnn as rsnn
from recipes import figures, methods, plots
from recipes.atomic_files import read_json

IMAGES = pathlib.Path(__file__).parent.parent / "images"
RECORD = IMAGES / "against_timesteps" / "digits.json"
NETWORK, NUMBER = "digits", 82
"""A shipped network, and the number of a test image."""

COSTS = {
    "memory of a step, MiB": lambda row: row["memory_bytes"] / 2**20,
    "time of a step, ms": lambda row: 1000 * row["seconds"]["median"],
}
"""The titles of the panels of costs, and what they show of a row of the record."""

PAPER, MEMBRANE, SPIKE = (0.05, 0.07, 0.13), (0.2, 0.48, 0.9), (1.0, 0.62, 0.11)
"""Colours: of a membrane at rest, at the threshold, and of a spike."""


def seen(model, image):
    """What a network does with an image: for each layer arrays `(T, ...)` of membranes
    over threshold and of spikes; votes."""
    layers = [
        layer for layer in model.network.layers if isinstance(layer, rsnn.layers.Neuron)
    ]
    names = [layer.name for layer in layers]
    model.return_sequences = True
    found = rsnn.analysis.observed(model, membranes=names, spikes=names).predict(
        image[None], verbose=0
    )
    thresholds = [float(layer.cell.threshold) for layer in layers]
    pairs = [
        (found["membrane"][name][0] / threshold, found["spikes"][name][0])
        for name, threshold in zip(names, thresholds, strict=True)
    ]
    means = (
        np.cumsum(found["output"][0], axis=0)
        / np.arange(1, model.timesteps + 1)[:, None]
    )
    return pairs, keras.ops.convert_to_numpy(keras.ops.softmax(means))


def draw(image, layers, votes, record):
    """A figure: the image, the layers and the vote at each step, and two panels of
    costs.

    Args:
        image: Array `(height, width, 1)`.
        layers: For each layer, membranes and spikes `(T, height, width, channels)`.
        votes: Array `(T, classes)`, shares.
        record: Dictionary, whose rows have the costs of a method at a T.
    """
    steps, rows = len(votes), len(layers) + 1
    figure = plots.new_figure(11, 4.1)
    left, right = figure.subfigures(1, 2, width_ratios=[2.3, 1])
    grid = left.subplots(
        rows,
        steps + 1,
        width_ratios=[0.8] + [1] * steps,
        height_ratios=[1.6] + [0.9] * (rows - 1),
    )
    for axes in grid.flat:
        axes.axis("off")
    grid[0, 0].imshow(image[..., 0], cmap="gray")
    grid[0, 0].set_title("an image", fontsize="medium")
    for row, name in enumerate(
        [*(f"layer {number}" for number in range(1, rows)), "vote"]
    ):
        grid[row, 1].text(
            -0.02,
            0.5,
            name,
            rotation=90,
            ha="right",
            va="center",
            transform=grid[row, 1].transAxes,
        )
    for row, (membranes, spikes) in enumerate(layers):
        for step in range(steps):
            grid[row, step + 1].imshow(
                mosaic(membranes[step], spikes[step]), aspect="auto"
            )
    for step, shares in enumerate(votes):
        grid[0, step + 1].set_title(f"step {step + 1}", fontsize="medium")
        axes = grid[-1, step + 1]
        axes.axis("on")
        colors = [SPIKE if share == shares.max() else MEMBRANE for share in shares]
        axes.bar(range(len(shares)), shares, color=colors)
        axes.set(ylim=(0, 1), xticks=range(len(shares)), yticks=[])
        axes.tick_params(labelsize="x-small", length=0)
        axes.spines[["left", "top", "right"]].set_visible(False)
    panels = right.subplots(len(COSTS), 1, sharex=True)
    for axes, (title, cost) in zip(panels, COSTS.items(), strict=True):
        draw_cost(axes, record["rows"], title, cost)
    panels[-1].set_xlabel("T")
    return figure


def draw_cost(axes, rows, title, cost):
    """Draws a line for each method against T; costs are compared by their ratio."""
    for index, method in enumerate(dict.fromkeys(row["method"] for row in rows)):
        own = [row for row in rows if row["method"] == method]
        timesteps = [row["timesteps"] for row in own]
        costs = [cost(row) for row in own]
        label = methods.in_words(method)
        axes.plot(timesteps, costs, label=label, **plots.style(index))
    axes.set_xscale("log", base=2)
    axes.set_xticks(timesteps, timesteps)
    axes.minorticks_off()
    plots.dress(axes, title, legend="best")
    axes.set_ylim(bottom=0)


def mosaic(membranes, spikes):
    """The channels of a layer side by side, as an image of colours: membranes blue,
    spikes orange."""
    height, width, channels = spikes.shape
    across = next(
        count
        for count in range(
            int(np.ceil(np.sqrt(channels * height / width))), channels + 1
        )
        if not channels % count
    )
    level = np.clip(membranes, 0, 1)[..., None]
    colors = np.where(
        spikes[..., None] > 0, SPIKE, (1 - level) * PAPER + level * MEMBRANE
    )
    tiles = np.pad(colors, [(0, 1), (0, 1), (0, 0), (0, 0)], constant_values=1)
    tiles = tiles.reshape(height + 1, width + 1, channels // across, across, 3)
    return tiles.transpose(2, 0, 3, 1, 4).reshape(
        channels // across * (height + 1), across * (width + 1), 3
    )[:-1, :-1]


if __name__ == "__main__":
    record = read_json(RECORD)
    model, dataset = figures.model_and_data(NETWORK, None)
    image = dataset.test_images[NUMBER]
    layers, votes = seen(model, image)
    picture = draw(image, layers, votes, record)
    plots.save(picture, IMAGES / "overview.png", dpi=180)
