"""How close the rate gradient of recurrent neurons is to BPTT's: `python -m
recipes.recurrence`.

The networks are random, with one layer of 32 recurrent neurons, and so are their
inputs. The table has the smallest and the largest cosine similarity over the seeds, for
the weights before the neurons and for those through which spikes come back.
"""

import keras
import numpy as np

import keras_ratesnn
from keras_ratesnn import analysis, gradients
from recipes import command_line, markdown

UNITS, SAMPLES = 32, 32

TIMESTEPS = 4, 10

COLUMNS = ("T", "windows", "weights of the input", "weights of the synapse")


def add_arguments(parser):
    command_line.add_seeds(parser)


def compare(arguments):
    rows = []
    for timesteps in TIMESTEPS:
        for windows in (1, 2, timesteps):
            found = np.transpose(
                [cosines(timesteps, windows, seed) for seed in range(arguments.seeds)]
            )
            rows.append(
                (
                    timesteps,
                    windows,
                    *(
                        f"{of_kernel.min():.2f} to {of_kernel.max():.2f}"
                        for of_kernel in found
                    ),
                )
            )
    print(markdown.table(COLUMNS, rows))


def cosines(timesteps, windows, seed):
    """The cosines of `Rate(windows=windows)` to BPTT for the weights of the input and
    of the synapse of one random network."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((UNITS,))
    currents = keras.layers.Dense(UNITS, name="input")(inputs)
    x = keras_ratesnn.layers.Recurrent(
        keras_ratesnn.layers.LIF(), keras.layers.Dense(UNITS, name="synapse")
    )(currents)
    network = keras.Model(inputs, keras.layers.Dense(10, name="logits")(x))
    model = keras_ratesnn.SpikingModel(
        network, timesteps, gradients.Rate(windows=windows)
    )
    random = np.random.default_rng(seed)
    x, y = (
        random.normal(0.5, 1.0, (SAMPLES, timesteps, UNITS)).astype("float32"),
        random.integers(0, 10, SAMPLES),
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    found = analysis.gradient_agreement(model, x, y, loss=loss)
    return found.cosine[:2]


main = command_line.command(__name__, "recurrence", __doc__, add_arguments, compare)
