"""Networks of layers drawn from a seed: every layer of the library, and the layers of
Keras that conversions know."""

import re

import keras
import library_neurons
import numpy as np
from helpers import registered
from keras import layers, ops

import keras_ratesnn as rsnn
from keras_ratesnn import layer_kinds
from keras_ratesnn.layers.pooling import PaddedMaxPooling2D

own = rsnn.layers
T = 3
PUBLIC = [
    name
    for name in own.__all__
    if name not in layer_kinds.__all__
    and issubclass(getattr(own, name), keras.layers.Layer)
]
"""The names of the layers and cells that users have."""


@registered
class Rectified(rsnn.layers.TimeMixing):
    """y_t = max(x_t − ½, x_{t−1} / 2): mixes time steps, and is not linear."""

    def initial_state(self, inputs):
        return ops.zeros_like(inputs)

    def step(self, inputs, state):
        return ops.maximum(inputs - 0.5, 0.5 * state), inputs


@registered
class Odd(rsnn.layers.Encoder):
    """Shows its input at every second step."""

    def encode(self, inputs, t, timesteps):
        return inputs * ops.cast(t % 2, inputs.dtype)


@registered
class Saturating(rsnn.layers.NeuronCell):
    """A cell of one's own."""

    def step(self, inputs, state):
        membrane = 0.5 * ops.tanh(state) + ops.cast(inputs, state.dtype)
        spikes = self.fire(membrane)
        return membrane, spikes, membrane - self.threshold * ops.stop_gradient(spikes)


@registered
class Drawing(rsnn.layers.LIFCell):
    """Draws random numbers at each step."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.generator = keras.random.SeedGenerator(3)

    def step(self, inputs, state):
        noise = keras.random.normal(ops.shape(inputs), seed=self.generator)
        return super().step(inputs + ops.cast(noise, inputs.dtype), state)


def _with_rank(x, rank):
    """Images have 4 axes, tokens 3, volumes 5."""
    if len(x.shape) == rank:
        return x
    sizes = {3: (-1,), 4: (x.shape[1], -1), 5: (x.shape[1], -1, 1)}[rank]
    return layers.Reshape((*sizes, x.shape[-1]))(x)


def _currents(x):
    """What neurons see: sums of their inputs."""
    return layers.Dense(4)(x)


def _pair(x):
    """Two tensors of spikes or of sums, made of one."""
    return x, layers.Dense(x.shape[-1])(x)


def _normalized(x):
    return layers.BatchNormalization()(x)


def _piece(kind, before=None, **arguments):
    """A layer on a tensor of the rank that is in its name.

    Args:
        kind: Class of the layer.
        before: Function of the tensor that comes before the layer. Defaults to `None`.
        arguments: Those of the layer, or functions that draw them.
    """
    axes = re.search("([123])D", kind.__name__)

    def piece(x, random):
        if axes:
            x = _with_rank(x, 2 + int(axes[1]))
        drawn = {
            name: value(random) if callable(value) else value
            for name, value in arguments.items()
        }
        layer = kind(**drawn)
        return layer(before(x) if before else x)

    return piece


def _boolean(random):
    return bool(random.integers(2))


def _size(random):
    return int(random.integers(1, 4))


def _one_of(*values):
    return lambda random: random.choice(values).item()


def _convolution(kind, **arguments):
    return _piece(kind, padding="same", use_bias=_boolean, **arguments)


def _neurons(kind, **arguments):
    return _piece(kind, _currents, **arguments)


def _ilif(random):
    levels = int(random.choice([2, 4]))
    return own.ILIF(levels, threshold=0.5, normalize=_boolean(random))


def _integer_neurons(x, random):
    return _ilif(random)(_currents(x))


def _cell(kind, **arguments):
    return lambda x, random: own.Neuron(kind(**arguments))(_currents(x))


def _of_library():
    for name in library_neurons.ARGUMENTS:
        arguments = library_neurons.arguments_of(name, T)
        yield name, _neurons(library_neurons.layer_class(name), **arguments)
        yield f"{name}Cell", _cell(library_neurons.cell_class(name), **arguments)


def _recurrent_cell(**arguments):
    return own.RecurrentCell(own.LIFCell(**arguments), layers.Dense(4))


OF_LIBRARY = {
    **dict(_of_library()),
    "BernoulliEncoder": _piece(own.BernoulliEncoder),
    "Delay": _piece(
        own.Delay, max_delay=lambda random: 3 + 2 * int(random.integers(2))
    ),
    "Encoder": _piece(Odd),
    "LeakyReadout": _piece(own.LeakyReadout, value=_one_of("mean", "last", "max")),
    "LatencyEncoder": _piece(own.LatencyEncoder),
    "Neuron": _cell(own.LIFCell, threshold=0.4, reset_delay=True),
    "NeuronCell": _cell(Saturating, threshold=0.5),
    "OnlineRenormalization": _piece(own.OnlineRenormalization),
    "Recurrent": lambda x, random: own.Recurrent(_ilif(random), layers.Dense(4))(
        _currents(x)
    ),
    "RecurrentCell": _cell(_recurrent_cell, threshold=0.5),
    "Scale": _piece(own.Scale, initial=0.7, per_channel=_boolean),
    "TemporalEffectiveBatchNormalization": _piece(
        own.TemporalEffectiveBatchNormalization, timesteps=T
    ),
    "ThresholdDependentBatchNormalization": _piece(
        own.ThresholdDependentBatchNormalization
    ),
    "TimeMean": lambda x, random: own.TimeMean()(
        _integer_neurons(x, random) if random.integers(2) else x
    ),
    "TimeMixing": _piece(Rectified),
    "WSConv2D": _convolution(own.WSConv2D, filters=4, kernel_size=2),
    "WSDense": _piece(
        own.WSDense,
        lambda x: layers.Concatenate()([x, x]),
        units=4,
        use_bias=_boolean,
    ),
    "spiking_self_attention": lambda x, random: rsnn.models.spiking_self_attention(
        _currents(_with_rank(x, 3)),
        2,
        scale=0.25,
        neuron=lambda: _ilif(random),
        attention_neuron=lambda: _ilif(random),
    ),
    "token_attention": lambda x, random: rsnn.models.token_attention(
        _currents(_with_rank(x, 4)), 2, neuron=lambda: _ilif(random)
    ),
}
"""Pieces by the name of a layer, a cell, a base class or an attention of the library:
functions of a tensor and a random generator."""


def _einsum_dense(x, random):
    x = _with_rank(x, 3)
    return layers.EinsumDense("bnc,cd->bnd", (x.shape[1], 4), bias_axes="d")(x)


def _flatten(x, random):
    return layers.Reshape((-1, 2, 1))(layers.Flatten()(layers.Dense(2)(x)))


OF_KERAS = {
    "BatchNormalization": _piece(layers.BatchNormalization),
    "Dense": _piece(layers.Dense, units=4, activation=_one_of("linear", "tanh")),
    "EinsumDense": _einsum_dense,
    "Conv1D": _convolution(layers.Conv1D, filters=4, kernel_size=_size),
    "Conv2D": _convolution(
        layers.Conv2D, filters=4, kernel_size=_size, activation="relu"
    ),
    "Conv3D": _convolution(layers.Conv3D, filters=3, kernel_size=_size),
    "DepthwiseConv1D": _convolution(layers.DepthwiseConv1D, kernel_size=2),
    "DepthwiseConv2D": _convolution(layers.DepthwiseConv2D, kernel_size=_size),
    "SeparableConv1D": _convolution(layers.SeparableConv1D, filters=3, kernel_size=2),
    "SeparableConv2D": _convolution(layers.SeparableConv2D, filters=3, kernel_size=2),
    "PaddedMaxPooling2D": _piece(PaddedMaxPooling2D, pool_size=3, strides=2),
    "Dropout": _piece(layers.Dropout, rate=0.5),
    "GaussianDropout": _piece(layers.GaussianDropout, rate=0.5),
    "ZeroPadding1D": _piece(layers.ZeroPadding1D, padding=1),
    "ZeroPadding2D": _piece(layers.ZeroPadding2D, padding=1),
    "ZeroPadding3D": _piece(layers.ZeroPadding3D, padding=(1, 0, 0)),
    "UpSampling1D": _piece(layers.UpSampling1D, size=2),
    "UpSampling2D": _piece(
        layers.UpSampling2D,
        size=(1, 2),
        interpolation=_one_of("nearest", "bilinear"),
    ),
    "UpSampling3D": _piece(layers.UpSampling3D, size=(1, 1, 2)),
    "Flatten": _flatten,
    "ActivityRegularization": _piece(layers.ActivityRegularization, l2=1e-3),
    "Identity": _piece(layers.Identity),
    "Permute": lambda x, random: layers.Permute((2, 1))(_with_rank(x, 3)),
    "RepeatVector": _piece(layers.RepeatVector, lambda x: layers.Flatten()(x), n=2),
    "Rescaling": _piece(
        layers.Rescaling,
        scale=0.5,
        offset=lambda random: 0.25 * int(random.integers(2)),
    ),
    "Reshape": lambda x, random: layers.Reshape((-1, 1, x.shape[-1]))(x),
    "ReLU": _piece(layers.ReLU, _currents),
    "LeakyReLU": _piece(layers.LeakyReLU, _currents),
    "PReLU": _piece(layers.PReLU, _currents),
    "ELU": _piece(layers.ELU, _normalized),
    "Softmax": _piece(layers.Softmax, _normalized),
    "Activation": _piece(layers.Activation, _normalized, activation="gelu"),
}
"""Likewise, of Keras."""

OF_EACH_RANK = {
    "Conv{}DTranspose": {"filters": 3, "kernel_size": 2, "use_bias": _boolean},
    "MaxPooling{}D": {"pool_size": 2},
    "AveragePooling{}D": {"pool_size": 2},
    "GlobalMaxPooling{}D": {"keepdims": True},
    "GlobalAveragePooling{}D": {"keepdims": True},
    "SpatialDropout{}D": {"rate": 0.5},
    "Cropping{}D": {"cropping": 0},
}
for kinds, arguments in OF_EACH_RANK.items():
    padding = {"padding": "same"} if {"pool_size", "filters"} & set(arguments) else {}
    for axes in (1, 2, 3):
        name = kinds.format(axes)
        OF_KERAS[name] = _piece(getattr(layers, name), **padding, **arguments)
for name in ("Add", "Subtract", "Average", "Multiply", "Concatenate"):
    OF_KERAS[name] = _piece(getattr(layers, name), _pair)


LAST = ("TimeMean", "LeakyReadout")
"""Pieces behind which there is no time."""


def draw(names, seed, shape=(4, 2, 2)):
    """A network with a piece of each name, in this order, and neurons with integer
    spikes before, between or after them.

    Args:
        names: List of names of pieces.
        seed: Integer.
        shape: Tuple, the shape of its input. Defaults to images.
    """
    random, pieces = np.random.default_rng(seed), {**OF_LIBRARY, **OF_KERAS}
    inputs = x = keras.Input(shape, dtype=keras.config.dtype_policy().compute_dtype)
    for name in names:
        if random.integers(2):
            x = _integer_neurons(x, random)
        x = pieces[name](x, random)
    if names[-1] not in LAST:
        x = _integer_neurons(x, random)
    network = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))
    give_weights(network, random)
    return network


def give_weights(network, random):
    for weight in network.weights:
        shape = tuple(weight.shape)
        if weight.name in ("gamma", "moving_variance", "step_factors", "gain"):
            weight.assign(random.uniform(0.5, 1.5, shape))
        elif (
            weight.name in ("bias", "beta", "moving_mean") and "psn" not in weight.path
        ):
            weight.assign(random.normal(0.2, 0.3, shape))
        elif "kernel" in weight.name:
            weight.assign(random.normal(0.1, 1.2 / np.sqrt(np.prod(shape[:-1])), shape))
