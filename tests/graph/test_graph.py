"""Running the plan of a network is Keras' own call of it."""

import weakref

import helpers
import keras
import pytest
from helpers import assert_close, to_numpy
from keras import layers, ops

from keras_ratesnn import _graph
from keras_ratesnn.layers import LIF

X, _ = helpers.data()


class Box:
    """A signal: a tensor in an object that is not a pytree."""

    def __init__(self, tensor):
        self.tensor = tensor


class PlainRule:
    """Applies every operation to the contents of the boxes."""

    def __init__(self):
        self.seen = []

    def __call__(self, call):
        self.seen.append(call)
        arguments = call.args, call.kwargs
        args, kwargs = keras.tree.map_structure(
            lambda leaf: leaf.tensor if isinstance(leaf, Box) else leaf, arguments
        )
        return keras.tree.map_structure(Box, call.operation(*args, **kwargs))


def run(network, inputs, training=False, rule=None):
    boxes = [Box(ops.convert_to_tensor(tensor)) for tensor in inputs]
    outputs = _graph.whole_of(_graph.as_graph(network)).run(
        boxes, rule or PlainRule(), training
    )
    return keras.tree.map_structure(lambda box: to_numpy(box.tensor), outputs)


class Doubled(layers.Layer):
    """Twice its input, in training only."""

    def call(self, inputs, training=None):
        return inputs * 2.0 if training else inputs


class Split(layers.Layer):
    """A layer with two outputs and two inputs, one of them by keyword."""

    def call(self, inputs, scale=None):
        return {"up": inputs * scale, "down": inputs - scale}


def chain():
    return keras.Sequential(
        [keras.Input((6,)), layers.Dense(5, "relu"), LIF(), layers.Dense(3)]
    )


def nested():
    inner = keras.Sequential([keras.Input((6,)), layers.Dense(6), Doubled(), LIF()])
    inputs = keras.Input((6,))
    return keras.Model(
        inputs,
        layers.Dense(3)(
            keras.Sequential([keras.Input((6,)), inner, layers.Dense(4)])(inputs)
        ),
    )


def shared():
    inner, dense = chain(), layers.Dense(6)
    inputs = keras.Input((6,))
    return keras.Model(inputs, [inner(inputs), inner(dense(dense(inputs)))])


def many_outputs():
    inputs = keras.Input((6,))
    parts = Split()(inputs, scale=layers.Dense(6)(inputs))
    return keras.Model(
        inputs,
        {"sum": parts["up"] + parts["down"], "parts": [parts["down"], parts["up"]]},
    )


def single_output_in_a_list():
    inputs = keras.Input((6,))
    return keras.Model([inputs], [layers.Dense(3)(inputs)])


def input_as_output():
    inputs = keras.Input((6,))
    return keras.Model(inputs, [inputs, layers.Dense(3)(inputs)])


def keras_ops():
    inputs = keras.Input((6,))
    x = ops.concatenate(
        [ops.abs(inputs)[:, :2], ops.max(inputs, axis=1, keepdims=True), inputs * 2.0],
        axis=-1,
    )
    return keras.Model(inputs, ops.split(x, [3], axis=1))


def attention():
    inputs = keras.Input((6,))
    x = layers.Reshape((3, 2))(inputs)
    return keras.Model(
        inputs, layers.MultiHeadAttention(2, 2)(x, value=x, use_causal_mask=True)
    )


def several_inputs_inside(call):
    """A nested model with several inputs that are not in the order of their names."""

    def network():
        z, a = keras.Input((6,), name="z"), keras.Input((6,), name="a")
        inner = keras.Model(
            {"z": z, "a": a} if call == "dict to dict" else [z, a],
            layers.Subtract()([z, a]),
        )
        inputs = keras.Input((6,))
        twice = inputs * 2.0
        return keras.Model(
            inputs,
            inner(
                [inputs, twice] if call == "list to list" else {"a": twice, "z": inputs}
            ),
        )

    return network


def training_in_the_graph():
    inputs = keras.Input((6,))
    return keras.Model(inputs, Doubled()(inputs, training=True))


def training_of_a_nested_model_in_the_graph():
    inputs = keras.Input((6,))
    return keras.Model(
        inputs,
        training_in_the_graph()(
            keras.Model(inputs, Doubled()(inputs))(inputs, training=True),
            training=False,
        ),
    )


def subclass_with_a_graph():
    class Network(keras.Model):
        def __init__(self):
            inputs = keras.Input((6,))
            super().__init__(inputs, layers.Dense(3)(LIF()(inputs)))

    return Network()


NETWORKS = {
    "chain": chain,
    "nested": nested,
    "shared": shared,
    "many outputs": many_outputs,
    "one output in a list": single_output_in_a_list,
    "input as output": input_as_output,
    "keras.ops": keras_ops,
    "attention": attention,
    "several inputs, list to list": several_inputs_inside("list to list"),
    "several inputs, dict to dict": several_inputs_inside("dict to dict"),
    "several inputs, dict to list": several_inputs_inside("dict to list"),
    "training in the graph": training_in_the_graph,
    "training of a nested model in the graph": training_of_a_nested_model_in_the_graph,
    "subclass with a graph": subclass_with_a_graph,
}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS.keys())
def test_a_run_that_applies_every_operation_is_the_call(make, training):
    network = make()
    wanted = to_numpy(network(ops.convert_to_tensor(X), training=training))
    outputs = run(network, [X], training)
    keras.tree.assert_same_structure(outputs, wanted)
    assert_close(
        keras.tree.flatten(outputs), keras.tree.flatten(wanted), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("gradient", ["rate", "bptt"])
@pytest.mark.parametrize("step_mode", ["multi", "single"])
def test_training_in_the_graph_decides_on_statistics_as_in_keras(gradient, step_mode):
    """It overrides the model's own `training` since Keras 3.16."""
    inputs = keras.Input((6,))
    x = layers.BatchNormalization(name="statistics")(inputs, training=False)
    network = keras.Model(inputs, layers.Dense(3)(LIF()(x)))
    mean = network.get_layer("statistics").moving_mean
    x, y = helpers.data()
    network(ops.convert_to_tensor(x), training=True)
    keras_normalizes = bool(to_numpy(mean.value).any())
    mean.assign(ops.zeros(6))
    helpers.compiled(
        helpers.spiking(network, gradient=gradient, step_mode=step_mode)
    ).fit(x, y, verbose=0)
    assert to_numpy(mean.value).any() == keras_normalizes


def test_a_run_sees_every_operation_of_nested_models_once_for_each_use():
    rule = PlainRule()
    run(shared(), [X], rule=rule)
    names = [call.operation.name for call in rule.seen]
    names = [name.rsplit("_", 1)[0] if name[-1].isdigit() else name for name in names]
    assert sorted(names) == ["dense"] * 6 + ["lif"] * 2


def test_a_place_is_of_one_call_and_the_same_in_every_run():
    network, first, second = shared(), PlainRule(), PlainRule()
    run(network, [X], rule=first)
    run(network, [X], rule=second)
    places = [call.key for call in first.seen]
    assert len(set(places)) == len(places) == 8
    assert places == [call.key for call in second.seen]


def test_a_functional_subclass_with_its_own_call_is_not_a_graph():
    class Network(type(helpers.mlp())):
        def call(self, inputs, training=None):
            return super().call(inputs, training=training) * 2.0

    inputs = keras.Input((6,))
    network = Network(inputs, LIF()(inputs))
    with pytest.raises(TypeError, match="`network` must be a Functional or Sequential"):
        helpers.spiking(network)
    outer = keras.Model(inputs, LIF()(network(inputs)))
    with pytest.raises(ValueError, match="must not hide neurons"):
        helpers.spiking(outer)


def test_a_run_drops_signals_after_their_last_use():
    """On a deep chain with one skip connection; what eager PyTorch holds beyond that is
    memory of all time steps."""
    inputs = keras.Input((6,))
    x = skipped = layers.Dense(6)(inputs)
    for _ in range(6):
        x = layers.Dense(6)(x)
    network = keras.Model(inputs, layers.Add()([x, skipped]))
    alive, most = weakref.WeakSet(), []

    def rule(call):
        most.append(len(alive))
        output = Box(None)
        alive.add(output)
        return output

    _graph.whole_of(network).run([Box(None)], rule, training=False)
    # The skip connection, the input of a call, and what the loop last handled.
    assert max(most) <= 3
