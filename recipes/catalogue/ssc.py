"""Spiking Speech Commands, spoken words, with three dense layers: T = 100 steps of 10 milliseconds, by BPTT.

Inputs, layers, dropout, batch size, epochs, largest learning rate and weight decay are those of the program of DCLS-delays
(Hammouamri et al., ICLR 2024, best_config_SSC.py), without delays; the neurons are those of the recipe shd. A recording lasts a
second. `ssc_valid.h5` is not read; `held_out` takes training recordings.
"""

import functools

from keras_ratesnn import gradients
from recipes import blocks
from recipes.data import spoken_words
from recipes.optimizers import AdamW
from recipes.recipe import Recipe
from recipes.stages import SpikingStage

RECIPE = Recipe(
    name="ssc",
    description="three dense layers on Spiking Speech Commands, spoken words",
    load_data=spoken_words.SSC.load,
    build_network=functools.partial(blocks.spoken_words_network, spoken_words.INPUTS, spoken_words.SSC.classes, 3, 512, 0.25),
    has_time=True,
    spiking=SpikingStage(timesteps=100, gradient=gradients.BPTT()),
    optimizer=AdamW(),
    learning_rate=5e-3,
    weight_decay=1e-5,
    epochs=60,
    batch_size=128,
)
