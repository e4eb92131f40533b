"""Neurons and surrogates of snnTorch and SpikingJelly do what those of this library
that stand for them do, step for step."""

import importlib
import math

import keras
import numpy as np
import pytest
from helpers import chain, gradient_of, spiking
from keras import layers, ops
from numpy.testing import assert_allclose, assert_array_equal

from keras_ratesnn import surrogates
from keras_ratesnn.layers import (
    IF,
    ILIF,
    LIF,
    CuBaLIF,
    LeakyReadout,
    ParametricLIF,
    Recurrent,
    Scale,
    SlidingPSN,
)

T = 12
# A random membrane never equals its threshold, where snnTorch does not spike and this
# library does.
CURRENTS = np.random.default_rng(0).normal(0.6, 1.0, (20, T, 30)).astype("float32")
# Membranes equal the threshold 1 often.
HALVES = np.random.default_rng(0).integers(-1, 4, (20, T, 30)).astype("float32") / 2
ABOVE_ONE = float(np.nextafter(np.float32(1.0), np.float32(2.0)))


def theirs(name, **arguments):
    """Neurons of SpikingJelly, whose names end with "Node", or of snnTorch."""
    if name.endswith("Node"):
        module = importlib.import_module("spikingjelly.activation_based.neuron")
    else:
        module = importlib.import_module("snntorch")
        arguments = {"init_hidden": True, **arguments}
    return getattr(module, name)(**arguments)


def without_reset(inputs, decay=0.8):
    """The spikes of a membrane that no spike resets, with a threshold of 2."""
    neurons = SlidingPSN(T, trainable=False)
    spikes = neurons(inputs)
    neurons.set_weights([decay ** np.arange(T)[::-1], np.array(-2.0)])
    return spikes


def halved(inputs):
    return LIF(0.75, 0.5, reset_delay=True)(layers.Rescaling(0.5)(inputs))


TO_ZERO = {"reset_mechanism": "zero"}
AT_ONCE = {**TO_ZERO, "reset_delay": False}
LEAKY = {"beta": 0.8}
SYNAPTIC = {"alpha": 0.6, "beta": 0.7}
LAPICQUE = {"R": 2.0, "C": 4.0, "time_step": 2.0, "threshold": 0.5}
HALF = {"v_threshold": 0.5}
SOFT = {"v_reset": None}
DELAYED = {"reset_delay": True}
HARD = {"reset": "hard"}
BOTH = {**HARD, **DELAYED}
SCALED = {**HARD, "decay_input": True}
CURRENT = {"synaptic_decay": 0.6, **DELAYED}
CASES = [
    ("Leaky", LEAKY, LIF(0.8, **DELAYED)),
    (
        "Leaky",
        {**LEAKY, "threshold": 2.0, "reset_mechanism": "none"},
        without_reset,
    ),
    ("Lapicque", LAPICQUE, halved),
    ("Leaky", {**LEAKY, "learn_beta": True}, ParametricLIF(0.8, **DELAYED)),
    ("Leaky", {"beta": 1.0, "threshold": 3.0}, IF(3.0, **DELAYED)),
    ("Leaky", {**LEAKY, **TO_ZERO}, LIF(0.8, **HARD)),
    ("Leaky", {**LEAKY, **AT_ONCE}, LIF(0.8, **HARD)),
    ("Synaptic", SYNAPTIC, CuBaLIF(0.7, **CURRENT)),
    ("Synaptic", {**SYNAPTIC, **TO_ZERO}, CuBaLIF(0.7, **CURRENT, **HARD)),
    ("LIFNode", HALF, LIF(0.5, 0.5, **SCALED)),
    ("LIFNode", {"tau": 4.0, **HALF, **SOFT}, LIF(0.75, 0.5, decay_input=True)),
    # Its membrane, measured from where it rests.
    ("LIFNode", {"v_threshold": 0.3, "v_reset": -0.2}, LIF(0.5, 0.5, **SCALED)),
    ("ParametricLIFNode", HALF, ParametricLIF(0.5, 0.5, **SCALED)),
    ("CUBALIFNode", {}, CuBaLIF(0.75, 0.5, synaptic_decay=0.5, **HARD)),
    (
        "CUBALIFNode",
        {"v_threshold": 1.0, **SOFT},
        CuBaLIF(0.75, synaptic_decay=0.5),
    ),
    ("IFNode", {}, IF(**HARD)),
    ("HalfThresholdIFNode", {"v_threshold": 3.0}, IF(3.0, initial_membrane=1.5)),
    ("ILIFNode", {"v_threshold": 2.0}, ILIF(4, decay=0.25, threshold=2.0)),
]
CASES = [(*case, CURRENTS) for case in CASES]
CASES += [
    ("Leaky", {"beta": 0.5}, LIF(0.5, ABOVE_ONE, **DELAYED), HALVES),
    ("LIFNode", {"decay_input": False}, LIF(0.5, **HARD), HALVES),
    ("IFNode", SOFT, IF(), HALVES),
]


def spikes_of(neurons, currents=CURRENTS):
    """The spikes (batch, time, neurons) of neurons of another library."""
    import torch

    with torch.no_grad():
        steps = [neurons(torch.tensor(currents[:, t])).numpy() for t in range(T)]
    spikes = np.stack(steps, axis=1)
    assert 0.05 < spikes.mean() < 0.95
    return spikes


def ours(layer, currents=CURRENTS, **kwargs):
    """The outputs of a layer, at each step."""
    network = chain(layer, shape=(30,))
    model = spiking(network, T, return_sequences=True, **kwargs)
    return model.predict(currents, verbose=0)


@pytest.mark.parametrize(("name", "arguments", "layer", "currents"), CASES)
def test_spikes_are_those_of_another_library(name, arguments, layer, currents):
    """Also where membranes equal the threshold."""
    expected = spikes_of(theirs(name, **arguments), currents)
    assert_array_equal(ours(layer, currents), expected)


KERNEL = np.random.default_rng(1).normal(0.0, 0.3, (30, 30)).astype("float32")
BIAS = np.random.default_rng(2).normal(0.0, 0.3, 30).astype("float32")
# Those with a soft reset are in test_recurrent.py.
RECURRENT = [
    ("RLeaky", {**LEAKY, **TO_ZERO}, LIF(0.8, **BOTH)),
    ("RLeaky", {**LEAKY, **AT_ONCE}, LIF(0.8, **HARD)),
    ("RSynaptic", {**SYNAPTIC, **TO_ZERO}, CuBaLIF(0.7, **CURRENT, **HARD)),
]


@pytest.mark.parametrize(("name", "arguments", "neurons"), RECURRENT)
def test_recurrent_neurons_are_those_of_another_library(name, arguments, neurons):
    import torch

    synapse = layers.Dense(30)
    synapse.build((None, 30))
    synapse.set_weights([KERNEL, BIAS])
    other = theirs(name, **arguments, linear_features=30)
    other.recurrent.weight.data = torch.tensor(KERNEL.T)
    other.recurrent.bias.data = torch.tensor(BIAS)
    found = ours(Recurrent(neurons, synapse))
    assert_array_equal(found, spikes_of(other))


def test_recurrent_neurons_are_those_of_norse():
    """By the equations of `lif_step` in Norse 1.1.0, with its default parameters."""
    membrane = current = spikes = np.zeros((20, 30))
    expected = []
    for t in range(T):
        current = current + CURRENTS[:, t] + spikes @ KERNEL
        membrane = membrane + 0.1 * (current - membrane)
        current = 0.8 * current
        spikes = (membrane > 1.0).astype("float64")
        membrane = (1.0 - spikes) * membrane
        expected.append(spikes)
    assert 0.05 < np.mean(expected) < 0.95
    synapse = layers.Dense(30, use_bias=False)
    synapse.build((None, 30))
    synapse.set_weights([KERNEL])
    neurons = CuBaLIF(0.9, synaptic_decay=0.8, **SCALED)
    found = ours(Recurrent(neurons, synapse))
    assert_array_equal(found, np.stack(expected, axis=1))


@pytest.mark.parametrize("name", ["RLeaky", "RSynaptic"])
@pytest.mark.parametrize("per_channel", [True, False])
def test_neurons_that_get_only_their_own_spikes_back_are_those_of_another_library(
    name, per_channel
):
    import torch

    scale, v = Scale(-0.4, per_channel=per_channel), -0.4
    if per_channel:
        scale.build((None, 30))
        scale.set_weights([BIAS[None]])
        v = torch.tensor(BIAS)
    arguments, neurons = LEAKY, LIF(0.8, **DELAYED)
    if name == "RSynaptic":
        arguments, neurons = SYNAPTIC, CuBaLIF(0.7, **CURRENT)
    expected = spikes_of(theirs(name, **arguments, all_to_all=False, V=v))
    assert_array_equal(ours(Recurrent(neurons, scale)), expected)


DECODED = {"mean": "mean-mem", "last": "last_mem", "max": "max-mem"}


@pytest.mark.parametrize("value", DECODED)
@pytest.mark.parametrize(
    ("name", "arguments", "readout"),
    [
        ("NonSpikingLIFNode", {"tau": 2.0}, {"decay": 0.5, "decay_input": True}),
        ("NonSpikingIFNode", {}, {"decay": 1.0}),
    ],
)
def test_membranes_that_never_spike_are_those_of_another_library(
    name, arguments, readout, value
):
    """Of multiples of 1/2, with decays of 1/2, the first four steps are exact."""
    import torch

    currents = HALVES[:, :4]
    node = theirs(name, decode=DECODED[value], **arguments)
    node.step_mode = "m"
    expected = node(torch.tensor(np.swapaxes(currents, 0, 1))).numpy()
    inputs = keras.Input((30,))
    outputs = [LeakyReadout(**readout, value=value)(inputs), IF()(inputs)]
    found, _ = spiking(keras.Model(inputs, outputs), 4).predict(currents, verbose=0)
    assert_array_equal(found, expected)


def test_a_membrane_without_a_reset_is_that_of_a_convolution_in_time():
    import snntorch
    import torch

    neurons = snntorch.StateLeaky(beta=0.8, channels=30, threshold=2.0)
    with torch.no_grad():
        results = neurons(torch.tensor(np.moveaxis(CURRENTS, 1, 0)))
    spikes, membranes = (np.moveaxis(result.numpy(), 0, 1) for result in results)
    decay = math.exp(0.8 - 1.0)
    found = ours(lambda x: [without_reset(x, decay), LeakyReadout(decay)(x)])
    assert_array_equal(found[0], spikes)
    assert_allclose(found[1], membranes, rtol=1e-4, atol=1e-4)


ATTACHED = {"detach_reset": False}
CASES_OF_GRADIENTS = [
    ("Leaky", LEAKY, LIF(0.8, surrogate="atan", **DELAYED)),
    ("LIFNode", HALF, LIF(0.5, 0.5, **ATTACHED, **SCALED)),
    ("Synaptic", SYNAPTIC, CuBaLIF(0.7, surrogate="atan", **CURRENT)),
    (
        "Synaptic",
        {**SYNAPTIC, **AT_ONCE},
        CuBaLIF(0.7, synaptic_decay=0.6, surrogate="atan", **ATTACHED, **HARD),
    ),
]


@pytest.mark.parametrize(("name", "arguments", "layer"), CASES_OF_GRADIENTS)
def test_gradients_of_bptt_are_those_of_another_library(name, arguments, layer):
    import torch

    weights = np.random.default_rng(1).normal(size=CURRENTS.shape).astype("float32")
    neurons = theirs(name, **arguments)
    currents = torch.tensor(CURRENTS, requires_grad=True)
    spikes = torch.stack([neurons(currents[:, t]) for t in range(T)], dim=1)
    (expected,) = torch.autograd.grad((spikes * torch.tensor(weights)).sum(), currents)
    network = chain(layer, shape=(30,))
    model = spiking(network, T, gradient="bptt", return_sequences=True)
    (gradient,) = gradient_of(
        lambda x: ops.sum(model(x) * ops.convert_to_tensor(weights)), [CURRENTS]
    )
    assert_allclose(gradient, expected.numpy(), atol=1e-4)


JELLY, TORCH = "spikingjelly.activation_based.surrogate", "snntorch.surrogate"
SURROGATES = [
    (JELLY, "Sigmoid", {}, surrogates.Sigmoid()),
    (JELLY, "ATan", {}, surrogates.ATan()),
    (JELLY, "PiecewiseQuadratic", {"alpha": 2.0}, surrogates.Triangle(width=1 / 2)),
    (JELLY, "Rect", {"alpha": 2.0}, surrogates.Rectangular(width=1 / 2)),
    (JELLY, "Erf", {"alpha": 3.0}, surrogates.Gaussian(sigma=1 / (3.0 * math.sqrt(2)))),
    (JELLY, "SoftSign", {}, surrogates.FastSigmoid(slope=2.0)),
    (JELLY, "SuperSpike", {}, surrogates.FastSigmoid(slope=1.0)),
    (TORCH, "atan", {}, surrogates.ATan()),
    (TORCH, "fast_sigmoid", {}, surrogates.FastSigmoid()),
    (TORCH, "sigmoid", {}, surrogates.Sigmoid(alpha=25.0)),
]


@pytest.mark.parametrize(("module", "name", "arguments", "surrogate"), SURROGATES)
def test_surrogate_has_the_derivative_of_another_library(
    module, name, arguments, surrogate
):
    import torch

    # None at a distance where a rectangle ends.
    distances = np.linspace(-1.9, 1.9, 20, dtype="float32")
    x = torch.tensor(distances, requires_grad=True)
    getattr(importlib.import_module(module), name)(**arguments)(x).sum().backward()
    found = surrogate.derivative(ops.convert_to_tensor(distances))
    assert_allclose(ops.convert_to_numpy(found), x.grad.numpy(), atol=1e-5)
