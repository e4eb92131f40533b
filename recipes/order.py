"""What each training method learns where only the order of spikes tells: `python -m
recipes.order`.

The table has a row for each kind of neurons and a column for each method, with the
accuracy for each seed. The data are made; docs/guide.md explains them.
"""

import itertools

import keras
import numpy as np

import keras_ratesnn
from keras_ratesnn import gradients
from recipes import command_line, markdown

T, GAP, CHANNELS = 8, 2, 4

EPOCHS = 40

NETWORKS = {
    "`LIF(0.0)` alone": lambda: (None, keras_ratesnn.layers.LIF(0.0)),
    "`Delay(3)` before it": lambda: (
        keras_ratesnn.layers.Delay(GAP + 1),
        keras_ratesnn.layers.LIF(0.0),
    ),
    "`LIF(0.5)` alone": lambda: (None, keras_ratesnn.layers.LIF(0.5)),
    "`SlidingPSN(3)` alone": lambda: (None, keras_ratesnn.layers.SlidingPSN(GAP + 1)),
}
"""Delays, or None, and neurons."""

METHODS = {
    '`"rate"`': gradients.Rate(),
    "`Rate(windows=2)`": gradients.Rate(windows=2),
    "`Rate(windows=4)`": gradients.Rate(windows=4),
    f"`Rate(windows={T})`, T": gradients.Rate(windows=T),
    '`"bptt"`': gradients.BPTT(),
}


def add_arguments(parser):
    command_line.add_seeds(parser)


def compare(arguments):
    print(markdown.heading(("", *METHODS)))
    for name in NETWORKS:
        found = (
            [accuracy(name, method, seed) for seed in range(arguments.seeds)]
            for method in METHODS.values()
        )
        print(
            markdown.row(
                (
                    name,
                    *(
                        " ".join(f"{value:.2f}" for value in of_seeds)
                        for of_seeds in found
                    ),
                )
            ),
            flush=True,
        )


def order_in_time():
    """Two pairs of channels, each of which spikes once: one of a pair two steps after
    the other. The class says which.

    Both classes have all starts, so every channel has the same rate in both.

    Returns:
        `(x, y)`: a float32 array `(32, T, CHANNELS)` of spikes, and an int64 array of
        the classes 0 and 1.
    """
    x, y = [], []
    for label, *starts in itertools.product((0, 1), range(4), range(4)):
        sample = np.zeros((T, CHANNELS), "float32")
        for pair, start in enumerate(starts):
            sample[start, 2 * pair + label] = 1.0
            sample[start + GAP, 2 * pair + 1 - label] = 1.0
        x.append(sample)
        y.append(label)
    return np.stack(x), np.array(y)


def accuracy(network, gradient, seed, epochs=EPOCHS):
    """The accuracy of a network of `NETWORKS`, trained on all data by a gradient
    method.

    Delays are equal at the start, so that nothing is told by chance. Their kernels
    become narrower than `LowerSigma`'s default: that leaves a tenth of a spike on each
    neighbouring step, with which these few neurons reckon, and which is not there in
    inference.
    """
    keras.utils.set_random_seed(seed)
    delay, neurons = NETWORKS[network]()
    inputs = x = keras.Input((CHANNELS,))
    x = neurons(keras.layers.Dense(16)(x if delay is None else delay(x)))
    model = keras_ratesnn.SpikingModel(
        keras.Model(inputs, keras.layers.Dense(2)(x)), T, gradient
    )
    callbacks = []
    if delay is not None:
        delay.position.assign(np.zeros(CHANNELS))
        callbacks.append(
            keras_ratesnn.callbacks.LowerSigma(max(1, epochs // 2), end=0.01)
        )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.1), loss, metrics=["accuracy"])
    x, y = order_in_time()
    model.fit(x, y, epochs=epochs, batch_size=len(x), callbacks=callbacks, verbose=0)
    return model.evaluate(x, y, verbose=0, return_dict=True)["accuracy"]


main = command_line.command(__name__, "order", __doc__, add_arguments, compare)
