"""Networks of layers drawn from a seed: every layer of the library, and the layers of
Keras that conversions know."""

import keras
import numpy as np
from keras import layers, ops

import keras_ratesnn as rsnn
from keras_ratesnn.layers.pooling import PaddedMaxPooling2D

T = 3
STEP_FACTORS = "step_factors"


@keras.saving.register_keras_serializable(package="tests")
class Rectified(rsnn.layers.TimeMixing):
    """y_t = max(x_t − ½, x_{t−1} / 2): mixes time steps, and is not linear."""

    def initial_state(self, inputs):
        return ops.zeros_like(inputs)

    def step(self, inputs, state):
        return ops.maximum(inputs - 0.5, 0.5 * state), inputs


@keras.saving.register_keras_serializable(package="tests")
class Odd(rsnn.layers.Encoder):
    """Shows its input at every second step."""

    def encode(self, inputs, t, timesteps):
        return inputs * ops.cast(t % 2, inputs.dtype)


def _on(rank, make):
    """A piece on tensors of this rank: images have 4 axes, tokens 3, volumes 5."""

    def piece(x, random):
        if len(x.shape) != rank:
            sizes = {3: (-1,), 4: (x.shape[1], -1), 5: (x.shape[1], -1, 1)}[rank]
            x = layers.Reshape((*sizes, x.shape[-1]))(x)
        return make(x, random)

    return piece


def _layer(rank, make):
    return _on(rank, lambda x, random: make(random)(x))


def _anywhere(make):
    return lambda x, random: make(random)(x)


def _currents(x):
    """What neurons see: sums of their inputs."""
    return layers.Dense(4)(x)


def _neurons(make):
    return lambda x, random: make(random)(_currents(x))


def _ilif(random):
    return rsnn.layers.ILIF(
        int(random.choice([2, 4])), threshold=0.5, normalize=bool(random.integers(2))
    )


def _cell(make):
    return _neurons(lambda random: rsnn.layers.Neuron(make(random)))


def _pair(x):
    """Two tensors of spikes or of sums, made of one."""
    return x, layers.Dense(x.shape[-1])(x)


def _size(random):
    return int(random.integers(1, 4))


def _convolution(rank, make):
    return _layer(
        rank,
        lambda random: make(
            random, {"padding": "same", "use_bias": bool(random.integers(2))}
        ),
    )


OF_LIBRARY = {
    "ALIF": _neurons(
        lambda random: rsnn.layers.ALIF(threshold=0.4, initial_membrane=-0.1)
    ),
    "IF": _neurons(lambda random: rsnn.layers.IF(threshold=0.4)),
    "ILIF": _neurons(_ilif),
    "LIF": _neurons(
        lambda random: rsnn.layers.LIF(
            threshold=0.5, decay_input=bool(random.integers(2)), reset="hard"
        )
    ),
    "PSN": _neurons(lambda random: rsnn.layers.PSN(T, threshold=0.3)),
    "ALIFCell": _cell(
        lambda random: rsnn.layers.ALIFCell(threshold=0.4, learn_threshold=True)
    ),
    "BernoulliEncoder": _anywhere(lambda random: rsnn.layers.BernoulliEncoder()),
    "CuBaLIF": _neurons(lambda random: rsnn.layers.CuBaLIF(threshold=0.4)),
    "CuBaLIFCell": _cell(
        lambda random: rsnn.layers.CuBaLIFCell(threshold=0.4, reset_delay=True)
    ),
    "Delay": _anywhere(
        lambda random: rsnn.layers.Delay(3 + 2 * int(random.integers(2)))
    ),
    "Encoder": _anywhere(lambda random: Odd()),
    "IFCell": _cell(lambda random: rsnn.layers.IFCell(threshold=0.4)),
    "ILIFCell": _cell(
        lambda random: rsnn.layers.ILIFCell(3, threshold=0.4, initial_membrane=0.1)
    ),
    "LIFCell": _cell(
        lambda random: rsnn.layers.LIFCell(threshold=0.4, reset_delay=True)
    ),
    "LeakyReadout": lambda x, random: rsnn.layers.LeakyReadout(
        value=str(random.choice(["mean", "last", "max"]))
    )(x),
    "LatencyEncoder": _anywhere(lambda random: rsnn.layers.LatencyEncoder()),
    "MaskedPSN": _neurons(lambda random: rsnn.layers.MaskedPSN(T, 2, threshold=0.3)),
    "MaskedPSNCell": _cell(
        lambda random: rsnn.layers.MaskedPSNCell(T, 2, threshold=0.3)
    ),
    "Neuron": _cell(lambda random: rsnn.layers.LIFCell(threshold=0.5)),
    "NeuronCell": _cell(lambda random: Saturating(threshold=0.5)),
    "OnlineRenormalization": _anywhere(
        lambda random: rsnn.layers.OnlineRenormalization()
    ),
    "PSNCell": _cell(lambda random: rsnn.layers.PSNCell(T, threshold=0.3)),
    "ParametricLIF": _neurons(lambda random: rsnn.layers.ParametricLIF(threshold=0.4)),
    "ParametricLIFCell": _cell(
        lambda random: rsnn.layers.ParametricLIFCell(threshold=0.4, decay_input=True)
    ),
    "Recurrent": _neurons(
        lambda random: rsnn.layers.Recurrent(_ilif(random), layers.Dense(4))
    ),
    "RecurrentCell": _cell(
        lambda random: rsnn.layers.RecurrentCell(
            rsnn.layers.LIFCell(threshold=0.5), layers.Dense(4)
        )
    ),
    "Scale": _anywhere(
        lambda random: rsnn.layers.Scale(0.7, per_channel=bool(random.integers(2)))
    ),
    "SlidingPSN": _neurons(lambda random: rsnn.layers.SlidingPSN(2, threshold=0.3)),
    "SlidingPSNCell": _cell(
        lambda random: rsnn.layers.SlidingPSNCell(2, threshold=0.3)
    ),
    "TemporalEffectiveBatchNormalization": _anywhere(
        lambda random: rsnn.layers.TemporalEffectiveBatchNormalization(T)
    ),
    "ThresholdDependentBatchNormalization": _anywhere(
        lambda random: rsnn.layers.ThresholdDependentBatchNormalization()
    ),
    "TimeMean": lambda x, random: rsnn.layers.TimeMean()(
        _neurons(_ilif)(x, random) if random.integers(2) else x
    ),
    "TimeMixing": _anywhere(lambda random: Rectified()),
    "WSConv2D": _convolution(
        4, lambda random, kwargs: rsnn.layers.WSConv2D(4, 2, **kwargs)
    ),
    "WSDense": lambda x, random: rsnn.layers.WSDense(
        4, use_bias=bool(random.integers(2))
    )(layers.Concatenate()([x, x])),
    "spiking_self_attention": _on(
        3,
        lambda x, random: rsnn.models.spiking_self_attention(
            _currents(x),
            2,
            scale=0.25,
            neuron=lambda: _ilif(random),
            attention_neuron=lambda: _ilif(random),
        ),
    ),
    "token_attention": _on(
        4,
        lambda x, random: rsnn.models.token_attention(
            _currents(x), 2, neuron=lambda: _ilif(random)
        ),
    ),
}
"""Pieces by the name of a layer, a cell, a base class or an attention of the library:
functions of a tensor and a random generator."""


@keras.saving.register_keras_serializable(package="tests")
class Saturating(rsnn.layers.NeuronCell):
    """A cell of one's own."""

    def step(self, inputs, state):
        membrane = 0.5 * ops.tanh(state) + ops.cast(inputs, state.dtype)
        spikes = self.fire(membrane)
        return membrane, spikes, membrane - self.threshold * ops.stop_gradient(spikes)


OF_KERAS = {
    "BatchNormalization": _anywhere(lambda random: layers.BatchNormalization()),
    "Dense": _anywhere(
        lambda random: layers.Dense(4, activation=random.choice(["linear", "tanh"]))
    ),
    "EinsumDense": _on(
        3,
        lambda x, random: layers.EinsumDense(
            "bnc,cd->bnd", (x.shape[1], 4), bias_axes="d"
        )(x),
    ),
    "Conv1D": _convolution(
        3, lambda random, kwargs: layers.Conv1D(4, _size(random), **kwargs)
    ),
    "Conv2D": _convolution(
        4,
        lambda random, kwargs: layers.Conv2D(
            4, _size(random), activation="relu", **kwargs
        ),
    ),
    "Conv3D": _convolution(
        5, lambda random, kwargs: layers.Conv3D(3, _size(random), **kwargs)
    ),
    "DepthwiseConv1D": _convolution(
        3, lambda random, kwargs: layers.DepthwiseConv1D(2, **kwargs)
    ),
    "DepthwiseConv2D": _convolution(
        4, lambda random, kwargs: layers.DepthwiseConv2D(_size(random), **kwargs)
    ),
    "Conv1DTranspose": _convolution(
        3, lambda random, kwargs: layers.Conv1DTranspose(3, 2, **kwargs)
    ),
    "Conv2DTranspose": _convolution(
        4, lambda random, kwargs: layers.Conv2DTranspose(3, 2, **kwargs)
    ),
    "Conv3DTranspose": _convolution(
        5, lambda random, kwargs: layers.Conv3DTranspose(3, 2, **kwargs)
    ),
    "SeparableConv1D": _convolution(
        3, lambda random, kwargs: layers.SeparableConv1D(3, 2, **kwargs)
    ),
    "SeparableConv2D": _convolution(
        4, lambda random, kwargs: layers.SeparableConv2D(3, 2, **kwargs)
    ),
    "MaxPooling1D": _layer(3, lambda random: layers.MaxPooling1D(2, padding="same")),
    "MaxPooling2D": _layer(4, lambda random: layers.MaxPooling2D(2, padding="same")),
    "MaxPooling3D": _layer(5, lambda random: layers.MaxPooling3D(2, padding="same")),
    "PaddedMaxPooling2D": _layer(4, lambda random: PaddedMaxPooling2D(3, strides=2)),
    "GlobalMaxPooling1D": _on(
        3, lambda x, random: layers.GlobalMaxPooling1D(keepdims=True)(x)
    ),
    "GlobalMaxPooling2D": _on(
        4, lambda x, random: layers.GlobalMaxPooling2D(keepdims=True)(x)
    ),
    "GlobalMaxPooling3D": _on(
        5, lambda x, random: layers.GlobalMaxPooling3D(keepdims=True)(x)
    ),
    "AveragePooling1D": _layer(
        3, lambda random: layers.AveragePooling1D(2, padding="same")
    ),
    "AveragePooling2D": _layer(
        4, lambda random: layers.AveragePooling2D(2, padding="same")
    ),
    "AveragePooling3D": _layer(
        5, lambda random: layers.AveragePooling3D(2, padding="same")
    ),
    "GlobalAveragePooling1D": _on(
        3, lambda x, random: layers.GlobalAveragePooling1D(keepdims=True)(x)
    ),
    "GlobalAveragePooling2D": _on(
        4, lambda x, random: layers.GlobalAveragePooling2D(keepdims=True)(x)
    ),
    "GlobalAveragePooling3D": _on(
        5, lambda x, random: layers.GlobalAveragePooling3D(keepdims=True)(x)
    ),
    "Dropout": _anywhere(lambda random: layers.Dropout(0.5)),
    "SpatialDropout1D": _layer(3, lambda random: layers.SpatialDropout1D(0.5)),
    "SpatialDropout2D": _layer(4, lambda random: layers.SpatialDropout2D(0.5)),
    "SpatialDropout3D": _layer(5, lambda random: layers.SpatialDropout3D(0.5)),
    "GaussianDropout": _anywhere(lambda random: layers.GaussianDropout(0.5)),
    "ZeroPadding1D": _layer(3, lambda random: layers.ZeroPadding1D(1)),
    "ZeroPadding2D": _layer(4, lambda random: layers.ZeroPadding2D(1)),
    "ZeroPadding3D": _layer(5, lambda random: layers.ZeroPadding3D((1, 0, 0))),
    "Cropping1D": _layer(3, lambda random: layers.Cropping1D(0)),
    "Cropping2D": _layer(4, lambda random: layers.Cropping2D(0)),
    "Cropping3D": _layer(5, lambda random: layers.Cropping3D(0)),
    "UpSampling1D": _layer(3, lambda random: layers.UpSampling1D(2)),
    "UpSampling2D": _layer(
        4,
        lambda random: layers.UpSampling2D(
            (1, 2), interpolation=str(random.choice(["nearest", "bilinear"]))
        ),
    ),
    "UpSampling3D": _layer(5, lambda random: layers.UpSampling3D((1, 1, 2))),
    "Add": lambda x, random: layers.Add()(_pair(x)),
    "Subtract": lambda x, random: layers.Subtract()(_pair(x)),
    "Average": lambda x, random: layers.Average()(_pair(x)),
    "Multiply": lambda x, random: layers.Multiply()(_pair(x)),
    "Concatenate": lambda x, random: layers.Concatenate()(_pair(x)),
    "Flatten": lambda x, random: layers.Reshape((-1, 2, 1))(
        layers.Flatten()(layers.Dense(2)(x))
    ),
    "ActivityRegularization": _anywhere(
        lambda random: layers.ActivityRegularization(l2=1e-3)
    ),
    "Identity": _anywhere(lambda random: layers.Identity()),
    "Permute": _on(3, lambda x, random: layers.Permute((2, 1))(x)),
    "RepeatVector": lambda x, random: layers.RepeatVector(2)(layers.Flatten()(x)),
    "Rescaling": _anywhere(
        lambda random: layers.Rescaling(0.5, offset=0.25 * int(random.integers(2)))
    ),
    "Reshape": lambda x, random: layers.Reshape((-1, 1, x.shape[-1]))(x),
    "ReLU": lambda x, random: layers.ReLU()(_currents(x)),
    "LeakyReLU": lambda x, random: layers.LeakyReLU()(_currents(x)),
    "PReLU": lambda x, random: layers.PReLU()(_currents(x)),
    "ELU": lambda x, random: layers.ELU()(layers.BatchNormalization()(x)),
    "Softmax": lambda x, random: layers.Softmax()(layers.BatchNormalization()(x)),
    "Activation": lambda x, random: layers.Activation("gelu")(
        layers.BatchNormalization()(x)
    ),
}
"""Likewise, of Keras."""


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
            x = _neurons(_ilif)(x, random)
        x = pieces[name](x, random)
    if names[-1] not in LAST:
        x = _neurons(_ilif)(x, random)
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
