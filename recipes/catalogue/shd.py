"""Spiking Heidelberg Digits, spoken digits, with two dense layers: T = 140 steps of 10 milliseconds, by BPTT.

Inputs, layers, dropout, batch size, epochs, largest learning rate and weight decay are those of the program of DCLS-delays
(Hammouamri et al., ICLR 2024, best_config_SHD.py), without delays. Its neurons, which forget within a step, need delays; these
are LIF neurons as those of Bittar and Garner, 2022, whose learned decays are between 0.82 and 0.96. T steps are 1.4 seconds;
what is later is left out.
"""

import functools

from keras_ratesnn import gradients
from recipes import blocks
from recipes.data import spoken_words
from recipes.optimizers import AdamW
from recipes.recipe import Recipe
from recipes.stages import SpikingStage

RECIPE = Recipe(
    name="shd",
    description="two dense layers on Spiking Heidelberg Digits, spoken digits",
    load_data=spoken_words.SHD.load,
    build_network=functools.partial(blocks.spoken_words_network, spoken_words.INPUTS, spoken_words.SHD.classes, 2, 256, 0.4),
    has_time=True,
    spiking=SpikingStage(timesteps=140, gradient=gradients.BPTT()),
    optimizer=AdamW(),
    learning_rate=5e-3,
    weight_decay=1e-5,
    epochs=150,
    batch_size=256,
)
