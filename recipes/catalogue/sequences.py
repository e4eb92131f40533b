"""Sequences: Japanese Vowels, spikes of which only the order tells the class, and
spoken words in steps of 10 milliseconds.

The settings of `shd` and `ssc` are those of the program of DCLS-delays (Hammouamri et
al., ICLR 2024, best_config_SHD.py and best_config_SSC.py), without delays: inputs,
layers, dropout, batch sizes, epochs, largest learning rate and weight decay. Its
neurons, which forget within a step, need delays; these are LIF neurons as those of
Bittar and Garner, 2022, whose learned decays are between 0.82 and 0.96. They are
trained by BPTT. 140 steps are 1.4 seconds of a digit; what is later is left out. A
command lasts a second. `ssc_valid.h5` is not read; `held_out` takes training
recordings.
"""

import functools

import keras

import keras_ratesnn
from recipes import layers
from recipes.data import events, japanese_vowels, order
from recipes.recipe import Recipe

SEEN_STEPS = 4
"""The number of steps that parallel neurons see. They are sliding ones, since sequences
have unequal lengths: a PSN has weights for each step."""

MAX_DELAY = 5
"""In taps: delays are of 0 to 4 steps, about as far as 500 training steps move them."""


def vowels_network(width, temporal=None):
    """Two layers; `temporal` is the setting of a recipe."""
    units = layers.channels(128, width)
    inputs = x = keras.Input((japanese_vowels.CHANNELS,), name="coefficients")
    for _ in range(2):
        if temporal == "delays":
            x = keras_ratesnn.layers.Delay(MAX_DELAY)(x)
        x = layers.normalized(keras.layers.Dense(units, use_bias=False)(x))
        neurons = keras_ratesnn.layers.LIF(decay=0.8, decay_input=True)
        if temporal == "recurrent":
            recurrent = keras.layers.Dense(units, use_bias=False)
            neurons = keras_ratesnn.layers.Recurrent(neurons, recurrent)
        elif temporal == "sliding_psn":
            neurons = keras_ratesnn.layers.SlidingPSN(SEEN_STEPS)
        x = keras.layers.Dropout(0.3)(neurons(x))
    return layers.classifier(inputs, x, japanese_vowels.CLASSES, "japanese_vowels")


def order_network(width):
    inputs = keras.Input((order.CHANNELS,), name="spikes")
    x = keras.layers.Dense(layers.channels(16, width))(inputs)
    x = keras_ratesnn.layers.LIF(decay=0.5)(x)
    return layers.classifier(inputs, x, 2, "order")


def words_network(classes, depth, units, dropout, width):
    """Dense layers with batch normalisation and neurons that learn how slowly they
    forget, for spikes of channels of sound.

    Args:
        classes: Integer.
        depth: Integer, the number of layers with neurons.
        units: Integer, their neurons.
        dropout: Float in [0, 1).
        width: Float that multiplies the units.
    """
    spikes = x = keras.Input((events.SOUND_INPUTS,), name="spikes")
    for _ in range(depth):
        x = keras.layers.Dense(layers.channels(units, width), use_bias=False)(x)
        x = keras_ratesnn.layers.ParametricLIF(
            decay=0.9, per_channel=True, decay_input=True
        )(layers.normalized(x))
        x = keras.layers.Dropout(dropout)(x)
    return layers.classifier(spikes, x, classes, "spoken_words")


recipe = functools.partial(Recipe, has_time=True, optimizer="adamw")
words = functools.partial(
    recipe, gradient="bptt", learning_rate=5e-3, weight_decay=1e-5
)

RECIPES = (
    recipe(
        name="japanese_vowels",
        load_data=japanese_vowels.load,
        build_network=vowels_network,
        mask_value=japanese_vowels.PADDING,
        timesteps=japanese_vowels.LONGEST,
        learning_rate=5e-3,
        weight_decay=1e-2,
        epochs=60,
        batch_size=30,
    ),
    recipe(
        name="order",
        load_data=order.load,
        build_network=order_network,
        learning_rate=0.1,
        weight_decay=0.0,
        epochs=40,
        batch_size=32,
        timesteps=order.T,
    ),
    words(
        name="shd",
        load_data=functools.partial(events.load_words, "shd", 20),
        build_network=functools.partial(words_network, 20, 2, 256, 0.4),
        timesteps=140,
        epochs=150,
        batch_size=256,
    ),
    words(
        name="ssc",
        load_data=functools.partial(events.load_words, "ssc", 35),
        build_network=functools.partial(words_network, 35, 3, 512, 0.25),
        timesteps=100,
        epochs=60,
        batch_size=128,
    ),
)
