"""The ready-made networks with normalisations other than batch normalisation."""

import keras
import numpy as np
import pytest
from helpers import assert_trains, data

import keras_ratesnn as rsnn
from keras_ratesnn import models

pytestmark = pytest.mark.runs_once

WITH_A_CHOICE = [models.VGG11, models.VGGSNN, models.ResNet18, models.ResNet19]


def of_networks(networks):
    return pytest.mark.parametrize(
        "network", networks, ids=lambda network: network.__name__
    )


def standardised(network, size=16, classes=3, timesteps=2, width=0.125, **kwargs):
    return network(
        (size, size, 3),
        classes=classes,
        timesteps=timesteps,
        width=width,
        normalization="weight",
        **kwargs,
    )


@of_networks(WITH_A_CHOICE)
def test_kernels_are_standardised_and_spikes_scaled(network):
    with keras.StatelessScope(initialize_variables=False):
        layers = standardised(network).network.layers
    assert not [
        layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)
    ]
    convolutions = [layer for layer in layers if isinstance(layer, keras.layers.Conv2D)]
    assert {(type(layer), layer.use_bias) for layer in convolutions} == {
        (rsnn.layers.WSConv2D, True)
    }
    by_name = {layer.name: layer for layer in layers}
    neurons = [layer for layer in layers if isinstance(layer, rsnn.layers.Neuron)]
    for neuron in neurons:
        scale = by_name[f"{neuron.name}_scale"]
        assert scale.scale == 2.74
        assert scale.input is neuron.output
        assert [node.operation for node in neuron._outbound_nodes] == [scale]


def test_blocks_divide_by_the_expected_standard_deviation():
    with keras.StatelessScope(initialize_variables=False):
        layers = standardised(models.ResNet18).network.layers
    betas = [1 / layer.scale for layer in layers if layer.name.endswith("_beta")]
    # Each block adds 0.2² to the variance, from 1 on after the stem and after each
    # convolution in a shortcut.
    np.testing.assert_allclose(np.square(betas), [1, 1.04, *[1.08, 1.04] * 3, 1.08])


def test_currents_keep_their_variance_through_a_normaliser_free_network():
    neuron = rsnn.layers.LIF
    model = standardised(models.ResNet18, width=0.5, neuron=lambda: neuron(0.5))
    x = np.random.default_rng(0).normal(size=(4, 16, 16, 3)).astype("float32")
    ends = ("_beta", "_conv1")
    layers = [layer for layer in model.network.layers if layer.name.endswith(ends)]
    network = keras.Model(model.network.inputs, [layer.output for layer in layers])
    part = rsnn.SpikingModel(network, 4, return_sequences=True)
    variances = [output.var() for output in part.predict(x, verbose=0)]
    assert min(variances) > 0.4
    assert max(variances) < 2.0


@pytest.mark.on_each_backend
def test_a_training_step_reaches_every_kernel():
    """A VGG needs a low threshold, because its pooling removes the variance of these
    small noise images."""
    model = standardised(models.VGG11, neuron=lambda: rsnn.layers.LIF(0.5, 0.3))
    x, y = data(4, (16, 16, 3))
    assert_trains(model, 3 * x, y)


@of_networks(WITH_A_CHOICE)
def test_an_online_network_renormalises_and_stabilises_its_thresholds(network):
    options = {"classes": 3, "timesteps": 2, "width": 0.125}
    with keras.StatelessScope(initialize_variables=False):
        model = network(
            (16, 16, 3),
            gradient="sltt",
            step_mode="single",
            normalization="online",
            **options,
        )
        plain = network((16, 16, 3), **options)
    online = model.network.layers
    names = [layer.name for layer in plain.network.layers]
    assert [layer.name for layer in online] == names
    for layer in online:
        if isinstance(layer, keras.layers.BatchNormalization):
            assert type(layer) is rsnn.layers.OnlineRenormalization
        if isinstance(layer, rsnn.layers.Neuron):
            assert layer.threshold_stabilizer
