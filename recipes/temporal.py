"""The setting `temporal`: what in a network sees more of time than the leaky neurons of
a recipe do."""

import keras

import keras_ratesnn
from keras_ratesnn.callbacks import LowerSigma

TEMPORAL = ("recurrent", "sliding_psn", "delays")
"""Its values besides None: neurons whose spikes come back to them a step later,
parallel neurons that see the last `ORDER` steps, and learned delays before each layer
with weights."""

ORDER = 4
"""Of parallel neurons. They are sliding ones, since sequences have unequal lengths: a
PSN has weights for each step."""

MAX_DELAY = 5
"""In taps: delays are of 0 to 4 steps, about as far as 500 training steps move them."""


def delayed(x, temporal):
    """The input of a layer with weights: `x`, with learned delays if `temporal` is
    "delays"."""
    return keras_ratesnn.layers.Delay(MAX_DELAY)(x) if temporal == "delays" else x


def neurons(temporal, leaky, units):
    """The layer of neurons for a value of `temporal`.

    Args:
        temporal: One of `TEMPORAL`, or None.
        leaky: A `keras_ratesnn.layers.LIF`, the recipe's own.
        units: Integer, the number of neurons.
    """
    if temporal == "recurrent":
        return keras_ratesnn.layers.Recurrent(
            leaky, keras.layers.Dense(units, use_bias=False)
        )
    return (
        keras_ratesnn.layers.SlidingPSN(ORDER) if temporal == "sliding_psn" else leaky
    )


def callbacks(recipe):
    """What narrows the kernels of delays in the first quarter of a recipe's epochs, in
    a list, if it has delays."""
    return (
        [LowerSigma(max(1, recipe.epochs // 4))] if recipe.temporal == "delays" else []
    )
