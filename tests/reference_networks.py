"""The networks of the reference cases, and their weights and gradients under the names of the authors' program."""

import json
import pathlib

import keras
import numpy as np
from keras import layers

import keras_ratesnn as rsnn

FOLDER = pathlib.Path(__file__).parent / "reference"
CASES = sorted(path.stem for path in FOLDER.glob("*.npz"))


class Case:
    """One run of the authors' program: what went in, `x`, `y` and weights, and what came out.

    Args:
        name: String, the file's name without its ending.
    """

    def __init__(self, name):
        self.arrays = dict(np.load(FOLDER / f"{name}.npz"))
        self.settings = json.loads(str(self.arrays.pop("meta")))
        self.x, self.y = self.arrays["x"], self.arrays["y"].astype("int32")

    def model(self, **overrides):
        """A SpikingModel of the case's network, weights, neurons, gradient and step mode."""
        settings = self.settings
        gradient, order = settings["method"].split("_")
        if gradient == "rate" and order == "s":
            gradient = rsnn.gradients.Rate(last_step_statistics=True)
        network = NETWORKS[settings["net"]](settings["width"], self.neuron)
        arguments = {
            "timesteps": settings["timesteps"],
            "gradient": gradient,
            "step_mode": {"m": "multi", "s": "single"}[order],
            **overrides,
        }
        model = rsnn.SpikingModel(network, **arguments)
        for variable in model.trainable_variables:
            variable.assign(self.arrays[f"weight/{reference_name(variable)}"])
        return model

    def neuron(self):
        settings = self.settings
        return rsnn.layers.LIF(
            decay=settings["decay"],
            threshold=settings["threshold"],
            reset=settings["reset"],
            detach_reset=settings["detach_reset"],
            surrogate=rsnn.surrogates.Sigmoid(settings["alpha"]),
        )

    def expected(self, kind):
        """The arrays of a kind ("grad", "buffer") by the authors' names."""
        return {key.split("/", 1)[1]: value for key, value in self.arrays.items() if key.startswith(f"{kind}/")}


def reference_name(variable):
    """The authors' name of a Keras variable: layer names stand for theirs with `-` for `.`."""
    layer, kind = variable.path.split("/")[-2:]
    theirs = {
        "kernel": "weight",
        "bias": "bias",
        "gamma": "weight",
        "beta": "bias",
        "moving_mean": "running_mean",
        "moving_variance": "running_var",
    }
    return f"{layer.replace('-', '.')}.{theirs[kind]}"


def _convolution(x, filters, size, strides, name, use_bias):
    # PyTorch's padding=1 pads all sides by 1, also with stride 2, where Keras' "same" does not.
    if size == 3:
        x = layers.ZeroPadding2D(1)(x)
    return layers.Conv2D(filters, size, strides=strides, use_bias=use_bias, name=name)(x)


def _normalization(x, name):
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)(x)


def mlp(width, neuron):
    inputs = keras.Input((12,))
    x = neuron()(layers.Dense(16, name="a")(inputs))
    x = neuron()(layers.Dense(16, name="b")(x))
    return keras.Model(inputs, layers.Dense(5, name="c")(x))


def vgg(width, neuron):
    inputs = keras.Input((8, 8, 3))
    x = _convolution(inputs, width, 3, 1, "f-0", use_bias=True)
    x = layers.AveragePooling2D(2)(neuron()(_normalization(x, "f-1")))
    x = _convolution(x, 2 * width, 3, 1, "f-4", use_bias=True)
    x = layers.AveragePooling2D(2)(neuron()(_normalization(x, "f-5")))
    return keras.Model(inputs, layers.Dense(5, name="c")(layers.Flatten()(x)))


def res(width, neuron):
    def block(x, name, filters, strides):
        y = _convolution(x, filters, 3, strides, f"{name}-conv1", use_bias=False)
        y = neuron()(_normalization(y, f"{name}-bn1"))
        y = _normalization(_convolution(y, filters, 3, 1, f"{name}-conv2", use_bias=False), f"{name}-bn2")
        if strides > 1:
            x = _convolution(x, filters, 1, strides, f"{name}-shortcut-0", use_bias=False)
            x = _normalization(x, f"{name}-shortcut-1")
        return neuron()(layers.Add()([y, x]))

    inputs = keras.Input((8, 8, 3))
    x = neuron()(_normalization(_convolution(inputs, width, 3, 1, "conv0-0", use_bias=False), "conv0-1"))
    x = block(block(x, "b1", width, 1), "b2", 2 * width, 2)
    return keras.Model(inputs, layers.Dense(5, name="c")(layers.GlobalAveragePooling2D()(x)))


def sew(width, neuron):
    def unit(x, name, filters, size, strides):
        return neuron()(_normalization(_convolution(x, filters, size, strides, f"{name}-0", use_bias=True), f"{name}-1"))

    def block(x, name, filters, strides):
        y = unit(x, f"{name}-convNeuron1", filters, 3, strides)
        y = unit(y, f"{name}-convNeuron2", filters, 3, 1)
        if strides > 1:
            x = unit(x, f"{name}-downsample", filters, 1, strides)
        return layers.Add()([y, x])

    inputs = keras.Input((8, 8, 3))
    x = unit(inputs, "conv0", width, 3, 1)
    x = block(block(x, "b1", width, 1), "b2", 2 * width, 2)
    return keras.Model(inputs, layers.Dense(5, name="c")(layers.GlobalAveragePooling2D()(x)))


def pre(width, neuron):
    def block(x, name, filters, strides):
        y = _convolution(neuron()(x), filters, 3, strides, f"{name}-conv1", use_bias=True)
        y = _convolution(neuron()(_normalization(y, f"{name}-bn1")), filters, 3, 1, f"{name}-conv2", use_bias=True)
        y = _normalization(y, f"{name}-bn2")
        if strides > 1:
            x = _convolution(x, filters, 1, strides, f"{name}-downsample-0", use_bias=True)
            x = _normalization(x, f"{name}-downsample-1")
        return layers.Add()([y, x])

    inputs = keras.Input((8, 8, 3))
    x = _normalization(_convolution(inputs, width, 3, 1, "conv1", use_bias=True), "bn1")
    x = block(block(x, "b1", width, 1), "b2", 2 * width, 2)
    return keras.Model(inputs, layers.Dense(5, name="c")(layers.GlobalAveragePooling2D()(x)))


NETWORKS = {"mlp": mlp, "vgg": vgg, "res": res, "sew": sew, "pre": pre}
