"""Neurons and surrogates of snnTorch and SpikingJelly do what those of this library
that stand for them do, step for step."""

import importlib
import math

import keras
import numpy as np
import pytest
from helpers import gradient_of, spiking

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


def leaky(beta=0.8, **kwargs):
    from snntorch import Leaky

    return Leaky(beta=beta, init_hidden=True, **kwargs)


def synaptic(**kwargs):
    from snntorch import Synaptic

    return Synaptic(alpha=0.6, beta=0.7, init_hidden=True, **kwargs)


def node(**kwargs):
    from spikingjelly.activation_based.neuron import LIFNode

    return LIFNode(**kwargs)


def parametric_node(**kwargs):
    from spikingjelly.activation_based.neuron import ParametricLIFNode

    return ParametricLIFNode(**kwargs)


def current_based_node(**kwargs):
    from spikingjelly.activation_based.neuron import CUBALIFNode

    return CUBALIFNode(**kwargs)


def integrator(**kwargs):
    from spikingjelly.activation_based.neuron import IFNode

    return IFNode(**kwargs)


def lapicque():
    from snntorch import Lapicque

    return Lapicque(R=2.0, C=4.0, time_step=2.0, init_hidden=True, threshold=0.5)


def node_of(name, **kwargs):
    from spikingjelly.activation_based import neuron

    return getattr(neuron, name)(**kwargs)


def without_reset(inputs, decay=0.8):
    """The spikes of a membrane that no spike resets, with a threshold of 2."""
    neurons = SlidingPSN(T, trainable=False)
    spikes = neurons(inputs)
    neurons.set_weights([decay ** np.arange(T)[::-1], np.array(-2.0)])
    return spikes


CASES = {
    "Leaky": (leaky, LIF(0.8, reset_delay=True)),
    "Leaky without a reset": (
        lambda: leaky(threshold=2.0, reset_mechanism="none"),
        without_reset,
    ),
    "Lapicque": (
        lapicque,
        lambda x: LIF(0.75, 0.5, reset_delay=True)(keras.layers.Rescaling(0.5)(x)),
    ),
    "Leaky that learns its threshold": (
        lambda: leaky(threshold=0.7, learn_threshold=True),
        LIF(0.8, 0.7, learn_threshold=True, reset_delay=True),
    ),
    "Leaky that learns its decay": (
        lambda: leaky(learn_beta=True),
        ParametricLIF(0.8, reset_delay=True),
    ),
    "Leaky without a leak": (
        lambda: leaky(beta=1.0, threshold=3.0),
        IF(3.0, reset_delay=True),
    ),
    "Leaky, to zero": (lambda: leaky(reset_mechanism="zero"), LIF(0.8, reset="hard")),
    "Leaky, to zero, at once": (
        lambda: leaky(reset_mechanism="zero", reset_delay=False),
        LIF(0.8, reset="hard"),
    ),
    "Synaptic": (synaptic, CuBaLIF(0.7, synaptic_decay=0.6, reset_delay=True)),
    "Synaptic, to zero": (
        lambda: synaptic(reset_mechanism="zero"),
        CuBaLIF(0.7, synaptic_decay=0.6, reset="hard", reset_delay=True),
    ),
    "LIFNode": (
        lambda: node(v_threshold=0.5),
        LIF(0.5, 0.5, reset="hard", decay_input=True),
    ),
    "LIFNode, soft": (
        lambda: node(tau=4.0, v_threshold=0.5, v_reset=None),
        LIF(0.75, 0.5, decay_input=True),
    ),
    "LIFNode without decay_input": (
        lambda: node(tau=5.0, decay_input=False),
        LIF(0.8, reset="hard"),
    ),
    # Its membrane, measured from where it rests.
    "LIFNode that rests below 0": (
        lambda: node(v_threshold=0.3, v_reset=-0.2),
        LIF(0.5, 0.5, reset="hard", decay_input=True),
    ),
    "ParametricLIFNode": (
        lambda: parametric_node(v_threshold=0.5),
        ParametricLIF(0.5, 0.5, reset="hard", decay_input=True),
    ),
    "CUBALIFNode": (
        current_based_node,
        CuBaLIF(0.75, 0.5, synaptic_decay=0.5, reset="hard"),
    ),
    "CUBALIFNode, soft": (
        lambda: current_based_node(v_threshold=1.0, v_reset=None),
        CuBaLIF(0.75, synaptic_decay=0.5),
    ),
    "IFNode": (integrator, IF(reset="hard")),
    "HalfThresholdIFNode": (
        lambda: node_of("HalfThresholdIFNode", v_threshold=3.0),
        IF(3.0, initial_membrane=1.5),
    ),
    "ILIFNode": (
        lambda: node_of("ILIFNode", v_threshold=2.0),
        ILIF(4, decay=0.25, threshold=2.0, normalize=False),
    ),
    "IFNode, soft": (lambda: integrator(v_threshold=3.0, v_reset=None), IF(3.0)),
}


# Their membranes equal the threshold 1 often.
HALVES = np.random.default_rng(0).integers(-1, 4, (20, T, 30)).astype("float32") / 2
ABOVE_ONE = float(np.nextafter(np.float32(1.0), np.float32(2.0)))
CASES_AT_THRESHOLD = {
    "Leaky": (lambda: leaky(beta=0.5), LIF(0.5, ABOVE_ONE, reset_delay=True)),
    "Leaky, to zero": (
        lambda: leaky(beta=0.5, reset_mechanism="zero"),
        LIF(0.5, ABOVE_ONE, reset="hard"),
    ),
    "LIFNode": (lambda: node(decay_input=False), LIF(0.5, reset="hard")),
    "IFNode, soft": (lambda: integrator(v_reset=None), IF()),
}


def both_spikes(theirs, layer, currents):
    """The spikes (batch, time, neurons) of neurons of another library and of a
    layer."""
    import torch

    with torch.no_grad():
        spikes = np.stack(
            [theirs(torch.tensor(currents[:, t])).numpy() for t in range(T)], axis=1
        )
    assert 0.05 < spikes.mean() < 0.95
    inputs = keras.Input((30,))
    model = spiking(keras.Model(inputs, layer(inputs)), T, return_sequences=True)
    return spikes, model.predict(currents, verbose=0)


@pytest.mark.parametrize("name", CASES)
def test_spikes_are_those_of_another_library(name):
    make, layer = CASES[name]
    theirs, ours = both_spikes(make(), layer, CURRENTS)
    np.testing.assert_array_equal(ours, theirs)


RECURRENT = {
    "RLeaky": ({}, LIF(0.8, reset_delay=True)),
    "RLeaky, to zero": (
        {"reset_mechanism": "zero"},
        LIF(0.8, reset="hard", reset_delay=True),
    ),
    "RLeaky, to zero, at once": (
        {"reset_mechanism": "zero", "reset_delay": False},
        LIF(0.8, reset="hard"),
    ),
    "RSynaptic": ({}, CuBaLIF(0.8, synaptic_decay=0.6, reset_delay=True)),
    "RSynaptic, to zero": (
        {"reset_mechanism": "zero"},
        CuBaLIF(0.8, synaptic_decay=0.6, reset="hard", reset_delay=True),
    ),
}


@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_neurons_are_those_of_another_library(name):
    import snntorch
    import torch

    arguments, neurons = RECURRENT[name]
    decays = {"beta": 0.8} | ({"alpha": 0.6} if isinstance(neurons, CuBaLIF) else {})
    kind = getattr(snntorch, name.split(",")[0])
    theirs = kind(**decays, linear_features=30, init_hidden=True, **arguments)
    kernel, bias = (
        np.random.default_rng(1).normal(0.0, 0.3, shape).astype("float32")
        for shape in ((30, 30), 30)
    )
    theirs.recurrent.weight.data, theirs.recurrent.bias.data = (
        torch.tensor(kernel.T),
        torch.tensor(bias),
    )
    synapse = keras.layers.Dense(30)
    synapse.build((None, 30))
    synapse.set_weights([kernel, bias])
    theirs, ours = both_spikes(theirs, Recurrent(neurons, synapse), CURRENTS)
    np.testing.assert_array_equal(ours, theirs)


def test_recurrent_neurons_are_those_of_norse():
    """By the equations of `lif_step` in Norse 1.1.0, with its default parameters."""
    kernel = np.random.default_rng(1).normal(0.0, 0.3, (30, 30)).astype("float32")
    membrane = current = spikes = np.zeros((20, 30))
    theirs = []
    for t in range(T):
        current = current + CURRENTS[:, t] + spikes @ kernel
        membrane = membrane + 0.1 * (current - membrane)
        current = 0.8 * current
        spikes = (membrane > 1.0).astype("float64")
        membrane = (1.0 - spikes) * membrane
        theirs.append(spikes)
    assert 0.05 < np.mean(theirs) < 0.95
    inputs, synapse = keras.Input((30,)), keras.layers.Dense(30, use_bias=False)
    neurons = Recurrent(
        CuBaLIF(0.9, synaptic_decay=0.8, decay_input=True, reset="hard"), synapse
    )
    model = spiking(keras.Model(inputs, neurons(inputs)), T, return_sequences=True)
    synapse.set_weights([kernel])
    np.testing.assert_array_equal(
        model.predict(CURRENTS, verbose=0), np.stack(theirs, axis=1)
    )


@pytest.mark.parametrize("kind", ["Leaky", "Synaptic"])
def test_neurons_with_decays_and_thresholds_of_their_own_are_those_of_another_library(
    kind,
):
    import snntorch
    import torch

    random = np.random.default_rng(2)
    decay, synaptic, threshold = (
        random.uniform(*of, 30).astype("float32")
        for of in ((0.2, 0.95), (0.1, 0.8), (0.5, 1.5))
    )
    theirs = {"beta": torch.tensor(decay), "threshold": torch.tensor(threshold)}
    ours = {"decay": decay, "threshold": torch.tensor(threshold), "reset_delay": True}
    if kind == "Synaptic":
        theirs, ours = (
            {**theirs, "alpha": torch.tensor(synaptic)},
            {**ours, "synaptic_decay": synaptic},
        )
    neurons = (LIF if kind == "Leaky" else CuBaLIF)(**ours)
    spikes, found = both_spikes(
        getattr(snntorch, kind)(**theirs, init_hidden=True), neurons, CURRENTS
    )
    np.testing.assert_array_equal(found, spikes)


def test_neurons_that_get_only_their_own_spikes_back_are_those_of_another_library():
    import snntorch
    import torch
    from spikingjelly.activation_based.layer import ElementWiseRecurrentContainer

    weights = np.random.default_rng(1).normal(0.0, 0.6, 30).astype("float32")
    of_each, shared = Scale(per_channel=True), Scale(-0.4)
    of_each.build((None, 30))
    of_each.set_weights([weights[None]])
    current_based = CuBaLIF(0.8, synaptic_decay=0.6, reset_delay=True)
    for kind, arguments, neurons in (
        ("RLeaky", {"beta": 0.8}, LIF(0.8, reset_delay=True)),
        ("RSynaptic", {"beta": 0.8, "alpha": 0.6}, current_based),
    ):
        for v, synapse in ((-0.4, shared), (torch.tensor(weights), of_each)):
            theirs = getattr(snntorch, kind)(
                **arguments, all_to_all=False, V=v, init_hidden=True
            )
            spikes, ours = both_spikes(theirs, Recurrent(neurons, synapse), CURRENTS)
            np.testing.assert_array_equal(ours, spikes, err_msg=kind)
    container = ElementWiseRecurrentContainer(node(v_threshold=0.5), lambda x, y: x + y)
    neurons = LIF(0.5, 0.5, reset="hard", decay_input=True)
    spikes, ours = both_spikes(
        container, Recurrent(neurons, Scale(1.0, trainable=False)), CURRENTS
    )
    np.testing.assert_array_equal(ours, spikes)


def test_membranes_that_never_spike_are_those_of_other_libraries():
    """Of multiples of 1/2, with decays of 1/2, the first four steps are exact."""
    import torch

    currents = HALVES[:, :4]
    inputs = keras.Input((30,))

    def ours(readout, sequences=False):
        # Beside the readout there are neurons.
        model = spiking(
            keras.Model(inputs, [readout(inputs), IF()(inputs)]),
            4,
            return_sequences=sequences,
        )
        return model.predict(currents, verbose=0)[0]

    theirs, membranes, membrane = leaky(beta=0.5, reset_mechanism="none"), [], None
    theirs.init_hidden = False
    with torch.no_grad():
        for t in range(4):
            _, membrane = theirs(
                torch.tensor(currents[:, t]), membrane if t else theirs.reset_mem()
            )
            membranes.append(membrane.numpy())
    np.testing.assert_array_equal(
        ours(LeakyReadout(0.5), sequences=True), np.stack(membranes, axis=1)
    )
    steps = torch.tensor(np.moveaxis(currents, 1, 0))
    for value, decode in (
        ("mean", "mean-mem"),
        ("last", "last_mem"),
        ("max", "max-mem"),
    ):
        for kind, tau, readout in (
            (
                "NonSpikingLIFNode",
                {"tau": 2.0},
                LeakyReadout(0.5, decay_input=True, value=value),
            ),
            ("NonSpikingIFNode", {}, LeakyReadout(1.0, value=value)),
        ):
            their = node_of(kind, decode=decode, **tau)
            their.step_mode = "m"
            expected = their(steps).numpy()
            np.testing.assert_array_equal(
                ours(readout), expected, err_msg=f"{kind}, {value}"
            )


def test_a_membrane_without_a_reset_is_that_of_a_convolution_in_time():
    import snntorch
    import torch

    inputs, decay = keras.Input((30,)), math.exp(0.8 - 1.0)
    with torch.no_grad():
        theirs = snntorch.StateLeaky(beta=0.8, channels=30, threshold=2.0)(
            torch.tensor(np.moveaxis(CURRENTS, 1, 0))
        )
    spikes, membranes = (np.moveaxis(of.numpy(), 0, 1) for of in theirs)
    network = keras.Model(
        inputs, [without_reset(inputs, decay), LeakyReadout(decay)(inputs)]
    )
    ours = spiking(network, T, return_sequences=True).predict(CURRENTS, verbose=0)
    np.testing.assert_array_equal(ours[0], spikes)
    np.testing.assert_allclose(ours[1], membranes, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", CASES_AT_THRESHOLD)
def test_spikes_are_those_of_another_library_where_membranes_equal_the_threshold(name):
    make, layer = CASES_AT_THRESHOLD[name]
    theirs, ours = both_spikes(make(), layer, HALVES)
    np.testing.assert_array_equal(ours, theirs)


def test_snntorch_does_not_spike_at_its_threshold():
    theirs, ours = both_spikes(leaky(beta=0.5), LIF(0.5, reset_delay=True), HALVES)
    assert (theirs != ours).any()


CASES_OF_GRADIENTS = {
    "Leaky": (leaky, LIF(0.8, reset_delay=True, surrogate="atan")),
    "Synaptic, to zero": (
        lambda: synaptic(reset_mechanism="zero"),
        CuBaLIF(
            0.7, synaptic_decay=0.6, reset="hard", reset_delay=True, surrogate="atan"
        ),
    ),
    "LIFNode": (
        lambda: node(v_threshold=0.5),
        LIF(0.5, 0.5, reset="hard", decay_input=True, detach_reset=False),
    ),
    "LIFNode, detached": (
        lambda: node(v_threshold=0.5, v_reset=None, detach_reset=True),
        LIF(0.5, 0.5, decay_input=True),
    ),
}


@pytest.mark.parametrize("name", CASES_OF_GRADIENTS)
def test_gradients_of_bptt_are_those_of_another_library(name):
    import torch

    make, layer = CASES_OF_GRADIENTS[name]
    weights = np.random.default_rng(1).normal(size=CURRENTS.shape).astype("float32")
    theirs, currents = make(), torch.tensor(CURRENTS, requires_grad=True)
    spikes = torch.stack([theirs(currents[:, t]) for t in range(T)], dim=1)
    (expected,) = torch.autograd.grad((spikes * torch.tensor(weights)).sum(), currents)
    inputs = keras.Input((30,))
    model = spiking(
        keras.Model(inputs, layer(inputs)), T, gradient="bptt", return_sequences=True
    )
    (gradient,) = gradient_of(
        lambda x: keras.ops.sum(model(x) * keras.ops.convert_to_tensor(weights)),
        [CURRENTS],
    )
    np.testing.assert_allclose(gradient, expected.numpy(), atol=1e-4)


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
    theirs = torch.tensor(distances, requires_grad=True)
    getattr(importlib.import_module(module), name)(**arguments)(theirs).sum().backward()
    ours = surrogate.derivative(keras.ops.convert_to_tensor(distances))
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(ours), theirs.grad.numpy(), atol=1e-5
    )
