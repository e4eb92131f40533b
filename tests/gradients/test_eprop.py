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
import naive_online
import numpy as np
from helpers import (
    assert_close,
    both_step_modes,
    chain,
    loss_and_gradients,
    spiking,
    to_numpy,
)
from keras import ops

from keras_ratesnn import gradients
from keras_ratesnn.testing import check_gradient_method

T = 5


class Weighted(gradients.extend.OperationHandler):
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


class TraceState(NamedTuple):
    trace: Any


class Eligibility(gradients.extend.LoopedHandler):
    """ε_t = λ ε_{t−1} + x_t, differentiated through time."""

    def start(self, inputs):
        return TraceState(ops.zeros_like(inputs[0]))

    def advance(self, state, inputs, phase):
        trace = self.operation.cell.trace_decay() * state.trace + inputs[0]
        return TraceState(trace), [trace]


class Momentary(gradients.extend.NeuronHandler):
    """Neurons whose errors do not flow back to earlier steps."""

    def __init__(self, call, context):
        super().__init__(
            call, dataclasses.replace(context, between=gradients.extend.stopped)
        )


class Sum(gradients.extend.Handler):
    """The current, with the derivative of the eligibility."""

    def step(self, state, inputs, t):
        of_input, eligibility = inputs
        return (), [
            of_input
            + gradients.extend.graft(ops.zeros_like(of_input), eligibility, 1.0)
        ]


def nodes(calls, context):
    """An eligibility is a node of its own, between a layer with weights and its
    neurons."""
    slots, parts = itertools.count(-1, -1), {}
    for node in gradients.extend.plain_nodes(calls, context):
        handler, inputs, outputs = node
        call = handler.call
        if hasattr(call.operation, "kernel"):
            parts[outputs[0]] = next(slots), next(slots)
            yield gradients.extend.Node(
                Weighted(call, context), inputs, [*outputs, *parts[outputs[0]]]
            )
        elif isinstance(handler, gradients.extend.NeuronHandler) and inputs[0] in parts:
            (of_input, of_weights), trace, both = (
                parts[inputs[0]],
                next(slots),
                next(slots),
            )
            yield gradients.extend.Node(
                Eligibility(call, context), [of_weights], [trace]
            )
            yield gradients.extend.Node(Sum(call, context), [of_input, trace], [both])
            yield gradients.extend.Node(Momentary(call, context), [both], outputs)
        else:
            yield node


@keras.saving.register_keras_serializable(package="tests")
class EProp(gradients.GradientMethod):
    def call(self, run):
        return gradients.extend.plain(run, nodes)


@both_step_modes
def test_eprop_from_public_names_has_the_gradients_of_a_slow_loop(step_mode):
    random = np.random.default_rng(0)
    frames = random.normal(0.5, 1.0, (T, 8, 6))
    y = random.normal(size=(8, 3)).astype("float32")
    x = np.swapaxes(frames, 0, 1).astype("float32")
    network = chain(*naive_online.network_layers())
    (_, found), (_, others) = (
        loss_and_gradients(
            spiking(network, T, method, step_mode=step_mode),
            x,
            y,
            naive_online.squared_error,
        )
        for method in (EProp(), "bptt")
    )
    weights = [to_numpy(weight).astype("float64") for weight in network.weights]
    expected = naive_online.gradients(
        weights, frames, y, 0.5, traced=(0, 1), traces_of_biases=True
    )
    assert_close(list(found.values()), expected, rtol=1e-4, atol=1e-6)
    assert all(np.abs(gradient).max() > 1e-4 for gradient in expected)
    first = next(iter(found))
    assert np.abs(found[first] - others[first]).max() > 1e-4


def test_eprop_passes_the_check_of_methods():
    check_gradient_method(EProp(), normalization=False)
