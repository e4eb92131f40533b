"""Recorded calls of models, on PyTorch: shared by the tests of them. Only to be
imported on PyTorch."""

import contextlib

import keras
from helpers import assert_close, compiled, spiking
from keras import layers

import keras_ratesnn as rsnn

METHODS = [
    (gradient, step_mode)
    for gradient in ("rate", rsnn.gradients.Rate(windows=2), "bptt", "sltt", "ottt")
    for step_mode in ("multi", "single")
]


@contextlib.contextmanager
def recording(eager_calls=1, compiler=None, **settings):
    """A context in which calls are recorded early, and compiled by another compiler: by
    default, not at all.

    Yields a list, to which each graph is added that is to be compiled: with
    `jit_compile=True` the forward and the backward part of each recorded call.
    """
    graphs = []

    def listed(graph, tensors):
        graphs.append(graph)
        return graph.forward

    calls = {"auto": eager_calls, True: eager_calls}
    with rsnn.engine_settings(
        eager_calls=calls, compiler=compiler or listed, **settings
    ):
        yield graphs


def operations(graph):
    """The operations of a graph, a list of their names, such as `"aten.add.Tensor"`."""
    return [
        str(node.target) for node in graph.graph.nodes if node.op == "call_function"
    ]


def network(dropout=0.3):
    """Convolutions, normalisation, a residual sum, noise, regularisation: what a
    training step may meet."""
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(
        4,
        3,
        padding="same",
        kernel_regularizer="l2",
        activity_regularizer=keras.regularizers.L2(1e-3),
    )(inputs)
    x = first = rsnn.layers.LIF()(layers.BatchNormalization()(x))
    x = layers.Conv2D(4, 3, padding="same")(x)
    x = rsnn.layers.LIF(activity_regularizer=keras.regularizers.L1(1e-3))(
        layers.BatchNormalization()(x)
    )
    x = layers.AveragePooling2D(2)(layers.Add()([x, first]))
    x = layers.Dropout(dropout, seed=3)(layers.Flatten()(x))
    x = rsnn.layers.LIF(learn_threshold=True)(
        layers.Dense(5)(layers.GaussianNoise(0.1, seed=4)(x))
    )
    return keras.Model(inputs, layers.Dense(3, name="logits")(x))


def pair(make=network, timesteps=3, gradient="rate", jit_compile="auto", **kwargs):
    """Two equal models: one runs in eager mode, the other is recorded."""
    models = []
    for jit in (False, jit_compile):
        policy = keras.config.dtype_policy()
        keras.utils.clear_session(free_memory=False)
        keras.config.set_dtype_policy(policy)
        keras.utils.set_random_seed(0)
        models.append(
            compiled(spiking(make(), timesteps, gradient, **kwargs), jit_compile=jit)
        )
    return models


def train(models, x, y, steps=4):
    """The losses of each model in some steps."""
    return [[model.train_on_batch(x, y) for _ in range(steps)] for model in models]


def assert_equal_state(one, other, rtol=1e-9, atol=1e-9):
    assert_close(one.variables, other.variables, rtol=rtol, atol=atol)


def neuron(model, index=0):
    return [
        layer for layer in model.network.layers if isinstance(layer, rsnn.layers.Neuron)
    ][index]


def normalization(model):
    return next(
        layer
        for layer in model.network.layers
        if isinstance(layer, layers.BatchNormalization)
    )
