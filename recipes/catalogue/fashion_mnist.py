"""Fashion-MNIST: a compact network of 280,000 parameters, a few minutes per epoch on
two CPU cores; a residual network of thirteen layers and 3 million parameters, about
five; a small Max-Former of 1.66 million, 49 tokens; and VGGSNN, at a quarter of its
width, on made recordings of the images in front of an event camera."""

import functools

import keras

from keras_ratesnn import models
from recipes import layers
from recipes.catalogue import transformers
from recipes.data import fashion_mnist, fashion_mnist_events
from recipes.recipe import Recipe

MEAN_PIXEL, PIXEL_DEVIATION = 72.9, 90.0
"""The mean and the standard deviation of the pixels of the training images."""

STEM = 32
"""Channels of the residual network's stage with the full resolution of 28x28."""

STAGES = (80, 160, 320)
"""Channels of the stages after it. Each begins by halving the resolution."""


def compact(width, normalization="batch"):
    convolution = functools.partial(
        layers.spiking_convolution, normalization=normalization
    )
    inputs = keras.Input(fashion_mnist.IMAGE_SHAPE, name="pixels")
    # Standardised kernels need inputs with mean 0 and variance 1; other networks
    # normalise after the first convolution.
    mean, deviation = 0.0, fashion_mnist.LARGEST_PIXEL
    if normalization == "weight":
        mean, deviation = MEAN_PIXEL, PIXEL_DEVIATION
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
    return layers.classifier(inputs, x, fashion_mnist.CLASSES, "fashion_mnist")


def resnet13(width):
    def convolution(x, channels):
        return layers.spiking_convolution(x, channels * width)

    def residual(x, channels):
        return keras.layers.Add()([x, convolution(convolution(x, channels), channels)])

    inputs = keras.Input(fashion_mnist.IMAGE_SHAPE, name="pixels")
    x = keras.layers.Rescaling(1 / fashion_mnist.LARGEST_PIXEL)(inputs)
    x = residual(convolution(x, STEM), STEM)
    for channels in STAGES:
        x = keras.layers.AveragePooling2D(2, padding="same")(x)
        x = residual(convolution(x, channels), channels)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return layers.classifier(inputs, x, fashion_mnist.CLASSES, "fashion_mnist_resnet13")


def maxformer(width):
    network = transformers.build_network(
        models.MaxFormer,
        fashion_mnist.IMAGE_SHAPE,
        fashion_mnist.CLASSES,
        dims=192,
        depth=4,
        heads=8,
        width=width,
    )
    return layers.on_pixels(network, *fashion_mnist.PIXELS)


recipe = functools.partial(
    Recipe,
    load_data=fashion_mnist.load,
    batch_size=128,
    timesteps=4,
    augment="fashion_mnist",
)

RECIPES = (
    recipe(
        name="fashion_mnist",
        build_network=compact,
        learning_rate=0.1,
        weight_decay=5e-3,
        epochs=42,
        restart_at=25 / 42,
    ),
    recipe(
        name="fashion_mnist_events",
        load_data=fashion_mnist_events.load,
        build_network=functools.partial(
            layers.on_event_frames,
            fashion_mnist_events.IMAGE_SHAPE,
            fashion_mnist_events.CLASSES,
        ),
        has_time=True,
        timesteps=10,
        width=0.25,
        epochs=20,
        batch_size=32,
        learning_rate=0.1,
        weight_decay=5e-3,
        augment="cifar10_dvs",
    ),
    recipe(
        name="fashion_mnist_maxformer",
        build_network=maxformer,
        optimizer="adamw",
        # As the authors' with CIFAR-10; fewer epochs.
        learning_rate=1.5e-3,
        weight_decay=0.06,
        epochs=20,
    ),
    recipe(
        name="fashion_mnist_resnet13",
        build_network=resnet13,
        learning_rate=0.05,
        weight_decay=5e-3,
        epochs=12,
        ordinary="first",
        # An epoch of the ordinary network takes a third of the time, so it trains
        # longer.
        ordinary_epochs=30,
        ordinary_learning_rate=0.1,
        teacher_weight=0.7,
        augment="fashion_mnist_cutout",
        precision="mixed_bfloat16",
    ),
)
