"""The walk through a network's graph is Keras' own call of the network; and what it uses of Keras' private API is there."""

import inspect

import helpers
import keras
import numpy as np
import pytest
from helpers import to_numpy
from keras import layers, ops

import keras_ratesnn as rsnn
from keras_ratesnn import graph
from keras_ratesnn.layers import LIF

X, _ = helpers.data()


# What the library uses of Keras that Keras does not promise. A test that fails names what has changed.
def functional():
    inputs = keras.Input((6,), name="inputs")
    return keras.Model(inputs, layers.Dense(3)(layers.Dropout(0.5)(inputs)))


def assert_has(owner, attribute):
    assert hasattr(owner, attribute), f"Keras {keras.__version__} has no {type(owner).__name__}.{attribute} any more"


def test_keras_has_run_through_graph_with_operation_fn():
    network = functional()
    assert_has(network, "_run_through_graph")
    parameters = list(inspect.signature(network._run_through_graph).parameters)
    assert parameters[:2] == ["inputs", "operation_fn"], f"Functional._run_through_graph takes {parameters}"


def test_keras_runs_through_graph_with_any_object():
    class Path:
        """No tensor and no pytree."""

        def __init__(self, names):
            self.names = names

    network = functional()
    path = network._run_through_graph(
        [Path(())], operation_fn=lambda operation: lambda x, **_: Path((*x.names, operation.name))
    )
    assert path.names == tuple(layer.name for layer in network.layers[1:]), "Functional._run_through_graph needs tensors now"


@pytest.mark.parametrize("structure", ["inputs", "outputs"])
def test_keras_keeps_the_structures_of_inputs_and_outputs(structure):
    inputs = {name: keras.Input((6,), name=name) for name in ("b", "a")}
    outputs = {"y": layers.Add()(list(inputs.values()))}
    network = keras.Model(inputs, outputs)
    assert_has(network, f"_{structure}_struct")
    kept = getattr(network, f"_{structure}_struct")
    assert set(kept) == set({"inputs": inputs, "outputs": outputs}[structure]), f"Functional._{structure}_struct has changed"


def test_keras_keeps_a_functional_model_in_a_built_sequential():
    unbuilt = keras.Sequential([layers.Dense(3)])
    assert_has(unbuilt, "_functional")
    assert unbuilt._functional is None, "Sequential._functional of an unbuilt model is not None any more"
    built = keras.Sequential([keras.Input((6,)), layers.Dense(3)])
    assert type(built._functional) is type(functional()), "Sequential._functional is no Functional model any more"


def test_keras_knows_that_layers_take_training_and_operations_do_not():
    for layer in (layers.Dropout(0.5), layers.Flatten(), LIF()):
        assert_has(layer, "_call_context_args")
        assert "training" in layer._call_context_args, "Layer._call_context_args has changed"
        layer(ops.ones((2, 3)), training=True)
    operation = (keras.Input((6,)) + 1.0)._keras_history.operation
    assert "training" not in getattr(operation, "_call_context_args", ()), "Operations take training now"


def test_keras_flattens_layers_with_those_inside():
    wrapper = layers.TimeDistributed(LIF())
    assert_has(wrapper, "_flatten_layers")
    kinds = [type(layer).__name__ for layer in wrapper._flatten_layers()]
    assert kinds == ["TimeDistributed", "LIF", "LIFCell"], "Layer._flatten_layers has changed"


def test_keras_calls_of_graphs_can_be_told_from_other_calls():
    class Subclassed(keras.Model):
        def call(self, inputs):
            return inputs

    graph_call = type(functional()).call
    assert Subclassed.call is not graph_call
    assert keras.Sequential.call is not keras.Model.call, "Sequential has no call of its own any more"


def test_keras_makes_forgotten_functions_anew():
    model = helpers.compiled(helpers.spiking())
    model.fit(*helpers.data(), verbose=0)
    model.evaluate(*helpers.data(), verbose=0)
    model.predict(X, verbose=0)
    for name in ("train_function", "test_function", "predict_function"):
        assert_has(model, name)
        assert getattr(model, name) is not None, f"Model.{name} is not where the compiled function is any more"
        setattr(model, name, None)
    model.predict(X, verbose=0)
    assert model.predict_function is not None, "Model.predict_function is not made anew any more"


# The walk.
class Box:
    """A signal: one tensor, in something that is no pytree."""

    def __init__(self, tensor):
        self.tensor = tensor


class PlainRule:
    """Every operation applied to what is in the boxes."""

    def __init__(self):
        self.seen = []

    def other(self, operation, args, kwargs):
        self.seen.append(operation.name)
        args, kwargs = keras.tree.map_structure(lambda leaf: leaf.tensor if isinstance(leaf, Box) else leaf, (args, kwargs))
        return keras.tree.map_structure(Box, operation(*args, **kwargs))

    neuron = batch_normalization = dropout = affine = other


def walk(network, inputs, training=False, rule=None):
    boxes = [Box(ops.convert_to_tensor(tensor)) for tensor in inputs]
    outputs = graph.walk(graph.as_graph(network), boxes, rule or PlainRule(), training)
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
    return keras.Sequential([keras.Input((6,)), layers.Dense(5, "relu"), LIF(), layers.Dense(3)])


def nested():
    inner = keras.Sequential([keras.Input((6,)), layers.Dense(6), Doubled(), LIF()])
    inputs = keras.Input((6,))
    return keras.Model(inputs, layers.Dense(3)(keras.Sequential([keras.Input((6,)), inner, layers.Dense(4)])(inputs)))


def shared():
    inner, dense = chain(), layers.Dense(6)
    inputs = keras.Input((6,))
    return keras.Model(inputs, [inner(inputs), inner(dense(dense(inputs)))])


def many_outputs():
    inputs = keras.Input((6,))
    parts = Split()(inputs, scale=layers.Dense(6)(inputs))
    return keras.Model(inputs, {"sum": parts["up"] + parts["down"], "parts": [parts["down"], parts["up"]]})


def single_output_in_a_list():
    inputs = keras.Input((6,))
    return keras.Model([inputs], [layers.Dense(3)(inputs)])


def input_as_output():
    inputs = keras.Input((6,))
    return keras.Model(inputs, [inputs, layers.Dense(3)(inputs)])


def keras_ops():
    inputs = keras.Input((6,))
    x = ops.concatenate([ops.abs(inputs)[:, :2], ops.max(inputs, axis=1, keepdims=True), inputs * 2.0], axis=-1)
    return keras.Model(inputs, ops.split(x, [3], axis=1))


def attention():
    inputs = keras.Input((6,))
    x = layers.Reshape((3, 2))(inputs)
    return keras.Model(inputs, layers.MultiHeadAttention(2, 2)(x, value=x, use_causal_mask=True))


def several_inputs_inside(call):
    """A nested model with several inputs, in an order other than that of their names."""

    def network():
        z, a = keras.Input((6,), name="z"), keras.Input((6,), name="a")
        inner = keras.Model({"z": z, "a": a} if call == "dict to dict" else [z, a], layers.Subtract()([z, a]))
        inputs = keras.Input((6,))
        twice = inputs * 2.0
        return keras.Model(inputs, inner([inputs, twice] if call == "list to list" else {"a": twice, "z": inputs}))

    return network


def training_in_the_graph():
    inputs = keras.Input((6,))
    return keras.Model(inputs, Doubled()(inputs, training=True))


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
    "subclass with a graph": subclass_with_a_graph,
}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS.keys())
def test_a_walk_that_applies_every_operation_is_the_call(make, training):
    network = make()
    wanted = to_numpy(network(ops.convert_to_tensor(X), training=training))
    outputs = walk(network, [X], training)
    keras.tree.assert_same_structure(outputs, wanted)
    for ours, theirs in zip(keras.tree.flatten(outputs), keras.tree.flatten(wanted), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_a_walk_sees_every_operation_of_nested_models_once_for_each_use():
    rule = PlainRule()
    walk(shared(), [X], rule=rule)
    kinds = [name.rsplit("_", 1)[0] if name[-1].isdigit() else name for name in rule.seen]
    assert sorted(kinds) == ["dense"] * 6 + ["lif"] * 2


def test_a_walk_gives_each_kind_of_operation_to_its_method():
    class Kinds(PlainRule):
        def __getattribute__(self, name):
            if name in ("neuron", "batch_normalization", "dropout", "affine", "other"):
                return lambda operation, args, kwargs: self.note(name, operation, args, kwargs)
            return super().__getattribute__(name)

        def note(self, kind, operation, args, kwargs):
            outputs = PlainRule.other(self, operation, args, kwargs)
            self.seen[-1] = (type(operation).__name__, kind)
            return outputs

    inputs = keras.Input((6,))
    x = layers.Dense(6)(inputs)
    x = LIF()(layers.BatchNormalization()(x))
    x = layers.Dense(6, activation="relu")(layers.Dropout(0.5)(x))
    rule = Kinds()
    walk(keras.Model(inputs, ops.tanh(x)), [X], rule=rule)
    assert rule.seen == [
        ("Dense", "affine"),
        ("BatchNormalization", "batch_normalization"),
        ("LIF", "neuron"),
        ("Dropout", "dropout"),
        ("Dense", "other"),
        ("Tanh", "other"),
    ]


def test_a_layer_declared_affine_is_affine_but_its_subclass_is_not():
    @rsnn.affine
    class Scale(layers.Layer):
        def call(self, inputs):
            return inputs * 2.0

    class Squared(Scale):
        def call(self, inputs):
            return inputs * inputs

    kind_of = rsnn.operations.kind_of
    assert (kind_of(Scale()), kind_of(Squared())) == ("affine", "other")


def test_a_functional_subclass_with_a_call_of_its_own_is_no_graph():
    class Network(type(functional())):
        def call(self, inputs, training=None):
            return super().call(inputs, training=training) * 2.0

    inputs = keras.Input((6,))
    network = Network(inputs, LIF()(inputs))
    with pytest.raises(TypeError, match="`network` must be a Functional or Sequential"):
        helpers.spiking(network)
    outer = keras.Model(inputs, LIF()(network(inputs)))
    with pytest.raises(ValueError, match="must not hide neurons"):
        helpers.spiking(outer)
