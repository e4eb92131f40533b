"""Tests the private Keras API used in `keras_internals`; a failure shows what broke."""

import contextlib
import inspect
import json
import re
import subprocess
import sys
import threading
import types
import warnings

import helpers
import keras
import numpy as np
import pytest
from keras import layers, ops
from keras.src.backend.common.variables import AutocastScope
from keras.src.saving import serialization_lib

from keras_ratesnn import SpikingModel
from keras_ratesnn._core import keras_internals
from keras_ratesnn._core.keras_internals.replacements import Replacements
from keras_ratesnn.layers import LIF

X, _ = helpers.data()


def functional():
    inputs = keras.Input((6,), name="inputs")
    return keras.Model(inputs, layers.Dense(3)(layers.Dropout(0.5)(inputs)))


def assert_has(owner, attribute):
    assert hasattr(owner, attribute), (
        f"Keras {keras.__version__} has no {type(owner).__name__}.{attribute} any more"
    )


@pytest.mark.parametrize(
    ("version", "is_newer"),
    [
        ("3.9.2", False),
        ("3.15.0", False),
        ("3.15.1", False),
        ("3.16.0", True),
        ("3.16.0.dev2026102704", True),
        ("4.0.0", True),
    ],
)
def test_only_a_keras_newer_than_the_newest_tested_is_warned_of(version, is_newer):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        keras_internals.warn_if_untested(version)
    assert len(caught) == is_newer
    for warning in caught:
        message = str(warning.message)
        assert re.search(r"is newer .* tested, 3\.15\. .*keras<3\.16", message)
        assert f"Keras {version} " in message


@pytest.mark.runs_once
def test_a_keras_without_a_private_part_is_named_at_import_which_changes_nothing():
    """In a process of its own, where the package is imported for the first time."""
    program = """
import sys
import keras, keras.src.losses.losses as losses

kept = losses.LossFunctionWrapper
del losses.LossFunctionWrapper
try:
    import keras_ratesnn
except ImportError as error:
    print(error, file=sys.stderr)
losses.LossFunctionWrapper = kept
import keras_ratesnn
keras.config.set_floatx("float64")
inputs = keras.Input((2,))
dense = keras.layers.Dense(1)
model = keras.Model(inputs, dense(inputs))
print(dense.dtype_policy.name, dense.name, inputs.name, model.name)
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout == "float64 dense keras_tensor functional\n"
    assert (
        f"Keras {keras.__version__} lacks what keras_ratesnn reads of it"
        in result.stderr
    )
    assert "LossFunctionWrapper" in result.stderr
    assert 'pip install "keras<3.16"' in result.stderr


def test_keras_passes_inputs_to_a_model_as_they_are_if_asked():
    class Seen(keras.Model):
        def call(self, inputs):
            return (
                ops.ones((1,))
                if isinstance(inputs, np.ndarray) and inputs.dtype == "float64"
                else ops.zeros((1,))
            )

    model = Seen(dtype="mixed_bfloat16")
    assert float(model(np.ones((1, 2)))[0]) == 0.0
    keras_internals.take_inputs_unchanged(model)
    assert float(model(np.ones((1, 2)))[0]) == 1.0


def test_losses_of_layers_in_a_tried_model_end_with_it():
    network = functional()
    network.layers[-1].activity_regularizer = keras.regularizers.L2(0.1)
    values = [(variable, variable.value) for variable in network.trainable_variables]
    with keras_internals.Tried(network, values, lambda value, before: value):
        network(X)
        assert len(network.losses) == 1
    assert network.losses == []
    assert all(not layer._loss_ids for layer in network.layers)


def test_keras_runs_through_graph_with_any_object():
    class Path:
        """Neither a tensor nor a pytree."""

        def __init__(self, names):
            self.names = names

    network = functional()
    assert_has(network, "_run_through_graph")
    path = network._run_through_graph(
        [Path(())],
        operation_fn=lambda operation: lambda x, **_: Path((*x.names, operation.name)),
    )
    assert path.names == tuple(layer.name for layer in network.layers[1:]), (
        "Functional._run_through_graph needs tensors now"
    )


def test_keras_keeps_the_structures_of_inputs_and_outputs():
    inputs = {name: keras.Input((6,), name=name) for name in ("b", "a")}
    network = keras.Model(inputs, {"y": layers.Add()(list(inputs.values()))})
    assert set(network._inputs_struct) == {"a", "b"}
    assert set(network._outputs_struct) == {"y"}


def test_keras_keeps_a_functional_model_in_a_built_sequential():
    unbuilt = keras.Sequential([layers.Dense(3)])
    assert unbuilt._functional is None
    built = keras.Sequential([keras.Input((6,)), layers.Dense(3)])
    assert type(built._functional) is type(functional())


def test_keras_knows_that_layers_take_training_and_operations_do_not():
    for layer in (layers.Dropout(0.5), layers.Flatten(), LIF()):
        assert "training" in layer._call_context_args
        layer(ops.ones((2, 3)), training=True)
    operation = (keras.Input((6,)) + 1.0)._keras_history.operation
    assert "training" not in getattr(operation, "_call_context_args", ())


def test_keras_flattens_layers_with_those_inside():
    wrapper = layers.TimeDistributed(LIF())
    kinds = [type(layer).__name__ for layer in wrapper._flatten_layers()]
    assert kinds == ["TimeDistributed", "LIF", "LIFCell"]


def test_keras_calls_of_graphs_can_be_distinguished_from_other_calls():
    class Subclassed(keras.Model):
        def call(self, inputs):
            return inputs

    graph_call = type(functional()).call
    assert Subclassed.call is not graph_call
    assert keras.Sequential.call is not keras.Model.call, (
        "Sequential has no call of its own any more"
    )


@pytest.mark.parametrize("purpose", ["train", "test", "predict"])
def test_keras_makes_its_functions_for_a_stand_in_without_changing_the_model(purpose):
    model = helpers.compiled(helpers.spiking())
    x, y = helpers.data()
    model.fit(x, y, verbose=0)
    model.evaluate(x, y, verbose=0)
    model.predict(x, verbose=0)
    name = f"{purpose}_function"
    before = getattr(model, name)
    assert before is not None, (
        f"Model.{name} is not where the compiled function is any more"
    )
    made = keras_internals.make_function(
        keras_internals.StandIn(model, keras_internals.state_shardings(model)), purpose
    )
    assert callable(made), f"Model.make_{name} does not set self.{name} any more"
    assert getattr(model, name) is before, (
        f"Model.make_{name} writes to another object than `self`"
    )


@pytest.mark.skipif(
    helpers.BACKEND != "tensorflow",
    reason="on other backends Keras makes these variables before it traces",
)
def test_the_variables_of_metrics_are_made_before_a_step_is_traced():
    model = helpers.compiled(helpers.spiking(), metrics=["accuracy"])
    assert_has(model, "_compile_metrics")
    batches = iter([helpers.data()])
    assert len(list(keras_internals.build_metrics(model, batches))) == 1
    assert model._compile_metrics.built


def test_a_model_knows_the_loss_and_the_metrics_that_it_was_compiled_with():
    model, metric = functional(), keras.metrics.MeanSquaredError()
    assert keras_internals.compiled_metrics(model) == []
    assert keras_internals.compiled_loss(model) == {}
    model.compile("sgd", metrics=[metric], weighted_metrics=["mae"])
    assert keras_internals.compiled_metrics(model) == [metric, "mae"]
    assert keras_internals.compiled_loss(model) == {}
    given = {"loss": "mse", "loss_weights": [0.5]}
    model.compile("sgd", **given)
    assert keras_internals.compiled_metrics(model) == []
    assert keras_internals.compiled_loss(model) == given
    outputs = model.compute_output_spec(keras.KerasTensor((10, 6)))
    keras_internals.build_loss(model, X, np.ones((10, 3)), outputs)
    assert model._compile_loss.built


def test_keras_reads_variables_in_their_own_dtype_where_autocast_is_off():
    dtypes = []

    class Reading(layers.Layer):
        def build(self, input_shape):
            self.weight = self.add_weight(shape=(), initializer="ones")

        def call(self, inputs):
            # Not ops.convert_to_tensor: on TensorFlow it reads a variable in its own
            # dtype everywhere.
            values = [self.weight.value]
            with keras_internals.without_autocast():
                values.append(self.weight.value)
            for value in values:
                dtypes.append(keras.backend.standardize_dtype(value.dtype))
            return inputs

    Reading(dtype="mixed_float16")(np.ones((1, 1), "float32"))
    assert dtypes[-2:] == ["float16", "float32"], (
        "keras.src.backend.common.variables.AutocastScope has changed"
    )


def test_variables_made_without_values_get_those_of_arrays_or_initial_ones():
    with keras_internals.without_values() as made:
        layer = layers.Dense(2, dtype="mixed_float16", bias_initializer="ones")
        layer.build((1, 3))
    assert made == [layer.kernel, layer.bias]
    assert layer.kernel.shape == (3, 2)
    with keras.StatelessScope():
        later = keras.Variable(ops.ones, shape=(2,), dtype="float32")
    # The end of a scope gives values to what was made in it alone.
    assert later._value is not None
    assert layer.kernel._value is layer.bias._value is None
    array = np.arange(6.0).reshape(3, 2)
    keras_internals.give_values(layer, made, [(layer.kernel, array)])
    array[:] = 0.0
    outputs = helpers.to_numpy(layer(np.ones((1, 3))))
    np.testing.assert_array_equal(outputs, [[7.0, 10.0]])
    assert {variable.dtype for variable in layer.variables} == {"float32"}
    # Keras' own `named_parameters` would collect them.
    assert len(getattr(layer, "_torch_params", range(2))) == 2


def assert_filled(tensors, number):
    for tensor in tensors:
        assert keras.backend.standardize_dtype(tensor.dtype) == "float32"
        array = helpers.to_numpy(tensor)
        np.testing.assert_array_equal(array, np.full(array.shape, number))


def test_values_are_read_and_assigned_as_keras_does_in_and_out_of_scopes():
    layer = layers.Dense(2, dtype="mixed_float16")
    layer.build((1, 3))
    variables = layer.variables

    def assign_tensors(tensors, values):
        for tensor, variable, value in zip(tensors, variables, values, strict=True):
            assert tensor is variable.value
            variable.assign(value)

    twos = [ops.full(variable.shape, 2.0) for variable in variables]
    keras_internals.assign(variables, twos, assign_tensors)
    assert_filled(keras_internals.values_of(variables), 2.0)
    with keras.StatelessScope(list(zip(variables, twos, strict=True))) as scope:
        values = keras_internals.values_of(variables)
        assert list(map(id, values)) == list(map(id, twos))
        threes = [value + 1.0 for value in twos]
        keras_internals.assign(variables, threes, None)
    assert_filled(map(scope.get_current_value, variables), 3.0)
    assert_filled([variable.value for variable in variables], 2.0)


class Elsewhere(layers.Layer):
    """A layer with a weight that Keras does not find by itself."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden = (lambda weights: lambda: weights)([])

    def call(self, inputs):
        return inputs

    @property
    def weights(self):
        return [*super().weights, *self.hidden()]


def assert_same_objects(results, expected):
    assert list(map(id, results)) == list(map(id, expected))


LISTS = (
    "variables",
    "weights",
    "trainable_variables",
    "trainable_weights",
    "non_trainable_variables",
)


def test_the_layers_and_variables_of_a_model_are_those_of_the_present():
    inner = keras.Sequential([keras.Input((6,)), layers.Dense(4)])
    elsewhere, dense = Elsewhere(), layers.Dense(3)
    inputs = keras.Input((6,))
    x = layers.Dropout(0.5)(LIF()(elsewhere(inner(inputs))))
    model = helpers.spiking(keras.Model(inputs, dense(x)))
    head = layers.Dense(2)
    changes = [
        (lambda: inner.add(layers.Dense(4)), 2),
        (lambda: inner.pop(), -2),
        (lambda: dense.enable_lora(2), 2),
        (lambda: setattr(model, "head", head), 0),
        (lambda: head.build((None, 3)), 2),
        (lambda: elsewhere.hidden().append(keras.Variable(1.0)), 0),
    ]
    for change, new_variables in changes:
        known = len(model.variables)
        change()
        assert len(model.variables) == known + new_variables
        for name in LISTS:
            expected = getattr(keras.Layer, name).fget(model)
            assert_same_objects(getattr(model, name), expected)
        for options in ({}, {"include_self": False}, {"recursive": False}):
            expected = keras.Layer._flatten_layers(model, **options)
            assert_same_objects(model._flatten_layers(**options), expected)
    dense.trainable = False
    assert not set(map(id, dense.weights)) & set(map(id, model.trainable_weights))
    model.trainable = False
    assert model.trainable_variables == []


@pytest.mark.skipif(
    helpers.BACKEND != "torch", reason="on other backends Python traces a step once"
)
@pytest.mark.parametrize("is_built", [True, False])
def test_a_model_is_looked_through_once_a_step_unless_a_layer_is_not_built(
    is_built, monkeypatch
):
    class WithHead(SpikingModel):
        def train_step(self, *state_and_data):
            before = len(self.variables)
            looked_at.clear()
            if not self.head.built:
                self.head.build((None, 6))
            results.append((len(self.variables) - before, len(looked_at)))
            return super().train_step(*state_and_data)

    looked_at, results = [], []
    model = WithHead(helpers.mlp(), timesteps=2)
    model.head = layers.Dense(2, trainable=False)
    if is_built:
        model.head.build((None, 6))
    collection = type(model._collection())
    is_current = collection.is_current

    def counting(self):
        looked_at.append(self)
        return is_current(self)

    monkeypatch.setattr(collection, "is_current", counting)
    helpers.compiled(model).train_on_batch(*helpers.data())
    added, counted = results[0]
    assert added == (0 if is_built else 2)
    assert (counted == 0) == is_built


def test_a_model_whose_layers_are_collected_twice_has_the_same_collection():
    model = helpers.spiking()
    number = len(model.weights)
    assert model._collection() is model._collection()
    model.weights.clear()
    assert len(model.weights) == number


@pytest.mark.parametrize("is_measured", [False, True])
def test_the_metrics_and_losses_of_a_model_are_those_of_the_present(is_measured):
    dense = layers.Dense(3, kernel_regularizer="l2")
    if is_measured:
        dense.mean = keras.metrics.Mean()
    network = keras.Sequential([keras.Input((6,)), LIF(), dense])
    model = helpers.compiled(helpers.spiking(network))
    for change in (
        lambda: None,
        lambda: dense.add_loss(keras.ops.ones(())),
        model._clear_losses,
    ):
        change()
        # They are known from now on.
        assert model.variables
        assert_same_objects(model.metrics, keras.Model.metrics.fget(model))
        measured = [metric for metric in model.metrics if metric.name == "mean"]
        assert len(measured) == is_measured
        expected = helpers.to_numpy(keras.Layer.losses.fget(model))
        np.testing.assert_array_equal(helpers.to_numpy(model.losses), expected)
    assert not dense._losses


@pytest.mark.skipif(
    helpers.BACKEND != "torch",
    reason="elsewhere Keras walks through layers only where it traces",
)
def test_keras_does_not_walk_through_the_layers_in_each_step(monkeypatch):
    model = helpers.compiled(helpers.spiking())
    model.train_on_batch(*helpers.data())
    walked, plain = [], keras.Layer._flatten_layers

    def walking(layer, *args, **kwargs):
        walked.append(layer)
        return plain(layer, *args, **kwargs)

    monkeypatch.setattr(keras.Layer, "_flatten_layers", walking)
    monkeypatch.setattr(layers.Dense, "_clear_losses", walked.append)
    model.train_on_batch(*helpers.data())
    dense = [layer for layer in walked if isinstance(layer, layers.Dense)]
    assert dense == []
    assert not any(layer is model for layer in walked)


@pytest.mark.skipif(
    helpers.BACKEND != "torch",
    reason="only on PyTorch Keras collects weights for another library",
)
def test_keras_collects_the_weights_of_a_model_again_only_where_they_have_changed():
    model = helpers.compiled(helpers.spiking())
    collected = []
    for step in range(4):
        if step == 2:
            model.network.layers[-1].enable_lora(2)
            helpers.compiled(model)
        model.train_on_batch(*helpers.data())
        collected.append(keras_internals.torch_parameters(model))
        assert len(list(collected[-1].named_parameters())) == len(model.variables), (
            "keras.src.backend.torch.layer.TorchLayer has changed"
        )
    assert collected[1] is collected[0]
    assert collected[2] is not collected[1]
    assert collected[3] is collected[2]


def test_keras_adds_losses_of_a_call_to_its_scope_and_activity_regularisation_last():
    class Counting(layers.Layer):
        """Has a loss, an inner layer that is regularised, a variable that it changes,
        and two outputs."""

        def build(self, input_shape):
            self.count = self.add_weight(shape=(), initializer="zeros", trainable=False)
            self.inner = layers.Activation("linear", activity_regularizer="l1")

        def call(self, inputs):
            self.count.assign(self.count + 1.0)
            self.add_loss(self.count.value)
            return self.inner(inputs), inputs

    layer, x = Counting(activity_regularizer="l2"), ops.convert_to_tensor(X)
    layer(x)
    assert len(layer.losses) == 4, "Layer.add_loss has changed"
    outputs, losses = keras_internals.call_aside(layer, (x,), {})
    assert len(outputs) == 2
    assert not layer.losses
    regularised = 0.01 * np.abs(X).sum() / len(X)
    np.testing.assert_allclose(helpers.to_numpy(losses), [2.0, regularised], rtol=1e-5)
    assert not layer._loss_ids, "Layer._loss_ids has changed"
    values = [(layer.count, ops.full((), 9.0))]
    with keras.StatelessScope(values, collect_losses=True) as scope:
        _, losses = keras_internals.call_aside(layer, (x,), {})
    count = float(scope.get_current_value(layer.count))
    assert float(losses[0]) == count == 10.0, "StatelessScope has changed"
    assert float(layer.count) == 2.0
    assert not scope.losses


def test_keras_stores_backend_classes_in_a_compile_config():
    """Only on PyTorch; `portable` removes them and keeps the rest."""
    model = helpers.compiled(helpers.spiking(), keras.optimizers.Adam(0.1))
    config = model.get_compile_config()
    assert config["optimizer"]["module"] == "keras.optimizers"
    assert isinstance(
        keras.saving.deserialize_keras_object(config["optimizer"]),
        keras.optimizers.Adam,
    )
    assert keras_internals.portable({"a": [1, ({"module": "mine"},)]}) == {
        "a": [1, ({"module": "mine"},)]
    }


@pytest.mark.filterwarnings("ignore:.*lambda:UserWarning")
def test_keras_deserializes_no_code_in_its_safe_mode_where_it_is_allowed_elsewhere():
    # As JSON has it: tuples are lists.
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(lambda x: x)))
    with serialization_lib.SafeModeScope(False):
        assert keras.saving.deserialize_keras_object(config)(3) == 3
        with (
            keras_internals.without_code(),
            pytest.raises(ValueError, match="unsafe_deserialization"),
        ):
            keras.saving.deserialize_keras_object(config, safe_mode=False)


def test_a_loss_that_leaves_out_labels_has_a_mask():
    losses = keras.losses.sparse_categorical_crossentropy(
        np.array([0, 1]), np.ones((2, 3), "float32") / 3, ignore_class=1
    )
    assert helpers.to_numpy(keras_internals.mask_of(losses)).tolist() == [True, False]
    tensor = ops.ones((2,))
    assert keras_internals.mask_of(tensor) is None
    keras_internals.put_mask(tensor, ops.ones((2,), "bool"))
    assert keras_internals.mask_of(tensor) is not None
    assert keras_internals.mask_of(keras_internals.take_mask_off(tensor)) is None


@pytest.mark.parametrize(
    "loss", [keras.losses.binary_crossentropy, keras.losses.BinaryCrossentropy()]
)
def test_the_losses_of_samples_are_also_found_for_a_function(loss):
    labels, outputs = ops.convert_to_tensor([0.0, 1.0]), ops.full((2, 1), 0.5)
    losses = keras_internals.loss_of_samples(loss)(labels, outputs)
    np.testing.assert_allclose(helpers.to_numpy(losses), [np.log(2.0)] * 2, rtol=1e-5)


def test_the_calls_of_a_graph_are_read_and_forget_training():
    inputs = keras.Input((6,))
    drop, dense = keras.layers.Dropout(0.5), keras.layers.Dense(3)
    network = keras.Model(inputs, dense(drop(inputs, training=True)))
    calls = keras_internals.calls_in(network)
    assert [operation for operation, *_ in calls] == [drop, dense]
    assert calls[0][1][0] is inputs
    assert calls[0][2] == {"training": True}
    assert calls[1][3][0] is network.outputs[0]
    keras_internals.forget_training(network)
    assert [kwargs for _, _, kwargs, _ in keras_internals.calls_in(network)] == [{}, {}]


@pytest.mark.parametrize("training", [True, False])
def test_layers_called_inside_another_one_take_over_training(training):
    seen = []

    class Asked(layers.Layer):
        def call(self, inputs, training=False):
            seen.append(training)
            return inputs

    outer, inner = layers.Identity(), Asked()
    with keras_internals.calling(outer, training):
        inner(ops.ones((1, 6)))
    inner(ops.ones((1, 6)))
    # Afterwards it has its own default again.
    assert seen == [training, False]


def test_a_generator_that_keras_makes_during_a_call_aside_draws_as_in_a_call():
    """A scope around the call must not end in an error, nor lose that it has drawn."""

    class Draws(layers.Layer):
        def call(self, inputs):
            noise = keras.random.uniform((3,)) + 10.0 * keras.random.uniform((3,))
            return inputs + noise

    layer, inputs = Draws(), ops.zeros((1, 3))

    def drawn(call):
        keras.utils.set_random_seed(0)
        return helpers.to_numpy([call(), call()])

    np.testing.assert_array_equal(
        drawn(lambda: layer(inputs)),
        drawn(lambda: keras_internals.call_aside(layer, (inputs,), {})[0]),
    )


def test_models_of_several_processes_leave_gradients_of_others_to_the_library():
    class Own(keras.Model):
        def get_metrics_result(self):
            return {"own": 1.0}

    class Mixed(keras.Model):
        _initialize_ddp = keras_internals.initialize_no_ddp

    here = keras_internals.metrics_here
    assert here(Own().get_metrics_result) == {"own": 1.0}
    assert here(Mixed().get_metrics_result) == {}
    here = inspect.getmodule(here)._METRICS_HERE
    assert here.__module__ == "keras.src.trainers.trainer"
    if here is not keras.Model.get_metrics_result:
        # Since Keras 3.16 both are in its trainer for PyTorch.
        assert_has(keras.Model, "_initialize_ddp")
        model = Mixed()
        model._initialize_ddp()
        assert model.ddp_model is None


def test_the_state_of_a_layer_without_that_of_its_sublayers_is_known():
    dense = keras.layers.Dense(3)
    dense.build((None, 6))
    assert len(keras_internals.own_state(dense)) == 2
    assert len(keras_internals.own_state(keras.layers.Dropout(0.5))) == 1
    assert keras_internals.own_state(keras.Sequential([keras.Input((6,)), dense])) == []


def test_a_graph_class_without_its_graph_is_a_plain_model():
    for base in (keras_internals.graph_class(keras.Model), keras.Sequential):
        model = keras_internals.without_graph(base)(name="plain")
        assert isinstance(model, base)
        assert model.layers == []
        assert type(model).call is keras.Model.call
        model.inner = keras.layers.Dense(3)
        assert model.layers == [model.inner]


def test_attributes_that_keras_gives_to_models_are_not_those_of_users():
    class Own(keras.Model):
        def decode(self, outputs):
            return outputs

    inputs = keras.Input((6,))
    model = Own(inputs, keras.layers.Dense(3)(inputs))
    model.compile("sgd", "mse", metrics=["mae"])
    model.fit(X, np.ones((10, 3)), validation_split=0.5, verbose=0)
    model.predict(X, verbose=0)
    model.mine, model.inner = 1, keras.layers.Dense(2)
    assert set(keras_internals.attributes_of(model)) == {"mine", "inner"}
    assert keras_internals.own_classes(Own) == (Own,)


@pytest.mark.on_each_backend
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("read_in", ["bfloat16", None])
def test_values_in_a_scope_keep_their_dtype_whatever_variables_are_read_in(
    dtype, read_in
):
    with helpers.double_precision() if dtype == "float64" else contextlib.nullcontext():
        variable = keras.Variable(np.full(2, 1.001, dtype))
        value = ops.convert_to_tensor(np.full(2, 1.002, dtype))
        with (
            AutocastScope(read_in),
            keras_internals.Values([(variable, value)]) as scope,
        ):
            assert scope.get_current_value(variable) is value
            assert keras.backend.standardize_dtype(variable.value.dtype) == (
                read_in or dtype
            )


@pytest.mark.skipif(
    helpers.BACKEND != "torch", reason="other backends flatten structures in other ways"
)
def test_trees_that_free_tensors_are_those_of_keras():
    import collections

    from keras.src.tree import torchtree_impl

    pair = collections.namedtuple("pair", ["left", "right"])
    leaf = ops.ones(2)
    structures = [
        leaf,
        None,
        [],
        (leaf,),
        [{"b": 1, "a": [2, leaf]}, None],
        pair(1, {"b": leaf, "a": ()}),
        {"b": [3], "a": 4},
    ]
    structures += [
        collections.OrderedDict(b=1, a=2),
        collections.defaultdict(list, b=[1], a=[leaf]),
    ]
    original = torchtree_impl._dict_to_ordered_dict
    with keras_internals.in_steps():
        patched = torchtree_impl._dict_to_ordered_dict
    if patched is original:
        pytest.skip("Keras 3.16 keeps no tensors by itself")
    for structure in structures:
        found, expected = patched(structure), original(structure)
        assert type(found) is type(expected)
        assert repr(found) == repr(expected)


def optimized(rate):
    weight = keras.Variable(np.ones(3, "float32"))
    optimizer = keras.optimizers.SGD(rate, momentum=0.9, nesterov=True)
    for _ in range(3):
        optimizer.apply([ops.ones(3)], [weight])
    return ops.convert_to_numpy(weight)


NUMBERS = [True, 3, 2**40, 0.1, 1j, [1, 2], (4, 5), np.ones(2, "uint32"), np.ones(2)]


def converted_logged_and_trained():
    tensors = [
        ops.convert_to_tensor(value, dtype=dtype)
        for value in [*NUMBERS, ops.ones(2)]
        for dtype in (None, "complex64")
    ]
    logs = {"b": ops.ones(()), "a": {"c": 1}, "d": ops.ones(2), "e": ops.zeros(())}
    logs = keras_internals.read_together(logs)
    logs = keras.src.utils.python_utils.pythonify_logs(logs)
    rates = 0.1, keras.optimizers.schedules.CosineDecay(0.1, 6)
    return tensors, logs, list(map(optimized, rates))


@pytest.fixture
def copied(monkeypatch):
    """A list of what would be copied to a GPU, as if there were one."""
    from keras_ratesnn._core.keras_internals import transfers

    tensors = []

    def copy(tensor, device):
        tensors.append(tensor)
        return tensor.clone()

    def pretend():
        monkeypatch.setattr(transfers, "is_on_gpu", lambda device: True)
        monkeypatch.setattr(transfers, "_copied", copy)
        for owner, name, value in transfers.transfers_that_overlap():
            monkeypatch.setattr(owner, name, value)
        return tensors

    return pretend


@pytest.mark.skipif(helpers.BACKEND != "torch", reason="only PyTorch waits for numbers")
def test_numbers_reach_a_gpu_and_logs_come_back_as_keras_would_send_them_in_one_copy(
    copied, monkeypatch
):
    import torch

    expected_tensors, expected_logs, expected_weights = converted_logged_and_trained()
    moved, read = copied(), []

    def counting(function):
        def counted(tensor):
            read.append(tensor)
            return function(tensor)

        return counted

    for name in ("tolist", "item"):
        counted = counting(getattr(torch.Tensor, name))
        monkeypatch.setattr(torch.Tensor, name, counted)
    tensors, logs, weights = converted_logged_and_trained()
    for tensor, expected in zip(tensors, expected_tensors, strict=True):
        assert tensor.dtype == expected.dtype
        assert torch.equal(tensor, expected)
    assert repr(logs) == repr(expected_logs)
    np.testing.assert_allclose(weights, expected_weights, rtol=1e-6)
    # Complex numbers, which no layer has, and arrays are copied; numbers are written by
    # the device.
    assert all(tensor.ndim or tensor.is_complex() for tensor in moved)
    assert len(read) == 1


@pytest.mark.skipif(helpers.BACKEND != "torch", reason="only PyTorch waits for batches")
def test_the_labels_of_a_batch_are_moved_to_a_gpu_once(copied):
    import torch

    moved, model = copied(), helpers.spiking()
    model.compile("sgd", "mse", metrics=["mae", "mse"])
    x, y = torch.ones(4, 6, dtype=torch.float64), np.ones((4, 3), "int64")
    model.train_on_batch(x, y)
    moved.clear()
    model.train_step((x, y))
    dtypes = [tensor.dtype for tensor in moved]
    assert dtypes.count(torch.float64) == dtypes.count(torch.int64) == 1


def test_keras_keeps_containers_that_are_attributes_in_types_that_are_known():
    layer = keras.layers.Layer()
    layer.dict, layer.list, layer.set = {"a": 1}, [1], {1}
    assert (
        type(layer.dict),
        type(layer.list),
        type(layer.set),
    ) == keras_internals.TRACKED_CONTAINERS


def test_keras_asks_for_the_features_of_a_teacher_and_of_a_student_as_is_known():
    asked, compared = {}, []

    class Asked(keras_internals.ExtractsFeatures, keras.distillation.Distiller):
        def teacher_features(self, extract, x):
            asked["teacher"] = extract()
            return asked["teacher"]

        def student_features(self, extract):
            asked["student"] = extract()
            return asked["student"]

        def compared_inputs(self, model, other):
            compared.append(model)
            return model.inputs

    losses = keras.distillation.LogitsDistillation()
    distiller = Asked(functional(), functional(), losses)
    assert compared == [distiller.teacher, distiller.student], (
        "Distiller compares inputs in another method now"
    )
    distiller.compile("sgd", "mse")
    y, outputs = np.zeros((10, 3), "float32"), ops.ones((10, 3))
    distiller.compute_loss(X, y, outputs, training=True)
    assert list(asked) == ["teacher", "student"], (
        "Distiller has other methods for features now"
    )
    assert [set(features) for features in asked.values()] == [{"final_output"}] * 2
    assert [features for _, features in distiller._feature_models()] == [None, None]


def test_keras_saves_the_layers_of_a_graph_under_a_name_that_is_known():
    assert isinstance(getattr(functional(), keras_internals.LAYERS_OF_A_GRAPH), list)


def test_keras_names_the_nodes_of_a_graph_like_their_functions():
    inputs = keras.Input((6,), name="mine")
    for name, outputs in {
        "Add": inputs + 1.0,
        "Reshape": ops.reshape(inputs, (3, -1)),
        "Relu": ops.relu(inputs),
    }.items():
        ((operation, *_),) = keras_internals.calls_in(keras.Model(inputs, outputs))
        assert keras_internals.name_of_node(type(operation)) == name
    assert keras_internals.name_of_node(layers.Dense) is None
    assert keras_internals.name_of_node(LIF) is None
    assert keras_internals.name_of_input(inputs) == "mine"


def test_a_variable_as_a_value_in_a_scope_is_read_before_it():
    variable = keras.Variable(np.full(2, 1.5, "float32"))
    values = keras_internals.Values([(variable, variable)])
    with AutocastScope("bfloat16"), values as scope:
        dtype = scope.get_current_value(variable).dtype
        assert keras.backend.standardize_dtype(dtype) == "float32"
        array = helpers.to_numpy(ops.cast(variable.value, "float32"))
        np.testing.assert_array_equal(array, [1.5, 1.5])


def test_keras_names_the_inputs_of_openvino_files_after_the_values_it_has_traced():
    """On PyTorch these are tensors without names, so the names of the signature are
    given instead."""
    from keras.src.export import openvino

    assert list(inspect.signature(openvino.set_names).parameters) == ["model", "inputs"]
    assert "set_names(ov_model, sample_inputs)" in inspect.getsource(
        openvino.export_openvino
    )


def test_functions_are_replaced_until_the_last_thread_has_left_also_after_an_error():
    owner = types.SimpleNamespace(function="that of Keras")
    replaced = Replacements(lambda: [(owner, "function", "ours")])
    entered, leave = threading.Event(), threading.Event()

    def enter():
        with replaced:
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=enter)
    with replaced:
        thread.start()
        assert entered.wait(10)
    with pytest.raises(KeyError), replaced:
        raise KeyError
    assert owner.function == "ours"
    leave.set()
    thread.join()
    assert owner.function == "that of Keras"
