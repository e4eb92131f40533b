"""Neurons of snnTorch and SpikingJelly spike as those of this library that stand for them, step for step."""

import keras
import numpy as np
import pytest
from helpers import spiking

from keras_ratesnn.layers import IF, LIF, CuBaLIF

T = 12
# A random membrane never equals its threshold, where snnTorch does not spike and this library does.
CURRENTS = np.random.default_rng(0).normal(0.6, 1.0, (20, T, 30)).astype("float32")


def leaky(**kwargs):
    from snntorch import Leaky

    return Leaky(beta=0.8, init_hidden=True, **kwargs)


def synaptic(**kwargs):
    from snntorch import Synaptic

    return Synaptic(alpha=0.6, beta=0.7, init_hidden=True, **kwargs)


def node(**kwargs):
    from spikingjelly.activation_based.neuron import LIFNode

    return LIFNode(**kwargs)


def integrator(**kwargs):
    from spikingjelly.activation_based.neuron import IFNode

    return IFNode(**kwargs)


CASES = {
    "Leaky": (leaky, LIF(0.8, reset_delay=True)),
    "Leaky that learns its threshold": (
        lambda: leaky(threshold=0.7, learn_threshold=True),
        LIF(0.8, 0.7, learn_threshold=True, reset_delay=True),
    ),
    "Leaky, to zero": (lambda: leaky(reset_mechanism="zero"), LIF(0.8, reset="hard")),
    "Leaky, to zero, at once": (lambda: leaky(reset_mechanism="zero", reset_delay=False), LIF(0.8, reset="hard")),
    "Synaptic": (synaptic, CuBaLIF(0.7, synaptic_decay=0.6, reset_delay=True)),
    "Synaptic, to zero": (
        lambda: synaptic(reset_mechanism="zero"),
        CuBaLIF(0.7, synaptic_decay=0.6, reset="hard", reset_delay=True),
    ),
    "LIFNode": (lambda: node(v_threshold=0.5), LIF(0.5, 0.5, reset="hard", decay_input=True)),
    "LIFNode, soft": (lambda: node(tau=4.0, v_threshold=0.5, v_reset=None), LIF(0.75, 0.5, decay_input=True)),
    "LIFNode without decay_input": (lambda: node(tau=5.0, decay_input=False), LIF(0.8, reset="hard")),
    "IFNode": (integrator, IF(reset="hard")),
}


@pytest.mark.parametrize("name", CASES)
def test_spikes_are_those_of_another_library(name):
    import torch

    make, layer = CASES[name]
    theirs = make()
    with torch.no_grad():
        spikes = np.stack([theirs(torch.tensor(CURRENTS[:, t])).numpy() for t in range(T)], axis=1)
    assert 0.05 < spikes.mean() < 0.95
    inputs = keras.Input((30,))
    model = spiking(keras.Model(inputs, layer(inputs)), T, return_sequences=True)
    np.testing.assert_array_equal(model.predict(CURRENTS, verbose=0), spikes)
