"""Handwritten digits, 8x8 pixels: the recipe to start with. It needs no download and a fraction of a minute."""

import keras

from recipes import blocks, optimizers
from recipes.data import digits
from recipes.recipe import Recipe


def build_network():
    inputs = keras.Input(digits.IMAGE_SHAPE, name="pixels")
    x = keras.layers.Rescaling(1 / digits.LARGEST_PIXEL)(inputs)
    x = blocks.spiking_convolution(x, 64)
    x = blocks.spiking_convolution(x, 128, strides=2)
    x = blocks.spiking_convolution(x, 128, strides=2)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(digits.CLASSES, name="logits")(x), name="digits")


RECIPE = Recipe(
    name="digits",
    load_data=digits.load,
    build_network=build_network,
    build_optimizer=optimizers.sgd_with_cosine_decay,
    learning_rate=0.1,
    weight_decay=5e-3,
    epochs=10,
    batch_size=64,
    timesteps=4,
)
