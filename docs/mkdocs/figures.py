"""Draws what neurons do with one input, for the API pages: `KERAS_BACKEND=torch python
docs/mkdocs/figures.py`.

The input is a constant one, then a stronger one, then a train of spikes, with pauses
between them. `PSN` and `MaskedPSN` have no figure: what they do is learned.
"""

import inspect
import pathlib

import keras
import numpy as np

import keras_ratesnn as rsnn
from keras_ratesnn.layers.neurons import NeuronWithArguments
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
ARGUMENTS = {"decay": 0.8, "order": 4}
WITH_DEFAULTS = ("CuBaLIF",)
"""Neurons whose current makes them slow enough."""


def arguments_of(name):
    """Those of `ARGUMENTS` that neurons have; `None` for what has no figure."""
    kind = getattr(rsnn.layers, name)
    known = inspect.signature(kind).parameters
    neurons = inspect.isclass(kind) and issubclass(kind, NeuronWithArguments)
    if not neurons or "timesteps" in known:
        return None
    return {key: ARGUMENTS[key] for key in set(ARGUMENTS) & set(known)}


def draw(name, arguments):
    """A figure of the membrane and the spikes of one neuron, above its input."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((1,))
    neuron = getattr(rsnn.layers, name)(**arguments, name="neuron")
    model = rsnn.SpikingModel(keras.Model(inputs, neuron(inputs)), T, "bptt")
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
    for name in rsnn.layers.__all__:
        arguments = {} if name in WITH_DEFAULTS else arguments_of(name)
        if arguments is not None:
            plots.save(draw(name, arguments), FOLDER / f"{name}.png", dpi=90)
