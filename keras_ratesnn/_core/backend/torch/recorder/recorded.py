"""Ordinary Keras models whose calls are recorded: `fit`, `evaluate` and `predict` are Keras' own."""

import functools

import keras
import numpy as np
import torch
from keras import ops

from keras_ratesnn._core import keras_internals, tree
from keras_ratesnn._core.backend.torch.recorder.call_graphs import CallGraphs


def record_calls(model):
    """Lets the graph of a Functional or Sequential model run through `CallGraphs`, from now on."""
    graph = keras_internals.functional_of(model)
    if "call" in vars(graph):
        return
    call, graphs = graph.call, CallGraphs()
    # The layers, without what `compile` and `fit` set.
    layers = keras.Model(graph.inputs, graph.outputs, name=graph.name)

    @functools.wraps(call)
    def recorded_call(inputs, training=None, mask=None, **kwargs):
        # Keras leaves arrays to a model that has inputs by name.
        tensors = [ops.convert_to_tensor(leaf) if isinstance(leaf, np.ndarray) else leaf for leaf in tree.flatten(inputs)]
        is_masked = any(one is not None for one in tree.flatten(mask))
        if is_masked or kwargs or torch.compiler.is_compiling() or not all(map(torch.is_tensor, tensors)):
            return call(inputs, training=training, mask=mask, **kwargs)
        structure = tree.map_leaves(lambda _: None, inputs)
        function = functools.partial(_of_tensors, call, structure, training)
        jit_compile = False if model.run_eagerly else "auto"
        return graphs.call(function, tensors, layers, (), (repr(structure), training), jit_compile)

    vars(graph)["call"] = recorded_call


def _of_tensors(call, structure, training, tensors):
    remaining = iter(tensors)
    return call(tree.map_leaves(lambda _: next(remaining), structure), training=training)
