"""Spoken words with dense layers, in steps of 10 milliseconds, by BPTT: Spiking
Heidelberg Digits and Spiking Speech Commands.

Inputs, layers, dropout, batch sizes, epochs, largest learning rate and weight decay are
those of the program of DCLS-delays (Hammouamri et al., ICLR 2024, best_config_SHD.py
and best_config_SSC.py), without delays. Its neurons, which forget within a step, need
delays; these are LIF neurons as those of Bittar and Garner, 2022, whose learned decays
are between 0.82 and 0.96. 140 steps are 1.4 seconds of a digit; what is later is left
out. A command lasts a second. `ssc_valid.h5` is not read; `held_out` takes training
recordings.
"""

import functools

from keras_ratesnn import gradients
from recipes import blocks
from recipes.data import spoken_words
from recipes.optimizers import AdamW
from recipes.recipe import Recipe
from recipes.stages import SpikingStage


def recipe(
    name, description, data, timesteps, layers, units, dropout, epochs, batch_size
):
    """The recipe of a data set of spoken words, with a network of so many layers of so
    many units."""
    sizes = (spoken_words.INPUTS, data.classes, layers, units, dropout)
    return Recipe(
        name=name,
        description=description,
        load_data=data.load,
        build_network=functools.partial(blocks.spoken_words_network, *sizes),
        has_time=True,
        spiking=SpikingStage(timesteps=timesteps, gradient=gradients.BPTT()),
        optimizer=AdamW(),
        learning_rate=5e-3,
        weight_decay=1e-5,
        epochs=epochs,
        batch_size=batch_size,
    )


SHD = "two dense layers on Spiking Heidelberg Digits, spoken digits"
SSC = "three dense layers on Spiking Speech Commands, spoken words"

RECIPES = (
    recipe("shd", SHD, spoken_words.SHD, 140, 2, 256, 0.4, epochs=150, batch_size=256),
    recipe("ssc", SSC, spoken_words.SSC, 100, 3, 512, 0.25, epochs=60, batch_size=128),
)
