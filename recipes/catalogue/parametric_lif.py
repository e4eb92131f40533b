"""The network of PLIF on recordings of event cameras: DVS128 Gesture, T = 20, and
N-MNIST, T = 10; best on a GPU.

Networks, T, frames by count, batch size and learning rate are those of Fang et al.,
"Incorporating Learnable Membrane Time Constant to Enhance Learning of Spiking Neural
Networks", ICCV 2021 (arXiv 2007.05785), and of their program
(Parametric-Leaky-Integrate-and-Fire-Spiking-Neuron). It uses Adam with a cosine that
returns every 128 epochs, for 1024 epochs, and BPTT; here 64 epochs, the half period of
its cosine, and the rate gradient. Their accuracy is 0.9757 on DVS128 Gesture, 0.9961 on
N-MNIST.
"""

import functools

import keras

import keras_ratesnn
from recipes import layers
from recipes.data import events
from recipes.recipe import Recipe


def build_network(image_shape, classes, convolutions, units, width):
    """Blocks of a 3x3 convolution of 128 channels and max pooling, two dense layers.

    Its authors end in spikes of ten neurons for each class, and train their mean with a
    squared error; this one ends in logits.

    Args:
        image_shape: `(height, width, channels)`.
        classes: Integer.
        convolutions: Integer, their number.
        units: Integer, those of the dense layer with neurons.
        width: Float that multiplies channels and units.
    """

    def neurons(x):
        return keras_ratesnn.layers.ParametricLIF(
            decay=0.5, reset="hard", decay_input=True, surrogate="atan"
        )(x)

    filters = layers.channels(128, width)
    inputs = x = keras.Input(image_shape, name="pixels")
    for _ in range(convolutions):
        x = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
        x = keras.layers.MaxPooling2D(2)(neurons(layers.normalized(x)))
    x = keras.layers.Dropout(0.5)(keras.layers.Flatten()(x))
    x = neurons(keras.layers.Dense(layers.channels(units, width), use_bias=False)(x))
    x = keras.layers.Dropout(0.5)(x)
    return layers.classifier(inputs, x, classes, "parametric_lif")


recipe = functools.partial(
    Recipe,
    has_time=True,
    optimizer="adamw",
    learning_rate=1e-3,
    weight_decay=0.0,
    epochs=64,
    batch_size=16,
)

RECIPES = (
    recipe(
        name="dvs_gesture",
        load_data=events.load_gestures,
        build_network=functools.partial(build_network, (128, 128, 2), 11, 5, 512),
        timesteps=20,
    ),
    recipe(
        name="nmnist",
        load_data=events.load_nmnist,
        build_network=functools.partial(build_network, (34, 34, 2), 10, 2, 2048),
        timesteps=10,
    ),
)
