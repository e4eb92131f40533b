"""A network run by its plan is Keras' own call of it."""

import weakref

import keras
import pytest
from helpers import (
    assert_close,
    data,
    loss_and_gradients,
    mlp,
    only_on,
    spiking,
    to_numpy,
    two_methods,
)
from keras import layers, ops

import keras_ratesnn as rsnn
from keras_ratesnn.layers import LIF

X, _ = data()


class Doubled(layers.Layer):
    """Twice its input, in training only."""

    def call(self, inputs, training=None):
        return inputs * 2.0 if training else inputs


class Split(layers.Layer):
    """A layer with two outputs and two inputs, one of them by keyword."""

    def call(self, inputs, scale=None):
        return {"up": inputs * scale, "down": inputs - scale}


def nested():
    inner = keras.Sequential([keras.Input((6,)), layers.Dense(6), Doubled(), LIF()])
    outer = keras.Sequential([keras.Input((6,)), inner, layers.Dense(4)])
    inputs = keras.Input((6,))
    return keras.Model([inputs], [layers.Dense(3)(outer(inputs))])


def shared():
    parts = layers.Dense(5, "relu"), LIF(), layers.Dense(3)
    inner, dense = keras.Sequential([keras.Input((6,)), *parts]), layers.Dense(6)
    inputs = keras.Input((6,))
    return keras.Model(inputs, [inner(inputs), inner(dense(dense(inputs)))])


def many_outputs():
    inputs = keras.Input((6,))
    parts = Split()(LIF()(inputs), scale=layers.Dense(6)(inputs))
    up, down = parts["up"], parts["down"]
    return keras.Model(inputs, {"sum": up + down, "parts": [down, up, inputs]})


def keras_ops():
    inputs = keras.Input((6,))
    largest = ops.max(inputs, axis=1, keepdims=True)
    x = layers.Reshape((3, 2))(LIF()(inputs) + inputs)
    x = layers.MultiHeadAttention(2, 2)(x, value=x, use_causal_mask=True)
    x = ops.concatenate([ops.abs(inputs)[:, :2], largest, layers.Flatten()(x)], axis=-1)
    return keras.Model(inputs, ops.split(x, [3], axis=1))


def several_inputs_inside():
    """A nested model with several inputs that are not in the order of their names."""
    z, a = keras.Input((6,), name="z"), keras.Input((6,), name="a")
    inner = keras.Model([z, a], layers.Subtract()([z, a]))
    inputs = keras.Input((6,))
    return keras.Model(inputs, inner({"a": LIF()(inputs) * 2.0, "z": inputs}))


def subclass_with_a_graph():
    class Network(keras.Model):
        def __init__(self):
            inputs = keras.Input((6,))
            super().__init__(inputs, layers.Dense(3)(LIF()(inputs)))

    return Network()


NETWORKS = {
    "nested": nested,
    "shared": shared,
    "many outputs": many_outputs,
    "keras.ops": keras_ops,
    "several inputs inside": several_inputs_inside,
    "subclass with a graph": subclass_with_a_graph,
}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS.keys())
def test_one_time_step_is_the_call_of_keras(make, training):
    network = make()
    wanted = to_numpy(network(ops.convert_to_tensor(X), training=training))
    found = to_numpy(rsnn.SpikingModel(network, 1, "bptt")(X, training=training))
    keras.tree.assert_same_structure(found, wanted)
    pairs = keras.tree.flatten(found), keras.tree.flatten(wanted)
    assert_close(*pairs, rtol=1e-5, atol=1e-6)


@two_methods
def test_training_in_the_graph_decides_on_statistics_as_in_keras(gradient, step_mode):
    """It overrides the model's own `training` since Keras 3.16."""
    inputs, layer = keras.Input((6,)), layers.BatchNormalization()
    x = LIF()(layer(inputs, training=False))
    network = keras.Model(inputs, layers.Dense(3)(x))
    x, y = data()
    network(ops.convert_to_tensor(x), training=True)
    keras_normalizes = to_numpy(layer.moving_mean).any()
    layer.moving_mean.assign(ops.zeros(6))
    model = spiking(network, 3, gradient, step_mode=step_mode)
    loss_and_gradients(model, x, y)
    assert to_numpy(layer.moving_mean).any() == keras_normalizes


def test_a_functional_subclass_with_its_own_call_is_not_a_graph():
    class Network(type(mlp())):
        def call(self, inputs, training=None):
            return super().call(inputs, training=training) * 2.0

    inputs = keras.Input((6,))
    network = Network(inputs, LIF()(inputs))
    outer = keras.Model(inputs, LIF()(network(inputs)))
    message = "`network` must be a Functional or Sequential"
    with pytest.raises(TypeError, match=message):
        spiking(network)
    with pytest.raises(ValueError, match="must not hide neurons"):
        spiking(outer)


class Watched(layers.Layer):
    """Notes how many of the outputs of all such layers are alive."""

    def __init__(self, outputs, most, **kwargs):
        super().__init__(**kwargs)
        self.note = outputs.append
        self.count = lambda: most.append(sum(one() is not None for one in outputs))

    def call(self, inputs):
        outputs = inputs + 1.0
        if ops.is_tensor(outputs):
            self.count()
            self.note(weakref.ref(outputs))
        return outputs


@only_on("torch", "elsewhere a step is one program")
def test_a_run_drops_signals_after_their_last_use():
    """On a deep chain with one skip connection; what eager PyTorch holds beyond that is
    memory of all time steps."""
    import torch

    outputs, most = [], []
    inputs = keras.Input((6,))
    x = skipped = Watched(outputs, most)(LIF()(inputs))
    for _ in range(6):
        x = Watched(outputs, most)(x)
    model = rsnn.SpikingModel(keras.Model(inputs, layers.Add()([x, skipped])), 1)
    outputs.clear()
    most.clear()
    with torch.no_grad():
        model(X)
    assert len(most) == 7
    # The skip connection, the input of a call, and what the loop last handled.
    assert max(most) <= 3
