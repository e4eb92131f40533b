"""Fashion-MNIST with a residual network of thirteen layers: 3 million parameters, about
five minutes per epoch on two cores."""

import keras

from recipes import blocks
from recipes.data import fashion_mnist
from recipes.recipe import Recipe
from recipes.stages import OrdinaryStage, SpikingStage
from recipes.teaching import Teacher

STEM = 32
"""Channels of the stage with the full resolution of 28x28."""

STAGES = (80, 160, 320)
"""Channels of the stages after it. Each begins by halving the resolution."""


def build_network(width):
    def convolution(x, channels):
        return blocks.spiking_convolution(x, channels * width)

    def residual(x, channels):
        return keras.layers.Add()([x, convolution(convolution(x, channels), channels)])

    inputs = keras.Input(fashion_mnist.IMAGE_SHAPE, name="pixels")
    x = keras.layers.Rescaling(1 / fashion_mnist.LARGEST_PIXEL)(inputs)
    x = residual(convolution(x, STEM), STEM)
    for channels in STAGES:
        x = keras.layers.AveragePooling2D(2, padding="same")(x)
        x = residual(convolution(x, channels), channels)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(
        inputs,
        keras.layers.Dense(fashion_mnist.CLASSES, name="logits")(x),
        name="fashion_mnist_resnet13",
    )


RECIPE = Recipe(
    name="fashion_mnist_resnet13",
    description="a small residual network on Fashion-MNIST, taught by the ordinary "
    "network that it starts from",
    load_data=fashion_mnist.load,
    build_network=build_network,
    learning_rate=0.05,
    weight_decay=5e-3,
    epochs=12,
    batch_size=128,
    spiking=SpikingStage(
        timesteps=4,
        # An epoch of the ordinary network takes a third of the time, so it trains
        # longer.
        after=OrdinaryStage(gives_weights=True, epochs=30, learning_rate=0.1),
        taught_by=Teacher(0.7),
    ),
    augment="fashion_mnist_cutout",
    precision="mixed_bfloat16",
)
