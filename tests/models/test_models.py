"""How ready-made networks are built: defaults, starts, padding, normalisations,
editions."""

import math

import keras
import numpy as np
import pytest
import torch
from helpers import BACKEND, chain, to_numpy
from numpy.testing import assert_allclose, assert_array_equal
from torch.nn import functional

import keras_ratesnn as rsnn
from keras_ratesnn import models
from keras_ratesnn.layer_kinds import kind_of
from keras_ratesnn.layers import Neuron, OnlineRenormalization, WSConv2D
from keras_ratesnn.layers.pooling import PaddedMaxPooling2D
from tests.models.test_builders import without_weights

pytestmark = pytest.mark.runs_once

WITH_A_STEM = [models.ResNet18, models.SEWResNet18, models.PreActResNet18]


def for_networks(networks):
    return pytest.mark.parametrize(
        "network", networks, ids=lambda network: network.__name__
    )


def small(network, size=16, **kwargs):
    """A narrow network for small images, quick to train."""
    arguments = {"classes": 3, "timesteps": 2, "width": 0.125, **kwargs}
    return network((size, size, 3), **arguments)


def layers_of(model):
    return {layer.name: layer for layer in model.network.layers}


# Architecture.
@pytest.mark.parametrize(
    ("network", "shape", "timesteps", "neurons"),
    [
        (models.ResNet19, (32, 32, 3), 4, (0.2, 1.0, "soft")),
        (models.VGGSNN, (48, 48, 2), 10, (0.2, 1.0, "soft")),
        (models.MSResNet18, (224, 224, 3), 6, (0.25, pytest.approx(0.5), "hard")),
    ],
)
def test_defaults(network, shape, timesteps, neurons):
    with without_weights():
        model = network()
    assert model.name == network.__name__.lower()
    assert model.network.input_shape == (None, *shape)
    assert (model.timesteps, model.step_mode) == (timesteps, "multi")
    for layer in model.network.layers:
        if isinstance(layer, Neuron):
            assert (layer.decay, layer.threshold, layer.reset) == neurons
        if isinstance(layer, keras.layers.BatchNormalization):
            # Those of PyTorch.
            assert (layer.momentum, layer.epsilon, layer.axis) == (0.9, 1e-5, -1)


@for_networks(WITH_A_STEM)
def test_the_stem_is_chosen_by_the_size_of_the_images(network):
    with without_weights():
        assert [side_after_stem(small(network, size)) for size in (95, 96)] == [95, 24]
        assert side_after_stem(small(network, 96, stem="cifar")) == 96
        assert side_after_stem(small(network, 32, stem="imagenet")) == 8


def side_after_stem(model):
    stem = [layer for layer in model.network.layers if layer.name.startswith("stem_")]
    return stem[-1].output.shape[1]


def test_the_size_of_the_images_can_be_none():
    model = models.VGG11((None, None, 3), classes=3, timesteps=1, width=0.05)
    for size in (16, 21):
        assert model.predict(np.ones((1, size, size, 3)), verbose=0).shape == (1, 3)
    for network in WITH_A_STEM:
        with without_weights():
            model = network((None, None, 3), stem="imagenet")
        assert model.network.input_shape == (None, None, None, 3)


def test_width_multiplies_the_channels():
    with without_weights():
        model = layers_of(models.ResNet19((8, 8, 3), width=0.3))
        narrowest = layers_of(models.VGG11((16, 16, 3), width=1e-6))
    assert model["stem_conv"].kernel.shape[-1] == 38
    assert narrowest["block1_conv1"].kernel.shape[-1] == 1
    assert narrowest["classifier"].kernel.shape[-1] == 10


@pytest.mark.on_each_backend
@pytest.mark.parametrize("size", [4, 5])
def test_max_pooling_pads_as_pytorch_does_and_never_chooses_the_padding(size):
    x = np.random.default_rng(0).uniform(-2, -1, (2, size, size, 3)).astype("float32")
    images = torch.tensor(np.moveaxis(x, -1, 1))
    expected = functional.max_pool2d(images, 3, 2, padding=1).numpy()
    layer = PaddedMaxPooling2D(3, strides=2)
    # Although it overrides `call`.
    assert kind_of(layer).keeps_order
    outputs = to_numpy(layer(x))
    assert outputs.shape == layer.compute_output_shape(x.shape)
    assert_array_equal(np.moveaxis(outputs, -1, 1), expected)


# How networks start.
UNIFORM, NORMAL, WIDE = "uniform", "normal", "wide"
STARTS = [
    (models.ResNet18, "stage2_block1_conv2", UNIFORM, 9 * 64, None),
    (models.ResNet18, "classifier", UNIFORM, 256, 256),
    (models.SEWResNet18, "stage2_block1_conv1", NORMAL, 9 * 64, 9 * 32),
    (models.SEWResNet18, "stage3_block1_shortcut_conv", NORMAL, 128, 64),
    (models.VGG11, "block3_conv1", WIDE, None, 0),
]


@pytest.mark.parametrize(("network", "name", "start", "fan", "bias_fan"), STARTS)
def test_kernels_and_biases_start_as_the_authors_do(
    network, name, start, fan, bias_fan
):
    """Of ResNets as in PyTorch, of SEW and pre-activation ResNets with the variance of
    their fan-out, of VGGs from a wide normal distribution."""
    layer = layers_of(small(network, width=0.5, classes=1000))[name]
    kernel = to_numpy(layer.kernel)
    largest = np.abs(kernel).max()
    if start is UNIFORM:
        assert 0.97 / math.sqrt(fan) < largest <= 1 / math.sqrt(fan)
        expected = 1 / math.sqrt(3 * fan)
    else:
        expected = 0.5 if start is WIDE else math.sqrt(2 / fan)
        assert largest > 3 * kernel.std()
    assert kernel.std() == pytest.approx(expected, rel=0.05)
    if bias_fan is None:
        assert layer.bias is None
        return
    limit = 1 / math.sqrt(bias_fan) if bias_fan else 0.0
    assert 0.8 * limit <= np.abs(to_numpy(layer.bias)).max() <= limit


@pytest.mark.on_each_backend
def test_neurons_of_ms_resnets_spike_above_their_threshold_and_not_at_it():
    with without_weights():
        neuron = layers_of(small(models.MSResNet18))["stage1_block1_neuron1"]
    neuron = type(neuron).from_config(neuron.get_config())
    network = chain(neuron, shape=(3,))
    model = rsnn.SpikingModel(network, timesteps=2, return_sequences=True)
    # 0.5, the next number, and 0.25 · 0.5 + 0.375 in the second step.
    above = np.nextafter(np.float32(0.5), np.float32(1))
    frames = np.array([[[0.5, above, 0.5], [0.5, 0.5, 0.375]]], "float32")
    expected = [[[0, 1, 0], [1, 0, 0]]]
    assert_array_equal(to_numpy(model(frames)), expected)


def test_blocks_of_ms_resnets_add_nothing_at_first():
    for name, layer in layers_of(small(models.MSResNet104)).items():
        if name.endswith("_bn2"):
            assert not to_numpy(layer.gamma).any()
        elif isinstance(layer, keras.layers.BatchNormalization):
            assert set(to_numpy(layer.gamma)) == {0.5}


def test_the_stages_of_ms_resnets_each_halve_the_image():
    with without_weights():
        deep = layers_of(small(models.MSResNet104, 96))
    names = "stem_conv3", "stage1_block1_add", "last_neuron"
    assert [deep[name].output.shape[1] for name in names] == [48, 24, 3]
    assert deep["dropout"].rate == 0.2


@pytest.mark.on_each_backend
def test_the_default_image_has_its_channels_where_the_data_format_says():
    keras.config.set_image_data_format("channels_first")
    if BACKEND == "tensorflow":
        with pytest.raises(ValueError, match=r"\(channels, height, width\)"):
            models.ResNet18((32, 32))
    else:
        with without_weights():
            model = models.SEWResNet18()
        assert model.network.input_shape == (None, 3, 224, 224)


# Other normalisations than batch normalisation.
WITH_A_CHOICE = [models.VGG11, models.VGGSNN, models.ResNet18, models.ResNet19]


def standardised(network, **kwargs):
    return small(network, normalization="weight", **kwargs)


@for_networks(WITH_A_CHOICE)
def test_kernels_are_standardised_and_spikes_scaled(network):
    with without_weights():
        layers = standardised(network).network.layers
    by_name = {layer.name: layer for layer in layers}
    for layer in layers:
        assert not isinstance(layer, keras.layers.BatchNormalization)
        if isinstance(layer, keras.layers.Conv2D):
            assert type(layer) is WSConv2D
            assert layer.use_bias
        if isinstance(layer, Neuron):
            scale = by_name[f"{layer.name}_scale"]
            assert scale.scale == 2.74
            assert scale.input is layer.output
            assert [node.operation for node in layer._outbound_nodes] == [scale]


def test_blocks_divide_by_the_expected_standard_deviation():
    with without_weights():
        layers = standardised(models.ResNet18).network.layers
    betas = [1 / layer.scale for layer in layers if layer.name.endswith("_beta")]
    # Each block adds 0.2² to the variance, from 1 on after the stem and after each
    # convolution in a shortcut.
    assert_allclose(np.square(betas), [1, 1.04, *[1.08, 1.04] * 3, 1.08])


@for_networks(WITH_A_CHOICE)
def test_an_online_network_renormalises_and_stabilises_its_thresholds(network):
    options = {"gradient": "sltt", "step_mode": "single"}
    with without_weights():
        online = layers_of(small(network, normalization="online", **options))
        assert [*online] == [*layers_of(small(network))]
    for layer in online.values():
        if isinstance(layer, keras.layers.BatchNormalization):
            assert type(layer) is OnlineRenormalization
        if isinstance(layer, Neuron):
            assert layer.threshold_stabilizer


# Transformers.


@for_networks([models.Spikformer, models.QKFormer, models.MaxFormer])
def test_the_edition_depends_on_the_image(network):
    tokens = {(28, 28, 1): 49, (124, 128, 2): 992, (160, 128, 1): 80, (128, 128, 2): 64}
    blocks = []
    for shape, number in tokens.items():
        with without_weights():
            model = network(shape, dims=32, blocks=4, heads=2)
        assert tokens_of(model) == number
        names = layers_of(model)
        blocks.append([name for name in names if name.endswith("mlp_add")])
    _, cifar, _, dvs = blocks
    assert (cifar == dvs) == (network is models.Spikformer)


def tokens_of(model):
    return model.network.get_layer("tokens").output.shape[1]


def pools(shape, **arguments):
    """The number of tokens of a Spike-driven Transformer, and where it halves."""
    model = models.SpikeDrivenTransformer(shape, dims=32, blocks=1, **arguments)
    names = layers_of(model)
    halves = [str(int(f"patches{number}_pool" in names)) for number in (1, 2, 3, 4)]
    return tokens_of(model), "".join(halves)


def test_pooling_stat_says_where_a_spike_driven_transformer_halves_images():
    with without_weights():
        assert pools((32, 32, 3)) == (64, "0011")
        assert pools((128, 128, 3)) == (64, "1111")
        assert pools((128, 128, 2)) == (256, "0111")
        assert pools((32, 16, 3), pooling_stat="1101") == (8, "1101")
    message = r"`pooling_stat` must be .* Received: pooling_stat="
    for wrong in ("0012", "0011\n"):
        with pytest.raises(ValueError, match=message):
            models.SpikeDrivenTransformer(pooling_stat=wrong)
    with pytest.raises(ValueError, match="multiples of 16: in the edition 'cifar'"):
        models.SpikeDrivenTransformer((24, 32, 3), pooling_stat="1111")


@for_networks([models.Spikformer, models.SpikeDrivenTransformer])
def test_the_edition_gives_the_default_image(network):
    shapes = {"imagenet": (224, 224, 3), "dvs": (128, 128, 2), None: (32, 32, 3)}
    for edition, shape in shapes.items():
        with without_weights():
            model = network(dims=256, edition=edition)
        assert model.network.input_shape == (None, *shape)
