"""Fashion-MNIST with a compact network: minutes an epoch on two processor cores."""

import keras

from recipes import blocks, optimizers
from recipes.data import fashion_mnist
from recipes.recipe import Recipe


def build_network():
    inputs = keras.Input(fashion_mnist.IMAGE_SHAPE, name="pixels")
    x = keras.layers.Rescaling(1 / fashion_mnist.LARGEST_PIXEL)(inputs)
    # Neurons at all 28x28 places would take more time than all other layers together.
    x = blocks.spiking_convolution(x, 32, strides=2)
    x = blocks.spiking_convolution(x, 64, strides=2)
    x = blocks.spiking_convolution(x, 128)
    x = keras.layers.Flatten()(x)
    return keras.Model(inputs, keras.layers.Dense(fashion_mnist.CLASSES, name="logits")(x), name="fashion_mnist")


RECIPE = Recipe(
    name="fashion_mnist",
    load_data=fashion_mnist.load,
    build_network=build_network,
    build_optimizer=optimizers.sgd_with_cosine_decay,
    learning_rate=0.1,
    weight_decay=5e-3,
    epochs=10,
    batch_size=128,
    timesteps=4,
)
