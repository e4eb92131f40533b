"""Japanese Vowels, nine speakers to tell apart, with two dense layers: sequences of
unequal length, about two minutes."""

import keras

import keras_ratesnn
from keras_ratesnn import gradients
from recipes import temporal as in_time
from recipes.data import japanese_vowels
from recipes.optimizers import AdamW
from recipes.recipe import Recipe
from recipes.stages import SpikingStage


def build_network(width, temporal=None):
    units = max(1, round(128 * width))
    inputs = x = keras.Input((japanese_vowels.CHANNELS,), name="coefficients")
    for _ in range(2):
        x = keras.layers.Dense(units, use_bias=False)(in_time.delayed(x, temporal))
        x = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)
        leaky = keras_ratesnn.layers.LIF(decay=0.8, decay_input=True)
        x = in_time.neurons(temporal, leaky, units)(x)
        x = keras.layers.Dropout(0.3)(x)
    return keras.Model(
        inputs,
        keras.layers.Dense(japanese_vowels.CLASSES, name="logits")(x),
        name="japanese_vowels",
    )


RECIPE = Recipe(
    name="japanese_vowels",
    description="two dense layers on Japanese Vowels, speech of nine speakers in "
    "sequences of unequal length",
    load_data=japanese_vowels.load,
    build_network=build_network,
    has_time=True,
    mask_value=japanese_vowels.PADDING,
    spiking=SpikingStage(timesteps=japanese_vowels.LONGEST, gradient=gradients.Rate()),
    optimizer=AdamW(),
    learning_rate=5e-3,
    weight_decay=1e-2,
    epochs=60,
    batch_size=30,
)
