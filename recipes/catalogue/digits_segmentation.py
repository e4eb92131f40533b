"""Segmentation of digits in scenes of 64x64 pixels, with a small U-Net."""

import functools

import keras

import keras_ratesnn
from recipes.data import scenes
from recipes.recipe import Recipe
from recipes.tasks import segmentation

CHANNELS = (16, 24, 32, 48)
LARGEST_PIXEL = 255


def build_network(width, dataset):
    sizes = [max(1, round(channels * width)) for channels in CHANNELS]
    inputs = keras.Input(dataset.train_images.shape[1:], name="pixels")
    x = _convolution(keras.layers.Rescaling(1 / LARGEST_PIXEL)(inputs), sizes[0])
    levels = []
    for channels in sizes[1:]:
        x = _convolution(x, channels, strides=2)
        levels.append(x)
    x = _convolution(levels.pop(), sizes[-1])
    for channels, level in zip(sizes[-2:0:-1], reversed(levels), strict=True):
        x = keras.layers.Concatenate()([keras.layers.UpSampling2D()(x), level])
        x = _convolution(x, channels)
    logits = keras.layers.Conv2DTranspose(
        dataset.classes, 4, strides=2, padding="same", dtype="float32", name="logits"
    )(x)
    return keras.Model(inputs, logits, name="u_net")


def _convolution(x, channels, strides=1):
    x = keras.layers.Conv2D(
        channels, 3, strides=strides, padding="same", use_bias=False
    )(x)
    x = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)
    return keras.layers.ReLU()(x)


RECIPES = (
    Recipe(
        name="digits_segmentation",
        load_data=scenes.load_masks,
        build_network=build_network,
        neuron=functools.partial(
            keras_ratesnn.layers.IF, detach_reset=False, initial_membrane=0.5
        ),
        task=segmentation.SEGMENTATION,
        optimizer="adamw",
        learning_rate=3e-3,
        weight_decay=0.01,
        epochs=10,
        batch_size=32,
        timesteps=4,
        ordinary="first",
    ),
)
