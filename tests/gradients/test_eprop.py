"""A training method that the library lacks, e-prop, from public names only: what
docs/extending.md teaches is enough.

Source: Bellec et al., "A solution to the learning dilemma for recurrent networks of
spiking neurons", 2020, for layers without recurrent connections and with symmetric
feedback. The gradient of a weight is Σ_t L_t ψ_t ε_t: the error L_t that a neuron
receives at the same step, its surrogate derivative ψ_t, and the eligibility ε_t = λ
ε_{t−1} + x_t of the input of the weight.
"""

import dataclasses
import itertools
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
from helpers import data, loss_and_gradients, mlp, spiking, to_numpy
from keras import ops

from keras_ratesnn import gradients
from keras_ratesnn.layers import LIF
from keras_ratesnn.testing import check_gradient_method

T = 5


class Weighted(gradients.OperationHandler):
    """A layer with weights; two more outputs have a gradient only for its input, and
    only for its weights."""

    def step(self, state, inputs, t):
        state, outputs = super().step(state, inputs, t)
        return state, [*outputs, *self.parts(*inputs)]

    def once(self, inputs):
        outputs, loss = super().once(inputs)
        return [*outputs, *self.parts(*inputs)], loss

    def parts(self, x):
        kernel, bias = (
            ops.cast(weight, x.dtype)
            for weight in map(ops.convert_to_tensor, self.operation.weights)
        )
        of_input = ops.matmul(x, ops.stop_gradient(kernel)) + ops.stop_gradient(bias)
        return of_input, ops.matmul(ops.stop_gradient(x), kernel) + bias


class State(NamedTuple):
    trace: Any


class Eligibility(gradients.LoopedHandler):
    """ε_t = λ ε_{t−1} + x_t, differentiated through time."""

    def start(self, inputs):
        return State(ops.zeros_like(inputs[0]))

    def advance(self, state, inputs, phase):
        trace = self.operation.cell.trace_decay() * state.trace + inputs[0]
        return State(trace), [trace]


class Momentary(gradients.NeuronHandler):
    """Neurons whose errors do not flow back to earlier steps."""

    def __init__(self, call, context):
        super().__init__(call, dataclasses.replace(context, between=gradients.stopped))


class Sum(gradients.Handler):
    """The current, with the derivative of the eligibility."""

    def step(self, state, inputs, t):
        of_input, eligibility = inputs
        return (), [
            of_input + gradients.graft(ops.zeros_like(of_input), eligibility, 1.0)
        ]


def nodes(calls, context):
    """An eligibility is a node of its own, between a layer with weights and its
    neurons."""
    slots, parts = itertools.count(-1, -1), {}
    for node in gradients.plain_nodes(calls, context):
        handler, inputs, outputs = node
        call = handler.call
        if hasattr(call.operation, "kernel"):
            parts[outputs[0]] = next(slots), next(slots)
            yield gradients.Node(
                Weighted(call, context), inputs, [*outputs, *parts[outputs[0]]]
            )
        elif isinstance(handler, gradients.NeuronHandler) and inputs[0] in parts:
            (of_input, of_weights), trace, both = (
                parts[inputs[0]],
                next(slots),
                next(slots),
            )
            yield gradients.Node(Eligibility(call, context), [of_weights], [trace])
            yield gradients.Node(Sum(call, context), [of_input, trace], [both])
            yield gradients.Node(Momentary(call, context), [both], outputs)
        else:
            yield node


@keras.saving.register_keras_serializable(package="tests")
class EProp(gradients.GradientMethod):
    def call(self, run):
        return gradients.plain(run, nodes)


def loop(layers, x, labels):
    """The gradients of the mean cross-entropy, computed step by step and layer by
    layer."""
    dense = [layer for layer in layers if hasattr(layer, "kernel")]
    weights = [
        [to_numpy(weight).astype("float64") for weight in layer.weights]
        for layer in dense
    ]
    cell = next(layer.cell for layer in layers if hasattr(layer, "cell"))
    batch, hidden = len(x), weights[:-1]
    eligibilities = [[np.zeros((batch, kernel.shape[0])), 0.0] for kernel, _ in hidden]
    membranes = [np.zeros((batch, len(bias))) for _, bias in hidden]
    seen, outputs = [], 0.0
    for t in range(T):
        spikes, of_step = x[:, t], []
        for layer, (kernel, bias) in enumerate(hidden):
            of_kernel, of_bias = eligibilities[layer]
            eligibilities[layer] = [
                cell.decay * of_kernel + spikes,
                cell.decay * of_bias + 1.0,
            ]
            membrane = cell.decay * membranes[layer] + spikes @ kernel + bias
            spikes = (membrane >= cell.threshold).astype("float64")
            membranes[layer] = membrane - cell.threshold * spikes
            slope = to_numpy(
                cell.surrogate.derivative(
                    ops.convert_to_tensor(membrane - cell.threshold)
                )
            )
            of_step.append((*eligibilities[layer], slope))
        outputs = outputs + (spikes @ weights[-1][0] + weights[-1][1]) / T
        seen.append((of_step, spikes))
    odds = np.exp(outputs - outputs.max(-1, keepdims=True))
    error = (
        (odds / odds.sum(-1, keepdims=True) - np.eye(odds.shape[-1])[labels])
        / batch
        / T
    )
    found = [[np.zeros_like(weight) for weight in of_layer] for of_layer in weights]
    for of_step, spikes in seen:
        found[-1][0] += spikes.T @ error
        found[-1][1] += error.sum(0)
        learning = error @ weights[-1][0].T
        for layer, (of_kernel, of_bias, slope) in reversed(list(enumerate(of_step))):
            learning = learning * slope
            found[layer][0] += of_kernel.T @ learning
            found[layer][1] += of_bias * learning.sum(0)
            learning = learning @ weights[layer][0].T
    return [gradient for of_layer in found for gradient in of_layer]


@pytest.mark.parametrize("step_mode", ["multi", "single"])
def test_eprop_from_public_names_has_the_gradients_of_a_slow_loop(step_mode):
    x, y = data(8, (T, 6))
    inputs = keras.Input((6,))
    network = keras.Model(
        inputs, mlp(8, 8, decay=0.5)(LIF(decay=0.5)(keras.layers.Dense(8)(inputs)))
    )
    _, found = loss_and_gradients(
        spiking(network, T, EProp(), step_mode=step_mode), x, y
    )
    _, others = loss_and_gradients(
        spiking(network, T, "bptt", step_mode=step_mode), x, y
    )
    wanted = loop([*network.layers[:-1], *network.layers[-1].layers], x, y)
    for (path, gradient), expected in zip(found.items(), wanted, strict=True):
        np.testing.assert_allclose(
            gradient, expected, rtol=1e-4, atol=1e-6, err_msg=path
        )
        assert np.abs(expected).max() > 1e-4
    assert any(
        np.abs(gradient - others[path]).max() > 1e-4 for path, gradient in found.items()
    )


def test_eprop_passes_the_check_of_methods():
    check_gradient_method(EProp(), normalization=False)
