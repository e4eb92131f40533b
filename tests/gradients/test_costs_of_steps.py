"""What a training step is made of, counted: no change makes one costlier unseen.

The forward pass, the loss and the gradient of a small network, with each method and in
both step modes. On PyTorch the operations that run, the calls in the recorded graphs,
and the most bytes that are alive at a time; on JAX the equations of the jaxpr, and the
temporary memory of the compiled program; on TensorFlow the nodes of the graph. In half
precision the casts among them. The numbers follow from the program, not from the
machine, and those that are allowed are in `costs_of_steps.json`. What changes them on
purpose commits them anew, of each backend:

    UPDATE_COSTS=1 KERAS_BACKEND=torch python -m pytest -n 0 \\
        tests/gradients/test_costs_of_steps.py
"""

import dataclasses
import importlib.metadata
import itertools
import json
import os
import pathlib
import unittest.mock

import keras
import numpy as np
import pytest
from helpers import BACKEND
from keras import layers, ops

import keras_ratesnn as rsnn
from keras_ratesnn.layers import LIF, ParametricLIF

pytestmark = pytest.mark.on_each_backend

TABLE = pathlib.Path(__file__).with_name("costs_of_steps.json")

PACKAGES = {
    "torch": ("keras", "torch"),
    "jax": ("keras", "jax", "jaxlib"),
    "tensorflow": ("keras", "tensorflow"),
}
"""The packages whose versions the counts depend on."""

GAIN = 0.9
"""A count that falls below this share of the committed one is to be committed, or the
gain could be lost unseen."""

COMPILER = 1.02 if BACKEND == "jax" else 1.0
"""By what factor memory may be larger: a compiler may know of a machine that it lays
out buffers otherwise."""

T = 3
"""More steps than XLA unrolls around a network."""


BATCH = 4
CLASSES = 3

METHODS = {
    "rate": rsnn.gradients.Rate(),
    "rate, 2 windows": rsnn.gradients.Rate(windows=2),
    "bptt": rsnn.gradients.BPTT(),
    "sltt": rsnn.gradients.SLTT(),
    "ottt": rsnn.gradients.OTTT(),
}
STEP_MODES = ("multi", "single")


def normalized(x, filters, **kwargs):
    return layers.BatchNormalization()(
        layers.Conv2D(filters, 3, padding="same", use_bias=False, **kwargs)(x)
    )


def resnet():
    """Frames, a skip connection, learned neurons."""
    inputs = keras.Input((6, 6, 3))
    x = ParametricLIF(learn_threshold=True)(normalized(inputs, 4))
    y = LIF(reset="hard", detach_reset=False)(normalized(x, 4))
    x = LIF()(layers.Add()([normalized(x, 4), normalized(y, 4)]))
    return keras.Model(
        inputs, layers.Dense(CLASSES)(layers.GlobalAveragePooling2D()(x))
    )


def half_precision():
    """`resnet`, of which casts are counted."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    return resnet()


NETWORKS = {"resnet": resnet, "half_precision": half_precision}


def cases_of(network):
    """The methods and step modes that are counted for a network."""
    for method, step_mode in itertools.product(METHODS, STEP_MODES):
        is_basic = method in ("rate", "bptt")
        # Others than PyTorch trace slowly.
        is_slow = BACKEND != "torch" and step_mode == "multi"
        if is_basic or not (network == "half_precision" or is_slow):
            yield method, step_mode


def model_and_data(network, method, step_mode):
    model = rsnn.SpikingModel(network, T, METHODS[method], step_mode)
    shape = (BATCH, T, *network.input_shape[1:])
    x = np.random.default_rng(0).normal(0.5, 1.0, shape).astype("float32")
    model.compile(
        "sgd",
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    return model, (x, np.arange(BATCH) % CLASSES)


def counted_by_torch(model, batch, thorough):
    import torch
    from counted_operations import Counter

    x, y = map(ops.convert_to_tensor, batch)
    weights = [variable.value for variable in model.trainable_variables]
    with Counter() as counter:
        loss = model.loss(y, model(x, training=True)) + sum(model.losses)
        torch.autograd.grad(loss, weights, allow_unused=True)
    counts = {"operations": counter.operations, "memory": counter.most_bytes}
    if thorough:
        counts["recorded"] = len(_recorded_calls(model, x))
    return counts


def _recorded_calls(model, x):
    """The nodes that call functions in the recorded graphs of a call of a model, and of
    its gradient."""
    from recorded_calls import recording

    model.compile("sgd", model.loss)
    with recording():
        for _ in range(2):
            model(x, training=True)
    (graph,) = model._graphs.graphs
    parts = (graph.forward, graph.backward)
    nodes = [node for part in parts for node in part.__self__.graph.nodes]
    return [node for node in nodes if node.op == "call_function"]


def casts_by_torch(model, batch):
    import torch

    calls = _recorded_calls(model, ops.convert_to_tensor(batch[0]))
    return [node.target for node in calls].count(torch.ops.aten._to_copy.default)


def counted_by_jax(model, batch, thorough):
    traced = _traced_by_jax(model, batch)
    counts = {"equations": len(_equations(traced.jaxpr.jaxpr))}
    if thorough:
        counts["memory"] = traced.lower().compile().memory_analysis().temp_size_in_bytes
    return counts


def casts_by_jax(model, batch):
    equations = _equations(_traced_by_jax(model, batch).jaxpr.jaxpr)
    return sum(
        equation.primitive.name == "convert_element_type" for equation in equations
    )


def _traced_by_jax(model, batch):
    import jax

    def objective(trainable, fixed, x, y):
        outputs, fixed, losses = model.stateless_call(
            trainable, fixed, x, training=True, return_losses=True
        )
        return model.loss(y, outputs) + sum(losses), fixed

    state = [
        [variable.value for variable in of]
        for of in (model.trainable_variables, model.non_trainable_variables)
    ]
    return jax.jit(jax.value_and_grad(objective, has_aux=True)).trace(*state, *batch)


def _equations(jaxpr):
    """The equations, those of loops, branches and functions inside included."""
    inside = (
        getattr(part, "jaxpr", part)
        for of in jaxpr.eqns
        for part in keras.tree.flatten(list(of.params.values()))
    )
    return [
        *jaxpr.eqns,
        *(
            equation
            for part in inside
            if hasattr(part, "eqns")
            for equation in _equations(part)
        ),
    ]


def counted_by_tensorflow(model, batch, thorough):
    return {"nodes": len(_nodes_by_tensorflow(model, batch))}


def casts_by_tensorflow(model, batch):
    return sum(node.op == "Cast" for node in _nodes_by_tensorflow(model, batch))


def _nodes_by_tensorflow(model, batch):
    import tensorflow as tf

    @tf.function(autograph=False)
    def step(x, y):
        with tf.GradientTape() as tape:
            loss = model.loss(y, model(x, training=True)) + sum(model.losses)
        return tape.gradient(
            loss, [variable.value for variable in model.trainable_variables]
        )

    batch = [tf.constant(array) for array in batch]
    with _forward_mode_of_a_new_process():
        graph = step.get_concrete_function(*batch).graph.as_graph_def()
    return [
        *graph.node,
        *(node for function in graph.library.function for node in function.node_def),
    ]


def _forward_mode_of_a_new_process():
    """A context in which TensorFlow finds no derivative of an operation that other
    tests traced, perhaps for unknown shapes, as from the 33rd of an operation on: it
    has more nodes."""
    from tensorflow.core.function.polymorphism.function_cache import FunctionCache
    from tensorflow.python.eager import forwardprop

    exact = dataclasses.replace(
        forwardprop._jvp_exact_config, function_cache=FunctionCache()
    )
    return unittest.mock.patch.multiple(
        forwardprop, _TRACE_COUNT={}, _jvp_exact_config=exact
    )


COUNTED_BY = {
    "torch": counted_by_torch,
    "jax": counted_by_jax,
    "tensorflow": counted_by_tensorflow,
}
CASTS_BY = {
    "torch": casts_by_torch,
    "jax": casts_by_jax,
    "tensorflow": casts_by_tensorflow,
}


def counts_of(name):
    """The counts of a network, by method and step mode."""
    network, counts = NETWORKS[name](), {}
    for method, step_mode in cases_of(name):
        model, batch = model_and_data(network, method, step_mode)
        if name == "half_precision":
            found = {"casts": CASTS_BY[BACKEND](model, batch)}
        else:
            found = COUNTED_BY[BACKEND](model, batch, thorough=method == "rate")
        counts[f"{method}, {step_mode}"] = found
    return counts


def versions():
    return {
        package: importlib.metadata.version(package).partition("+")[0]
        for package in PACKAGES[BACKEND]
    }


def write(name, counts):
    """Replaces the counts of a network, and those of other networks that are of other
    versions."""
    table = json.loads(TABLE.read_text()) if TABLE.exists() else {}
    of_backend = table.get(BACKEND, {})
    networks = (
        of_backend["networks"] if of_backend.get("versions") == versions() else {}
    )
    networks = {
        network: {**networks, name: counts}[network]
        for network in NETWORKS
        if network in {**networks, name: counts}
    }
    table[BACKEND] = {"versions": versions(), "networks": networks}
    text = json.dumps({backend: table[backend] for backend in sorted(table)}, indent=1)
    TABLE.write_text(text + "\n")


def differences(counts, committed):
    """What to say of counts that are higher than the committed ones, or much lower."""
    assert counts.keys() == committed.keys()
    for case, of_case in counts.items():
        assert of_case.keys() == committed[case].keys(), case
        for unit, count in of_case.items():
            allowed = committed[case][unit]
            if count > allowed * (COMPILER if unit == "memory" else 1.0):
                yield f"{case}: {count} {unit}, {allowed} are committed"
            elif count < GAIN * allowed:
                yield (
                    f"{case}: {count} {unit} instead of {allowed}, a gain that is to "
                    "be committed"
                )


@pytest.mark.parametrize("name", NETWORKS)
def test_a_training_step_costs_what_is_committed(name):
    counts = None
    if os.environ.get("UPDATE_COSTS"):
        counts = counts_of(name)
        write(name, counts)
    committed = json.loads(TABLE.read_text())[BACKEND]
    if committed["versions"] != versions():
        pytest.skip(f"counted with {committed['versions']}; these are {versions()}")
    found = list(differences(counts or counts_of(name), committed["networks"][name]))
    assert not found, "\n".join(
        [
            f"{name} on {BACKEND}:",
            *found,
            "The first lines of this file say how to commit it.",
        ]
    )
