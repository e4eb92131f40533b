"""Fashion-MNIST with a residual network of eleven layers: 2 million parameters, five to ten minutes per epoch on two cores."""

import keras

from recipes import blocks
from recipes.data import fashion_mnist
from recipes.recipe import Recipe

CHANNELS = (64, 128, 256)
"""Of the three stages."""


def build_network(width):
    def convolution(x, channels):
        return blocks.spiking_convolution(x, channels * width)

    inputs = keras.Input(fashion_mnist.IMAGE_SHAPE, name="pixels")
    x = keras.layers.Rescaling(1 / fashion_mnist.LARGEST_PIXEL)(inputs)
    # The first convolution sees the same image at every step and runs once, so it can use the full 28x28 resolution.
    x = convolution(x, CHANNELS[0])
    for channels in CHANNELS:
        x = keras.layers.AveragePooling2D(2, padding="same")(x)
        x = convolution(x, channels)
        x = keras.layers.Add()([x, convolution(convolution(x, channels), channels)])
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(fashion_mnist.CLASSES, name="logits")(x), name="fashion_mnist_resnet11")


RECIPE = Recipe(
    name="fashion_mnist_resnet11",
    description="a small residual network on Fashion-MNIST, taught by the ordinary network that it starts from",
    load_data=fashion_mnist.load,
    build_network=build_network,
    # An epoch of the ordinary network takes half as long, so it trains longer.
    ordinary="first",
    ordinary_epochs=20,
    ordinary_learning_rate=0.1,
    teacher_weight=0.7,
    learning_rate=0.05,
    weight_decay=5e-3,
    epochs=10,
    batch_size=128,
    timesteps=4,
    augment="fashion_mnist",
)
