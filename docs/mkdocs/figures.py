"""Draws what neurons do with one input, for the API pages: `KERAS_BACKEND=torch python
docs/mkdocs/figures.py`.

The input is a constant one, then a stronger one, then a train of spikes, with pauses
between them. `PSN` and `MaskedPSN` have no figure: what they do is learned.
"""

import pathlib

import keras
import numpy as np

import keras_ratesnn as rsnn
from recipes import plots

FOLDER = pathlib.Path(__file__).parent.parent / "images" / "neurons"
INPUT = np.concatenate(
    [
        [0.0] * 2,
        [0.35] * 14,
        [0.0] * 6,
        [0.8] * 14,
        [0.0] * 6,
        [0.9, 0.0, 0.0, 0.9, 0.0, 0.9, 0.9, 0.0] * 2,
        [0.0] * 2,
    ]
)
T = len(INPUT)
NEURONS = {
    "LIF": lambda: rsnn.layers.LIF(decay=0.8, name="neuron"),
    "IF": lambda: rsnn.layers.IF(name="neuron"),
    "ParametricLIF": lambda: rsnn.layers.ParametricLIF(decay=0.8, name="neuron"),
    "ALIF": lambda: rsnn.layers.ALIF(decay=0.8, name="neuron"),
    "CuBaLIF": lambda: rsnn.layers.CuBaLIF(name="neuron"),
    "ILIF": lambda: rsnn.layers.ILIF(decay=0.8, name="neuron"),
    "SlidingPSN": lambda: rsnn.layers.SlidingPSN(order=4, name="neuron"),
}


def draw(name):
    """A figure of the membrane and the spikes of one neuron, above its input."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((1,))
    model = rsnn.SpikingModel(keras.Model(inputs, NEURONS[name]()(inputs)), T, "bptt")
    found = rsnn.analysis.observed(
        model, membranes=["neuron"], spikes=["neuron"]
    ).predict(INPUT[None, :, None], verbose=0)
    membrane, spikes = (
        found["membrane"]["neuron"][0, :, 0],
        found["spikes"]["neuron"][0, :, 0],
    )
    figure, steps = plots.new_figure(5.2, 1.5), np.arange(1, T + 1)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[2.2, 1])
    above.plot(steps, membrane, color="#0072b2")
    above.scatter(
        steps[spikes > 0],
        membrane[spikes > 0],
        s=9 * spikes[spikes > 0],
        color="#d55e00",
        zorder=3,
    )
    above.set_ylabel("membrane", fontsize="small")
    below.fill_between(steps, INPUT, step="mid", color="0.75")
    below.set_ylabel("input", fontsize="small")
    for axes in (above, below):
        axes.tick_params(labelsize="x-small")
        axes.grid(alpha=0.3)
    return figure


if __name__ == "__main__":
    for name in NEURONS:
        plots.save(draw(name), FOLDER / f"{name}.png", dpi=90)
