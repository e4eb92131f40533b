"""Fashion-MNIST with a compact network: 280,000 parameters, a few minutes per epoch on
two CPU cores."""

import functools

import keras

from recipes import blocks
from recipes.data import fashion_mnist
from recipes.optimizers import SGD
from recipes.recipe import Recipe
from recipes.stages import SpikingStage

MEAN_PIXEL, PIXEL_DEVIATION = 72.9, 90.0
"""Of the training images."""


def build_network(width, normalization="batch"):
    convolution = functools.partial(
        blocks.spiking_convolution, normalization=normalization
    )
    inputs = keras.Input(fashion_mnist.IMAGE_SHAPE, name="pixels")
    # Standardised kernels need inputs with mean 0 and variance 1; other networks
    # normalise after the first convolution.
    mean, deviation = (
        (MEAN_PIXEL, PIXEL_DEVIATION)
        if normalization == "weight"
        else (0.0, fashion_mnist.LARGEST_PIXEL)
    )
    x = keras.layers.Rescaling(1 / deviation, -mean / deviation)(inputs)
    # The first convolution sees the same image at every step and runs once, so it can
    # use the full 28x28 resolution.
    x = convolution(x, 32 * width)
    x = keras.layers.AveragePooling2D(2)(x)
    x = convolution(x, 64 * width)
    x = convolution(x, 64 * width)
    x = keras.layers.AveragePooling2D(2)(x)
    x = convolution(x, 128 * width)
    x = convolution(x, 128 * width)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(
        inputs,
        keras.layers.Dense(fashion_mnist.CLASSES, name="logits")(x),
        name="fashion_mnist",
    )


RECIPE = Recipe(
    name="fashion_mnist",
    description="a compact network on Fashion-MNIST, a few minutes per epoch on two "
    "CPU cores",
    load_data=fashion_mnist.load,
    build_network=build_network,
    learning_rate=0.1,
    weight_decay=5e-3,
    epochs=42,
    optimizer=SGD(restart_at=25 / 42),
    batch_size=128,
    spiking=SpikingStage(timesteps=4),
    augment="fashion_mnist",
)
