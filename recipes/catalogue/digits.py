"""Handwritten digits, 8x8 pixels: the recipe to start with. It needs no download and
takes less than a minute."""

import functools

import keras

from recipes import layers
from recipes.data import digits
from recipes.recipe import Recipe


def build_network(width, normalization="batch"):
    convolution = functools.partial(
        layers.spiking_convolution, normalization=normalization
    )
    inputs = keras.Input(digits.IMAGE_SHAPE, name="pixels")
    x = keras.layers.Rescaling(1 / digits.LARGEST_PIXEL)(inputs)
    x = convolution(x, 64 * width)
    x = convolution(x, 128 * width, strides=2)
    x = convolution(x, 128 * width, strides=2)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return layers.classifier(inputs, x, digits.CLASSES, "digits")


RECIPES = (
    Recipe(
        name="digits",
        load_data=digits.load,
        build_network=build_network,
        learning_rate=0.1,
        weight_decay=5e-3,
        epochs=10,
        batch_size=64,
        timesteps=4,
    ),
)
