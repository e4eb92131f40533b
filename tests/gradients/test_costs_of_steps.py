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
import importlib
import itertools
import json
import os
import pathlib
import unittest.mock

import keras
import numpy as np
import pytest
from helpers import BACKEND, CROSSENTROPY
from keras import layers, ops

import keras_ratesnn as rsnn
from keras_ratesnn.layers import LIF, ParametricLIF

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

AGAIN = "bptt, run again"
"""In multi-step mode only."""

METHODS = {
    "rate": rsnn.gradients.Rate(),
    "rate, 2 windows": rsnn.gradients.Rate(windows=2),
    "bptt": rsnn.gradients.BPTT(),
    AGAIN: rsnn.gradients.BPTT(recompute=True),
    "sltt": rsnn.gradients.SLTT(),
    "ottt": rsnn.gradients.OTTT(),
}
STEP_MODES = ("multi", "single")


def normalized(x):
    return layers.BatchNormalization()(
        layers.Conv2D(4, 3, padding="same", use_bias=False)(x)
    )


def resnet():
    """Frames, a skip connection, learned neurons."""
    inputs = keras.Input((6, 6, 3))
    x = ParametricLIF(learn_threshold=True)(normalized(inputs))
    y = LIF(reset="hard", detach_reset=False)(normalized(x))
    x = LIF()(layers.Add()([normalized(x), normalized(y)]))
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
        # Others than PyTorch trace slowly.
        is_slow = BACKEND != "torch" and step_mode == "multi"
        is_counted = method in ("rate", "bptt", AGAIN) or not is_slow
        if method == AGAIN and step_mode == "single":
            continue
        if method == "rate" or (is_counted and network != "half_precision"):
            yield method, step_mode


def model_and_data(network, method, step_mode):
    model = rsnn.SpikingModel(network, T, METHODS[method], step_mode)
    shape = (BATCH, T, *network.input_shape[1:])
    x = np.random.default_rng(0).normal(0.5, 1.0, shape).astype("float32")
    model.compile(
        "sgd",
        CROSSENTROPY,
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
        counts["recorded"] = len(calls_by_torch(model, batch))
    return counts


def calls_by_torch(model, batch):
    """The functions that the recorded graphs of a call of a model, and of its gradient,
    call."""
    from recorded_calls import operations, recording

    model.compile("sgd", model.loss, jit_compile=True)
    x = ops.convert_to_tensor(batch[0])
    with recording() as graphs:
        for _ in range(3):
            model(x, training=True).sum().backward()
    return [name for graph in graphs for name in operations(graph)]


def counted_by_jax(model, batch, thorough):
    traced = traced_by_jax(model, batch)
    counts = {"equations": len(primitives_of(traced.jaxpr.jaxpr))}
    if thorough:
        counts["memory"] = traced.lower().compile().memory_analysis().temp_size_in_bytes
    return counts


def calls_by_jax(model, batch):
    return primitives_of(traced_by_jax(model, batch).jaxpr.jaxpr)


def traced_by_jax(model, batch):
    import jax

    def objective(trainable, fixed, x, y):
        outputs, fixed, losses = model.stateless_call(
            trainable, fixed, x, training=True, return_losses=True
        )
        return model.loss(y, outputs) + sum(losses), fixed

    trainable = [variable.value for variable in model.trainable_variables]
    fixed = [variable.value for variable in model.non_trainable_variables]
    step = jax.jit(jax.value_and_grad(objective, has_aux=True))
    return step.trace(trainable, fixed, *batch)


def primitives_of(jaxpr):
    """The names of the equations, those of loops, branches and functions inside
    included."""
    names = []
    for equation in jaxpr.eqns:
        names.append(equation.primitive.name)
        for part in keras.tree.flatten(list(equation.params.values())):
            part = getattr(part, "jaxpr", part)
            if hasattr(part, "eqns"):
                names += primitives_of(part)
    return names


def counted_by_tensorflow(model, batch, thorough):
    return {"nodes": len(calls_by_tensorflow(model, batch))}


def calls_by_tensorflow(model, batch):
    import tensorflow as tf

    @tf.function(autograph=False)
    def step(x, y):
        with tf.GradientTape() as tape:
            loss = model.loss(y, model(x, training=True)) + sum(model.losses)
        weights = [variable.value for variable in model.trainable_variables]
        return tape.gradient(loss, weights)

    batch = [tf.constant(array) for array in batch]
    with _forward_mode_of_a_new_process():
        graph = step.get_concrete_function(*batch).graph.as_graph_def()
    nodes = list(graph.node)
    for function in graph.library.function:
        nodes += function.node_def
    return [node.op for node in nodes]


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


# How a backend counts, how it lists what it calls, and what it calls a cast.
BACKENDS = {
    "torch": (counted_by_torch, calls_by_torch, "aten._to_copy.default"),
    "jax": (counted_by_jax, calls_by_jax, "convert_element_type"),
    "tensorflow": (counted_by_tensorflow, calls_by_tensorflow, "Cast"),
}


def counts_of(name):
    """The counts of a network, by method and step mode."""
    count, calls, cast = BACKENDS[BACKEND]
    network, counts = NETWORKS[name](), {}
    for method, step_mode in cases_of(name):
        model, batch = model_and_data(network, method, step_mode)
        if name == "half_precision":
            found = {"casts": calls(model, batch).count(cast)}
        else:
            found = count(model, batch, thorough=method == "rate")
        counts[f"{method}, {step_mode}"] = found
    return counts


def versions():
    return {
        package: importlib.import_module(package).__version__.partition("+")[0]
        for package in PACKAGES[BACKEND]
    }


def write(name, counts):
    """Replaces the counts of a network, and those of other networks that are of other
    versions."""
    table = json.loads(TABLE.read_text())
    if table[BACKEND]["versions"] != versions():
        table[BACKEND] = {"versions": versions(), "networks": {}}
    table[BACKEND]["networks"][name] = counts
    TABLE.write_text(json.dumps(table, indent=1) + "\n")


def differences(counts, committed):
    """What to say of counts that are higher than the committed ones, or much lower."""
    assert counts.keys() == committed.keys()
    for case, units in counts.items():
        assert units.keys() == committed[case].keys(), case
        for unit, count in units.items():
            allowed = committed[case][unit]
            if count > allowed * (COMPILER if unit == "memory" else 1.0):
                yield f"{case}: {count} {unit}, {allowed} are committed"
            elif count < GAIN * allowed:
                yield f"{case}: {count} {unit} instead of {allowed}: commit the gain"


@pytest.mark.parametrize("name", NETWORKS)
def test_a_training_step_costs_what_is_committed(name):
    """The first lines of this file say how to commit other numbers."""
    committed = json.loads(TABLE.read_text())[BACKEND]
    is_update = os.environ.get("UPDATE_COSTS")
    if committed["versions"] != versions() and not is_update:
        pytest.skip(f"counted with {committed['versions']}; these are {versions()}")
    counts = counts_of(name)
    if is_update:
        write(name, counts)
    else:
        assert list(differences(counts, committed["networks"][name])) == []
