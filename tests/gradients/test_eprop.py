"""A training method that the library lacks, e-prop, from public names only: what docs/extending.md teaches is enough.

Source: Bellec et al., "A solution to the learning dilemma for recurrent networks of spiking neurons", 2020, for layers without
recurrent connections and with symmetric feedback. The gradient of a weight is Σ_t L_t ψ_t ε_t: the error L_t that a neuron
receives at the same step, its surrogate derivative ψ_t, and the eligibility ε_t = λ ε_{t−1} + x_t of the input of the weight.
"""

import dataclasses

import keras
import numpy as np
import pytest
from helpers import data, loss_and_gradients, mlp, spiking, to_numpy
from keras import ops

from keras_ratesnn import gradients
from keras_ratesnn.layers import LIF
from keras_ratesnn.testing import check_gradient_method

T = 5


class Current(gradients.Signal):
    """The output of a layer with weights, and the same with a gradient only for its input, and only for its weights."""

    def __init__(self, value, of_input, of_weights):
        super().__init__(value)
        self.of_input = of_input
        self.of_weights = of_weights


class EligibilityPass(gradients.NeuronPass):
    """ε_t = λ ε_{t−1} + x_t, differentiated through time."""

    quantity = "eligibility"

    def start(self, current):
        return ops.zeros_like(current)

    def advance(self, phase, current, carried):
        eligibility = self.cell.trace_decay() * carried + current
        return eligibility, eligibility

    def finish(self, carried):
        return (), ()


class MomentaryPass(gradients.NeuronPass):
    """Neurons whose errors do not flow back to earlier steps."""

    def advance(self, phase, current, carried):
        return super().advance(phase, current, ops.stop_gradient(carried))


class EPropRule(gradients.ForwardRule):
    def neuron_pass(self, neuron):
        return MomentaryPass(neuron.cell, neuron.compute_dtype, self.with_gradient)

    def __call__(self, call):
        return self.weighted(call) if hasattr(call.operation, "kernel") else super().__call__(call)

    def weighted(self, call):
        x, (kernel, bias) = self.step_mode.tensor(call.signals[0]), map(ops.convert_to_tensor, call.operation.weights)
        kernel, bias = ops.cast(kernel, x.dtype), ops.cast(bias, x.dtype)
        of_input = ops.matmul(x, ops.stop_gradient(kernel)) + ops.stop_gradient(bias)
        of_weights = ops.matmul(ops.stop_gradient(x), kernel) + bias
        return Current(self.operation(call).value, of_input, of_weights)

    def neuron(self, call):
        (current,) = call.signals
        if not isinstance(current, Current):
            return super().neuron(call)
        trace = EligibilityPass(call.operation.cell, call.operation.compute_dtype, with_gradient=self.with_gradient)
        eligibility = self.step_mode.through_time(call.key, trace, gradients.Signal(current.of_weights))
        both = current.of_input + gradients.graft(ops.zeros_like(current.of_input), eligibility, 1.0)
        return super().neuron(dataclasses.replace(call, signals=[gradients.Signal(both)]))


@keras.saving.register_keras_serializable(package="tests")
class EProp(gradients.GradientMethod):
    def call(self, run):
        step_mode = gradients.step_mode_of(run)
        return step_mode.run(EPropRule(step_mode, run.training, run.with_gradient), run)


def loop(layers, x, labels):
    """The gradients of the mean cross-entropy, computed step by step and layer by layer."""
    dense = [layer for layer in layers if hasattr(layer, "kernel")]
    weights = [[to_numpy(weight).astype("float64") for weight in layer.weights] for layer in dense]
    cell = next(layer.cell for layer in layers if hasattr(layer, "cell"))
    batch, hidden = len(x), weights[:-1]
    eligibilities = [[np.zeros((batch, kernel.shape[0])), 0.0] for kernel, _ in hidden]
    membranes = [np.zeros((batch, len(bias))) for _, bias in hidden]
    seen, outputs = [], 0.0
    for t in range(T):
        spikes, of_step = x[:, t], []
        for layer, (kernel, bias) in enumerate(hidden):
            of_kernel, of_bias = eligibilities[layer]
            eligibilities[layer] = [cell.decay * of_kernel + spikes, cell.decay * of_bias + 1.0]
            membrane = cell.decay * membranes[layer] + spikes @ kernel + bias
            spikes = (membrane >= cell.threshold).astype("float64")
            membranes[layer] = membrane - cell.threshold * spikes
            slope = to_numpy(cell.surrogate.derivative(ops.convert_to_tensor(membrane - cell.threshold)))
            of_step.append((*eligibilities[layer], slope))
        outputs = outputs + (spikes @ weights[-1][0] + weights[-1][1]) / T
        seen.append((of_step, spikes))
    odds = np.exp(outputs - outputs.max(-1, keepdims=True))
    error = (odds / odds.sum(-1, keepdims=True) - np.eye(odds.shape[-1])[labels]) / batch / T
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
    network = keras.Model(inputs, mlp(8, 8, decay=0.5)(LIF(decay=0.5)(keras.layers.Dense(8)(inputs))))
    _, found = loss_and_gradients(spiking(network, T, EProp(), step_mode=step_mode), x, y)
    _, others = loss_and_gradients(spiking(network, T, "bptt", step_mode=step_mode), x, y)
    wanted = loop([*network.layers[:-1], *network.layers[-1].layers], x, y)
    for (path, gradient), expected in zip(found.items(), wanted, strict=True):
        np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6, err_msg=path)
        assert np.abs(expected).max() > 1e-4
    assert any(np.abs(gradient - others[path]).max() > 1e-4 for path, gradient in found.items())


def test_eprop_passes_the_check_of_methods():
    check_gradient_method(EProp(), normalization=False)
