"""
Title: Handwritten digits with a spiking network
Author: keras_ratesnn
Date created: 2026/11/28
Last modified: 2026/11/28
Description: Train a spiking network by its firing rates, run it with fewer steps.
Accelerator: NONE
"""

"""
## Introduction

The neurons of a spiking network emit spikes, 0 or 1, at each of T time steps.
Neuromorphic chips compute only where there are spikes, so such networks need little
energy. But a spike has no useful derivative, and backpropagation through time stores
all T steps.

Rate-based backpropagation (Yu et al., NeurIPS 2024) runs the exact spiking network
forwards, and goes backwards once, through firing rates: the mean of the spikes of each
neuron over time. This example trains a small network that way on handwritten digits, in
less than a minute on a CPU, on TensorFlow, JAX or PyTorch.

## Setup
"""

import keras
import numpy as np
from sklearn.datasets import load_digits

import keras_ratesnn as rsnn

TIMESTEPS = 4
EPOCHS = 5

keras.utils.set_random_seed(0)

"""
## The data

1,797 digits of 8 x 8 pixels come with scikit-learn. The last fifth is for the test:
other people have written it.
"""

images, labels = load_digits(return_X_y=True)
images = (images / 16).reshape(-1, 8, 8, 1).astype("float32")
x_train, y_train = images[:1437], labels[:1437]
x_test, y_test = images[1437:], labels[1437:]
print(f"{len(x_train)} digits to train with, {len(x_test)} to test with")

"""
## The network of one time step

A spiking network is an ordinary Keras model, in which layers of neurons take the place
of activations. `LIF` is the leaky integrate-and-fire neuron: its membrane keeps a part
of its value from step to step, adds its input, and emits a spike when it reaches the
threshold, which is then subtracted.
"""


def convolution(x, filters, strides):
    x = keras.layers.Conv2D(
        filters, 3, strides, padding="same", use_bias=False
    )(x)
    x = keras.layers.BatchNormalization(momentum=0.9)(x)
    return rsnn.layers.LIF(decay=0.2, threshold=1.0)(x)


inputs = keras.Input((8, 8, 1))
x = convolution(inputs, 32, strides=1)
x = convolution(x, 64, strides=2)
x = keras.layers.Flatten()(x)
network = keras.Model(inputs, keras.layers.Dense(10)(x))

"""
## Time

`SpikingModel` runs the network for T time steps and returns the mean of its outputs. An
image is the input of every step. The argument `gradient` selects the training method:
`"rate"` is the default; with `"bptt"` the same model is trained by backpropagation
through time.
"""

model = rsnn.SpikingModel(network, timesteps=TIMESTEPS, gradient="rate")
model.compile(
    optimizer=keras.optimizers.Adam(0.002),
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)
model.fit(x_train, y_train, batch_size=64, epochs=EPOCHS, verbose=2)
_, accuracy = model.evaluate(x_test, y_test, verbose=0)
print(f"Accuracy on the test digits: {accuracy:.3f}")

"""
## How much it spikes

`describe` runs a batch and counts. The firing rate of a layer is the mean number of
spikes of a neuron in a time step; where it is low, a neuromorphic chip has little to
do.
"""

rsnn.describe(model, x_test[:64])

"""
## Fewer time steps

The number of time steps can be changed after training. Fewer steps take less time and
energy. For this small network and simple images a single step is about as good as four;
deep networks lose more.
"""

accuracies = {}
for timesteps in range(1, TIMESTEPS + 1):
    model.timesteps = timesteps
    predicted = model.predict(x_test, verbose=0).argmax(-1)
    accuracies[timesteps] = np.mean(predicted == y_test)
    print(f"T = {timesteps}: {accuracies[timesteps]:.3f}")

"""
## What next

Replace `"rate"` by `"bptt"` and compare. `rsnn.models` has deep networks in the manner
of `keras.applications`, and `rsnn.spikify` turns trained Keras models into spiking
ones.
"""
