"""Tests the private Keras API used in `keras_internals`, and for graphs in
`private_keras`; a failure shows what broke."""

import contextlib
import inspect
import json
import pathlib
import re
import subprocess
import sys
import threading
import types

import keras
import numpy as np
import pytest
from helpers import (
    chain,
    compiled,
    data,
    double_precision,
    mlp,
    needs_keras,
    only_on,
    spiking,
    to_numpy,
)
from keras import layers, ops
from keras.src.backend.common.variables import AutocastScope
from keras.src.saving import serialization_lib
from numpy.testing import assert_allclose, assert_array_equal

from keras_ratesnn import SpikingModel
from keras_ratesnn._core import keras_internals
from keras_ratesnn._core.backend import engine
from keras_ratesnn._core.keras_internals import versions
from keras_ratesnn._core.keras_internals.replacements import Replacements
from keras_ratesnn._core.keras_internals.versions import NEWEST_TESTED
from keras_ratesnn._model import export_formats
from keras_ratesnn.layers import LIF

X, _ = data()


@pytest.mark.parametrize(
    ("package", "version", "is_newer"),
    [
        ("keras", "3.9.2", False),
        ("keras", "3.15.1", False),
        ("keras", "3.16.0.dev2026102704", True),
        ("keras", "4.0.0", True),
        ("tensorflow", "2.22.0rc0", True),
        ("jax", "0.12.0.1", False),
        ("torch", "2.15.0+cpu", False),
        ("torch", "2.16.0", True),
    ],
)
def test_only_what_is_newer_than_the_newest_tested_is_warned_of(
    package, version, is_newer, recwarn
):
    keras_internals.warn_if_untested(package, version)
    assert len(recwarn) == is_newer
    major, minor = NEWEST_TESTED[package]
    for warning in recwarn:
        message = str(warning.message)
        assert f"{version} is newer" in message
        assert f'pip install "{package}<{major}.{minor + 1}"' in message


@only_on("jax", "the export is its own")
@pytest.mark.parametrize(
    ("jax", "tensorflow", "is_read"),
    [
        ("0.10.2", "2.21.0", True),
        ("0.12.0.1", "2.21.0", False),
        ("0.12.1", "2.22.0", True),
    ],
)
def test_a_saved_model_that_tensorflow_could_not_read_is_an_error_with_both_versions(
    jax, tensorflow, is_read, monkeypatch, tmp_path
):
    pytest.importorskip("tensorflow", reason="only TensorFlow has SavedModels")
    installed = {"jax": jax, "tensorflow": tensorflow}
    monkeypatch.setattr(versions.importlib.metadata, "version", installed.get)
    model = spiking(mlp())
    expected = (
        contextlib.nullcontext()
        if is_read
        else pytest.raises(ValueError, match=rf"TensorFlow {tensorflow} .*JAX {jax} ")
    )
    with expected:
        export_formats.check(model.network, tmp_path / "model", "tf_saved_model")


@pytest.mark.backends(1)
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


def test_losses_of_layers_in_a_tried_model_end_with_it():
    network = chain(layers.Dropout(0.5), layers.Dense(3))
    network.layers[-1].activity_regularizer = keras.regularizers.L2(0.1)
    values = [(variable, variable.value) for variable in network.trainable_variables]
    with keras_internals.Tried(network, values, lambda value, before: value):
        network(X)
        assert len(network.losses) == 1
    assert network.losses == []
    assert all(not layer._loss_ids for layer in network.layers)


def test_variables_made_without_values_get_those_of_arrays_or_initial_ones():
    with keras_internals.without_values() as made:
        layer = layers.Dense(2, dtype="mixed_float16", bias_initializer="ones")
        layer.build((1, 3))
    assert made == [layer.kernel, layer.bias]
    assert layer.kernel.shape == (3, 2)
    with keras.StatelessScope():
        keras.Variable(ops.ones, shape=(2,), dtype="float32")
    # The end of a scope gives values to what was made in it alone.
    assert layer.kernel._value is layer.bias._value is None
    array = np.arange(6.0).reshape(3, 2)
    keras_internals.give_values(layer, made, [(layer.kernel, array)])
    array[:] = 0.0
    outputs = to_numpy(layer(np.ones((1, 3))))
    assert_array_equal(outputs, [[7.0, 10.0]])
    assert {variable.dtype for variable in layer.variables} == {"float32"}
    # Keras' own `named_parameters` would collect them.
    assert len(getattr(layer, "_torch_params", range(2))) == 2


def assert_filled(tensors, number):
    for tensor in tensors:
        assert keras.backend.standardize_dtype(tensor.dtype) == "float32"
        array = to_numpy(tensor)
        assert_array_equal(array, np.full(array.shape, number))


@pytest.mark.backends(1)
def test_private_modules_of_keras_are_imported_in_two_places_alone():
    """The file of `graphs` has what only PyTorch's accelerator needs."""
    library = pathlib.Path(keras_internals.__file__).parents[2]
    imports = re.compile(r"^ *(?:from|import) (?:keras\.src|\S+\.imported\b)", re.M)
    files = [
        path.relative_to(library).as_posix()
        for path in library.rglob("*.py")
        if imports.search(path.read_text())
    ]
    inside = [path for path in files if path.startswith("_core/keras_internals/")]
    assert len(inside) > 5
    assert set(files) - set(inside) == {"_core/backend/torch/graphs/private_keras.py"}


def test_values_are_read_as_keras_does_in_and_out_of_scopes():
    layer = layers.Dense(2, dtype="mixed_float16")
    layer.build((1, 3))
    variables = layer.variables
    for variable in variables:
        variable.assign(ops.full(variable.shape, 2.0))
    assert_filled(keras_internals.values_of(variables), 2.0)
    threes = [ops.full(variable.shape, 3.0) for variable in variables]
    with keras.StatelessScope(list(zip(variables, threes, strict=True))):
        values = keras_internals.values_of(variables)
    assert list(map(id, values)) == list(map(id, threes))


@only_on("torch", "only graphs assign all at once")
def test_values_of_graphs_are_assigned_as_keras_does_in_and_out_of_scopes():
    from keras_ratesnn._core.backend import torch

    if type(engine) is torch.Backend:
        pytest.skip("this PyTorch lacks what graphs read of it")
    from keras_ratesnn._core.backend.torch.graphs import private_keras

    layer = layers.Dense(2, dtype="mixed_float16")
    layer.build((1, 3))
    variables = layer.variables

    def assign_tensors(tensors, values):
        for tensor, variable, value in zip(tensors, variables, values, strict=True):
            assert tensor is variable.value
            variable.assign(value)

    twos = [ops.full(variable.shape, 2.0) for variable in variables]
    private_keras.assign(variables, twos, assign_tensors)
    assert_filled(keras_internals.values_of(variables), 2.0)
    with keras.StatelessScope(list(zip(variables, twos, strict=True))) as scope:
        threes = [value + 1.0 for value in twos]
        private_keras.assign(variables, threes, None)
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


LISTS = "variables", "trainable_variables", "non_trainable_variables"


def test_the_layers_and_variables_of_a_model_are_those_of_the_present():
    inner = keras.Sequential([keras.Input((6,)), layers.Dense(4)])
    elsewhere, dense = Elsewhere(), layers.Dense(3)
    inputs = keras.Input((6,))
    x = layers.Dropout(0.5)(LIF()(elsewhere(inner(inputs))))
    model = spiking(keras.Model(inputs, dense(x)))
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
    # What is known is not what was given away.
    number = len(model.weights)
    model.weights.clear()
    assert len(model.weights) == number
    model.trainable = False
    assert model.trainable_variables == []


@only_on("torch", "on other backends Python traces a step once")
def test_a_layer_that_is_built_in_a_step_is_seen_in_it():
    class WithHead(SpikingModel):
        def train_step(self, *state_and_data):
            before = len(self.variables)
            self.head.build((None, 6))
            added.append(len(self.variables) - before)
            return super().train_step(*state_and_data)

    added = []
    model = WithHead(mlp(), timesteps=2)
    model.head = layers.Dense(2, trainable=False)
    compiled(model).train_on_batch(*data())
    assert added[0] == 2


@pytest.mark.parametrize("is_measured", [False, True])
def test_the_metrics_and_losses_of_a_model_are_those_of_the_present(is_measured):
    dense = layers.Dense(3, kernel_regularizer="l2")
    if is_measured:
        dense.mean = keras.metrics.Mean()
    model = compiled(spiking(chain(LIF(), dense)))
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
        expected = to_numpy(keras.Layer.losses.fget(model))
        assert_array_equal(to_numpy(model.losses), expected)
    assert not dense._losses


@only_on("torch", "elsewhere Keras walks through layers only where it traces")
def test_keras_does_not_walk_through_the_layers_in_each_step(monkeypatch):
    model = compiled(spiking())
    model.train_on_batch(*data())
    walked, plain = [], keras.Layer._flatten_layers

    def walking(layer, *args, **kwargs):
        walked.append(layer)
        return plain(layer, *args, **kwargs)

    monkeypatch.setattr(keras.Layer, "_flatten_layers", walking)
    monkeypatch.setattr(layers.Dense, "_clear_losses", walked.append)
    model.train_on_batch(*data())
    dense = [layer for layer in walked if isinstance(layer, layers.Dense)]
    assert dense == []
    assert not any(layer is model for layer in walked)


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
        ops.convert_to_tensor([0, 1]), ops.full((2, 3), 1 / 3), ignore_class=1
    )
    assert to_numpy(keras_internals.mask_of(losses)).tolist() == [True, False]
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
    assert_allclose(to_numpy(losses), [np.log(2.0)] * 2, rtol=1e-5)


def test_a_generator_that_keras_makes_during_a_call_aside_draws_as_in_a_call():
    """A scope around the call must not end in an error, nor lose that it has drawn."""

    class Draws(layers.Layer):
        def call(self, inputs):
            noise = keras.random.uniform((3,)) + 10.0 * keras.random.uniform((3,))
            return inputs + noise

    layer, inputs = Draws(), ops.zeros((1, 3))

    def drawn(call):
        keras.utils.set_random_seed(0)
        return to_numpy([call(), call()])

    assert_array_equal(
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
        assert hasattr(keras.Model, "_initialize_ddp")
        model = Mixed()
        model._initialize_ddp()
        assert model.ddp_model is None


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("read_in", ["bfloat16", None])
def test_values_in_a_scope_keep_their_dtype_whatever_variables_are_read_in(
    dtype, read_in
):
    with double_precision() if dtype == "float64" else contextlib.nullcontext():
        variable = keras.Variable(np.full(2, 1.5, dtype))
        tensor = ops.convert_to_tensor(np.full(2, 2.5, dtype))
        # A variable as a value is read before the scope.
        for value, number in ((tensor, 2.5), (variable, 1.5)):
            values = keras_internals.Values([(variable, value)])
            with AutocastScope(read_in), values as scope:
                found, read = scope.get_current_value(variable), variable.value
                assert found is value or value is variable
                dtypes = [
                    keras.backend.standardize_dtype(one.dtype) for one in (found, read)
                ]
                assert dtypes == [dtype, read_in or dtype]
                array = to_numpy(ops.cast(read, dtype))
                assert_array_equal(array, [number] * 2)


@only_on("torch", "other backends flatten structures in other ways")
def test_trees_that_free_tensors_are_those_of_keras():
    import collections

    from keras.src.tree import torchtree_impl

    leaf = ops.ones(2)
    structures = [
        [],
        (leaf,),
        [{"b": 1, "a": [2, leaf]}, None],
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


@only_on("torch", "only PyTorch waits for numbers")
# Before, Keras has no integers beyond int32, and copies some numbers.
@needs_keras("3.14")
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
    assert_allclose(weights, expected_weights, rtol=1e-6)
    # Complex numbers, which no layer has, and arrays are copied; numbers are written by
    # the device.
    assert all(tensor.ndim or tensor.is_complex() for tensor in moved)
    assert len(read) == 1


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


@only_on("torch", "only PyTorch waits for batches")
def test_the_labels_of_a_batch_are_moved_to_a_gpu_once(copied):
    import torch

    moved, model = copied(), spiking()
    model.compile("sgd", "mse", metrics=["mae", "mse"])
    x, y = torch.ones(4, 6, dtype=torch.float64), np.ones((4, 3), "int64")
    model.train_on_batch(x, y)
    moved.clear()
    model.train_step((x, y))
    dtypes = [tensor.dtype for tensor in moved]
    assert dtypes.count(torch.float64) == dtypes.count(torch.int64) == 1
