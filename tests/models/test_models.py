"""The ready-made networks match the paper in size, initialisation and computation, and
can be trained and loaded."""

import itertools
import math

import keras
import numpy as np
import pytest
from helpers import BACKEND, to_numpy

import keras_ratesnn as rsnn
from keras_ratesnn import models
from keras_ratesnn.layer_kinds import kind_of
from keras_ratesnn.layers import LIF
from keras_ratesnn.layers.pooling import PaddedMaxPooling2D

pytestmark = pytest.mark.runs_once

MS_RESNETS = [models.MSResNet18, models.MSResNet34, models.MSResNet104]
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
    if network in MS_RESNETS:
        usual = (0.25, pytest.approx(0.5), "hard")
    for layer in model.network.layers:
        if isinstance(layer, rsnn.layers.Neuron):
            assert (layer.decay, layer.threshold, layer.reset) == usual


@of_networks(WITH_A_STEM)
def test_the_stem_is_chosen_by_the_size_of_the_images(network):
    with without_weights():
        assert [side_after_stem(small(network, size)) for size in (95, 96)] == [95, 24]
        assert side_after_stem(small(network, 96, stem="cifar")) == 96
        model = small(network, 32, stem="imagenet")
    assert side_after_stem(model) == 8
    assert model.network.get_layer("stem_conv").kernel_size == (7, 7)


def side_after_stem(model):
    last = [layer for layer in model.network.layers if layer.name.startswith("stem_")][
        -1
    ]
    return last.output.shape[1]


def test_the_size_of_the_images_can_be_none():
    model = models.VGG11((None, None, 3), classes=3, timesteps=1, width=0.05)
    for size in (16, 21):
        assert model.predict(np.ones((1, size, size, 3)), verbose=0).shape == (1, 3)


@of_networks(WITH_A_STEM)
def test_the_size_of_the_images_can_be_none_if_the_stem_is_given(network):
    with without_weights():
        model = network((None, None, 3), classes=3, stem="imagenet")
    assert model.network.output_shape == (None, 3)


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
    ("network", "name", "size", "kernel"),
    [
        (models.ResNet18, "stage2_block1_conv1", 8, 3),
        (models.ResNet18, "stage2_block1_conv1", 9, 3),
        (models.ResNet18, "stage2_block1_shortcut_conv", 10, 1),
    ],
)
def test_strided_convolutions_have_the_padding_of_pytorch(network, name, size, kernel):
    model = network((size, size, 3), classes=3, timesteps=1, width=1e-6, stem="cifar")
    layer = model.network.get_layer(name)
    # Padding, if it is needed, is a layer of its own.
    start = layer.input
    layers = model.network.layers
    before = next(earlier for earlier in layers if earlier.output is start)
    if isinstance(before, keras.layers.ZeroPadding2D):
        start = before.input
    part = keras.Model(start, layer.output)
    x = np.random.default_rng(0).normal(size=(size, size, 1))
    padded = np.pad(x[..., 0], kernel // 2)
    weights = to_numpy(layer.kernel)[:, :, 0, 0]
    expected = np.zeros(((size + 1) // 2,) * 2)
    for i, j in np.ndindex(expected.shape):
        field = padded[2 * i : 2 * i + kernel, 2 * j : 2 * j + kernel]
        expected[i, j] = (field * weights).sum()
    found = to_numpy(part(x[None].astype("float32")))[0, :, :, 0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.on_each_backend
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("size", [4, 5])
def test_max_pooling_pads_as_pytorch_does_and_never_chooses_the_padding(
    size, data_format
):
    if data_format == "channels_first" and BACKEND == "tensorflow":
        pytest.skip("TensorFlow has no channels_first pooling on a CPU")
    x = np.random.default_rng(0).uniform(-2, -1, (2, size, size, 3)).astype("float32")
    half = (size + 1) // 2
    expected = np.zeros((2, half, half, 3), "float32")
    for i, j in np.ndindex(half, half):
        rows, columns = slice(max(2 * i - 1, 0), 2 * i + 2), max(2 * j - 1, 0)
        expected[:, i, j] = x[:, rows, columns : 2 * j + 2].max(axis=(1, 2))
    layer = PaddedMaxPooling2D(3, strides=2, data_format=data_format)
    layer = PaddedMaxPooling2D.from_config(layer.get_config())
    # Although it overrides `call`.
    assert kind_of(layer).keeps_order
    if data_format == "channels_first":
        x, expected = x.transpose(0, 3, 1, 2), expected.transpose(0, 3, 1, 2)
    outputs = to_numpy(layer(x))
    assert outputs.shape == layer.compute_output_shape(x.shape)
    np.testing.assert_array_equal(outputs, expected)


# How networks start.
def test_resnets_have_the_initialisation_of_pytorch():
    layers = layers_of(models.ResNet18((8, 8, 3), width=0.5))
    for name, fan_in in [
        ("stage2_block1_conv2", 9 * 64),
        ("stage3_block1_shortcut_conv", 64),
        ("classifier", 256),
    ]:
        kernel = to_numpy(layers[name].kernel)
        assert 0.97 / math.sqrt(fan_in) < np.abs(kernel).max() <= 1 / math.sqrt(fan_in)
        assert kernel.std() == pytest.approx(1 / math.sqrt(3 * fan_in), rel=0.05)
    bias = to_numpy(layers["classifier"].bias)
    assert 0 < np.abs(bias).max() <= 1 / math.sqrt(256)
    assert not [
        name
        for name, layer in layers.items()
        if "conv" in name and getattr(layer, "use_bias", False)
    ]
    first, second = (
        to_numpy(layers[f"stage2_block2_conv{number}"].kernel) for number in (1, 2)
    )
    assert not np.array_equal(first, second)


@of_networks([models.SEWResNet18, models.PreActResNet18])
def test_sew_and_preact_resnets_start_with_the_variance_of_their_fan_out(network):
    layers = layers_of(small(network, width=0.5, classes=1000))
    for name, fan_in, fan_out in [
        ("stage2_block1_conv1", 9 * 32, 9 * 64),
        ("stage3_block1_shortcut_conv", 64, 128),
    ]:
        kernel, bias = to_numpy(layers[name].kernel), to_numpy(layers[name].bias)
        assert kernel.std() == pytest.approx(math.sqrt(2 / fan_out), rel=0.05)
        assert np.abs(kernel).max() > 3 * kernel.std()
        assert 0.8 / math.sqrt(fan_in) < np.abs(bias).max() <= 1 / math.sqrt(fan_in)
    assert to_numpy(layers["classifier"].kernel).std() == pytest.approx(
        1 / math.sqrt(3 * 256), rel=0.05
    )


@pytest.mark.on_each_backend
def test_vggs_start_from_a_wide_normal_distribution():
    layers = layers_of(small(models.VGG11, width=0.5, classes=1000))
    for name in ("block3_conv1", "classifier"):
        assert to_numpy(layers[name].kernel).std() == pytest.approx(0.5, rel=0.05)
        assert not to_numpy(layers[name].bias).any()


def test_normalisations_have_the_defaults_of_pytorch():
    with without_weights():
        layers = models.PreActResNet18().network.layers
    kind = keras.layers.BatchNormalization
    found = [layer for layer in layers if isinstance(layer, kind)]
    facts = {(layer.momentum, layer.epsilon, layer.axis) for layer in found}
    assert facts == {(0.9, 1e-5, -1)}


# The hidden neurons of a ResNet-19 start silent: no normalisation precedes them, and
# PyTorch's default start is small.
@pytest.mark.on_each_backend
@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_neurons_of_ms_resnets_spike_above_their_threshold_and_not_at_it(precision):
    keras.config.set_dtype_policy(precision)
    with without_weights():
        resnet = small(models.MSResNet18)
    neuron = resnet.network.get_layer("stage1_block1_neuron1")
    inputs = keras.Input((3,))
    currents = keras.layers.Rescaling(1.0)(inputs)
    network = keras.Model(
        inputs, type(neuron).from_config(neuron.get_config())(currents)
    )
    model = rsnn.SpikingModel(network, timesteps=2, return_sequences=True)
    # 0.5, the next number, which is 0.5 in half precision, and 0.25 · 0.5 + 0.375 in
    # the second step.
    above = np.nextafter(np.float32(0.5), np.float32(1))
    frames = np.array([[[0.5, above, 0.5], [0.5, 0.5, 0.375]]], "float32")
    expected = [[0, 0, 0], [1, 1, 0]]
    if precision == "float32":
        expected = [[0, 1, 0], [1, 0, 0]]
    found = to_numpy(model(frames))[0].astype("float32")
    np.testing.assert_array_equal(found, expected)


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


"""Those of functions that are no networks; a network has `input_shape`."""


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


def test_a_vggsnn_without_its_top_needs_no_size_of_its_images():
    with without_weights():
        model = models.VGGSNN((None, 48, 2), include_top=False)
    assert model.network.output_shape[:3] == (None, None, 3)
