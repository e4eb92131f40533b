"""The ready-made networks match the paper in size, initialisation and computation, and
can be trained and loaded."""

import itertools
import math

import keras
import numpy as np
import pytest
import torch
from helpers import BACKEND, to_numpy
from torch.nn import functional

import keras_ratesnn as rsnn
from keras_ratesnn import models
from keras_ratesnn.layer_kinds import kind_of
from keras_ratesnn.layers import LIF
from keras_ratesnn.layers.pooling import PaddedMaxPooling2D

pytestmark = pytest.mark.runs_once

WITH_A_STEM = [models.ResNet18, models.SEWResNet18, models.PreActResNet18]


def of_networks(networks):
    return pytest.mark.parametrize(
        "network", networks, ids=lambda network: network.__name__
    )


def small(network, size=16, **kwargs):
    """A narrow network for small images, quick to train."""
    arguments = {"classes": 3, "timesteps": 2, "width": 0.125, **kwargs}
    return network((size, size, 3), **arguments)


def without_weights():
    """A context in which networks are built without drawing weights, which takes most
    of the time."""
    return keras.StatelessScope(initialize_variables=False)


def layers_of(model):
    return {layer.name: layer for layer in model.network.layers}


# Architecture.
@pytest.mark.parametrize(
    ("network", "shape", "classes", "timesteps"),
    [
        (models.ResNet18, (32, 32, 3), 10, 4),
        (models.ResNet19, (32, 32, 3), 10, 4),
        (models.VGG11, (32, 32, 3), 10, 4),
        (models.VGGSNN, (48, 48, 2), 10, 10),
        (models.SEWResNet18, (224, 224, 3), 1000, 4),
        (models.PreActResNet18, (224, 224, 3), 1000, 4),
        (models.MSResNet18, (224, 224, 3), 1000, 6),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_defaults(network, shape, classes, timesteps):
    with without_weights():
        model = network()
    assert isinstance(model, rsnn.SpikingModel)
    assert model.name == network.__name__.lower()
    assert model.network.input_shape == (None, *shape)
    assert model.network.output_shape == (None, classes)
    assert (model.timesteps, model.step_mode) == (timesteps, "multi")
    assert isinstance(model.gradient, rsnn.gradients.Rate)
    usual = (0.2, 1.0, "soft")
    if network is models.MSResNet18:
        usual = (0.25, pytest.approx(0.5), "hard")
    normalization = keras.layers.BatchNormalization
    for layer in model.network.layers:
        if isinstance(layer, rsnn.layers.Neuron):
            assert (layer.decay, layer.threshold, layer.reset) == usual
        if isinstance(layer, normalization):
            # Those of PyTorch.
            assert (layer.momentum, layer.epsilon, layer.axis) == (0.9, 1e-5, -1)


@of_networks(WITH_A_STEM)
def test_the_stem_is_chosen_by_the_size_of_the_images(network):
    with without_weights():
        assert [side_after_stem(small(network, size)) for size in (95, 96)] == [95, 24]
        assert side_after_stem(small(network, 96, stem="cifar")) == 96
        model = small(network, 32, stem="imagenet")
    assert side_after_stem(model) == 8
    assert model.network.get_layer("stem_conv").kernel_size == (7, 7)


def side_after_stem(model):
    stem = [layer for layer in model.network.layers if layer.name.startswith("stem_")]
    return stem[-1].output.shape[1]


def test_the_size_of_the_images_can_be_none():
    model = models.VGG11((None, None, 3), classes=3, timesteps=1, width=0.05)
    for size in (16, 21):
        assert model.predict(np.ones((1, size, size, 3)), verbose=0).shape == (1, 3)
    with without_weights():
        for network in WITH_A_STEM:
            model = network((None, None, 3), classes=3, stem="imagenet")
            assert model.network.output_shape == (None, 3)
        model = models.VGGSNN((None, 48, 2), include_top=False)
    assert model.network.output_shape[:3] == (None, None, 3)


@of_networks([models.PreActResNet18, models.ResNet19, models.VGG11, models.VGGSNN])
def test_without_the_top_a_network_gives_its_last_feature_map(network):
    with without_weights():
        model = network((32, 32, 3), include_top=False)
    top = {"pool", "flatten", "hidden", "hidden_neuron", "classifier"}
    assert top.isdisjoint(layers_of(model))
    side = {"ResNet19": 8, "PreActResNet18": 4}.get(network.__name__, 2)
    assert model.network.output_shape == (None, side, side, 512)


def test_width_multiplies_the_channels():
    with without_weights():
        model = layers_of(models.ResNet19((8, 8, 3), width=0.3))
        narrowest = layers_of(models.VGG11((16, 16, 3), width=1e-6))
    expected = {"stem_conv": 38, "stage2_block1_conv1": 77, "classifier": 10}
    expected |= {"stage3_block2_conv2": 154, "hidden": 77}
    for name, channels in expected.items():
        assert model[name].kernel.shape[-1] == channels
    kernels = [layer for layer in narrowest.values() if hasattr(layer, "kernel")]
    assert {layer.kernel.shape[-1] for layer in kernels} == {1, 10}


@pytest.mark.on_each_backend
@pytest.mark.parametrize(
    ("name", "size", "kernel"),
    [
        ("stage2_block1_conv1", 8, 3),
        ("stage2_block1_conv1", 9, 3),
        ("stage2_block1_shortcut_conv", 10, 1),
    ],
)
def test_strided_convolutions_have_the_padding_of_pytorch(name, size, kernel):
    images, narrow = (size, size, 3), {"width": 1e-6, "stem": "cifar"}
    network = models.ResNet18(images, classes=3, timesteps=1, **narrow).network
    layer = network.get_layer(name)
    start = layer.input
    (before,) = [earlier for earlier in network.layers if earlier.output is start]
    if isinstance(before, keras.layers.ZeroPadding2D):
        start = before.input
    part = keras.Model(start, layer.output)
    x = torch.randn((1, 1, size, size), generator=torch.Generator().manual_seed(0))
    weight = torch.tensor(to_numpy(layer.kernel)).permute(3, 2, 0, 1)
    expected = functional.conv2d(x, weight, stride=2, padding=kernel // 2)
    outputs = to_numpy(part(np.moveaxis(x.numpy(), 1, -1)))
    expected = np.moveaxis(expected.numpy(), 1, -1)
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.on_each_backend
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("size", [4, 5])
def test_max_pooling_pads_as_pytorch_does_and_never_chooses_the_padding(
    size, data_format
):
    if data_format == "channels_first" and BACKEND == "tensorflow":
        pytest.skip("TensorFlow has no channels_first pooling on a CPU")
    x = np.random.default_rng(0).uniform(-2, -1, (2, 3, size, size)).astype("float32")
    expected = functional.max_pool2d(torch.tensor(x), 3, 2, padding=1).numpy()
    layer = PaddedMaxPooling2D(3, strides=2, data_format=data_format)
    layer = PaddedMaxPooling2D.from_config(layer.get_config())
    # Although it overrides `call`.
    assert kind_of(layer).keeps_order
    if data_format == "channels_last":
        x, expected = np.moveaxis(x, 1, -1), np.moveaxis(expected, 1, -1)
    outputs = to_numpy(layer(x))
    assert outputs.shape == layer.compute_output_shape(x.shape)
    np.testing.assert_array_equal(outputs, expected)


# How networks start.
UNIFORM, NORMAL, WIDE = "uniform", "normal", "wide"
STARTS = [
    (models.ResNet18, "stage2_block1_conv2", UNIFORM, 9 * 64, None),
    (models.ResNet18, "stage3_block1_shortcut_conv", UNIFORM, 64, None),
    (models.ResNet18, "classifier", UNIFORM, 256, 256),
    (models.SEWResNet18, "stage2_block1_conv1", NORMAL, 9 * 64, 9 * 32),
    (models.SEWResNet18, "stage3_block1_shortcut_conv", NORMAL, 128, 64),
    (models.SEWResNet18, "classifier", UNIFORM, 256, 256),
    (models.PreActResNet18, "stage2_block1_conv1", NORMAL, 9 * 64, 9 * 32),
    (models.PreActResNet18, "classifier", UNIFORM, 256, 256),
    (models.VGG11, "block3_conv1", WIDE, None, 0),
    (models.VGG11, "classifier", WIDE, None, 0),
]


@pytest.mark.parametrize(("network", "name", "start", "fan", "bias_fan"), STARTS)
def test_kernels_and_biases_start_as_the_authors_do(
    network, name, start, fan, bias_fan
):
    """Of ResNets as in PyTorch, of SEW and pre-activation ResNets with the variance of
    their fan-out, of VGGs from a wide normal distribution."""
    layers = layers_of(small(network, width=0.5, classes=1000))
    kernel, bias = to_numpy(layers[name].kernel), layers[name].bias
    largest = np.abs(kernel).max()
    if start is UNIFORM:
        assert 0.97 / math.sqrt(fan) < largest <= 1 / math.sqrt(fan)
        expected = 1 / math.sqrt(3 * fan)
    else:
        expected = 0.5 if start is WIDE else math.sqrt(2 / fan)
        assert largest > 3 * kernel.std()
    assert kernel.std() == pytest.approx(expected, rel=0.05)
    if bias_fan is None:
        assert bias is None
    elif bias_fan == 0:
        assert not to_numpy(bias).any()
    else:
        limit = 1 / math.sqrt(bias_fan)
        assert 0.8 * limit < np.abs(to_numpy(bias)).max() <= limit


@pytest.mark.on_each_backend
@pytest.mark.parametrize(
    ("precision", "expected"),
    [
        ("float32", [[0, 1, 0], [1, 0, 0]]),
        ("mixed_bfloat16", [[0, 0, 0], [1, 1, 0]]),
    ],
)
def test_neurons_of_ms_resnets_spike_above_their_threshold_and_not_at_it(
    precision, expected
):
    keras.config.set_dtype_policy(precision)
    with without_weights():
        neuron = layers_of(small(models.MSResNet18))["stage1_block1_neuron1"]
    inputs = keras.Input((3,))
    neuron = type(neuron).from_config(neuron.get_config())
    network = keras.Model(inputs, neuron(keras.layers.Rescaling(1.0)(inputs)))
    model = rsnn.SpikingModel(network, timesteps=2, return_sequences=True)
    # 0.5, the next number, which is 0.5 in half precision, and 0.25 · 0.5 + 0.375 in
    # the second step.
    above = np.nextafter(np.float32(0.5), np.float32(1))
    frames = np.array([[[0.5, above, 0.5], [0.5, 0.5, 0.375]]], "float32")
    spikes = to_numpy(model(frames))[0].astype("float32")
    np.testing.assert_array_equal(spikes, expected)


def test_blocks_of_ms_resnets_add_nothing_at_first():
    for name, layer in layers_of(small(models.MSResNet104)).items():
        if name.endswith("_bn2"):
            assert not to_numpy(layer.gamma).any()
        elif isinstance(layer, keras.layers.BatchNormalization):
            assert set(to_numpy(layer.gamma)) == {0.5}


def test_the_stages_of_ms_resnets_each_halve_the_image():
    with without_weights():
        deep = layers_of(small(models.MSResNet104, 96))
        usual = layers_of(small(models.MSResNet18, 96))
        with pytest.raises(ValueError, match="at least 16"):
            small(models.MSResNet18, 8)
    for layers, stem in ((deep, "stem_conv3"), (usual, "stem_conv")):
        names = stem, "stage1_block1_add", "last_neuron"
        assert [layers[name].output.shape[1] for name in names] == [48, 24, 3]
    assert usual["stem_conv"].kernel_size == (7, 7)
    assert not [name for name in usual if "pool" in name and name != "pool"]
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


def test_neurons_are_made_by_the_function_given_and_named_by_the_network():
    numbers = itertools.count(1)

    def neuron():
        return LIF(threshold=1 / next(numbers), name="mine")

    with without_weights():
        model = small(models.VGG11, neuron=neuron)
    neurons = [layer for layer in model.network.layers if isinstance(layer, LIF)]
    assert [1 / layer.threshold for layer in neurons] == pytest.approx(range(1, 9))
    names = [layer.name for layer in neurons[:3]]
    assert names == ["block1_neuron1", "block2_neuron1", "block2_neuron2"]
