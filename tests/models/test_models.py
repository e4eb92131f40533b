"""How ready-made networks are built: defaults, starts, padding, normalisations,
editions."""

import itertools
import math

import keras
import numpy as np
import pytest
import torch
from helpers import BACKEND, assert_trains, data, to_numpy
from torch.nn import functional

import keras_ratesnn as rsnn
from keras_ratesnn import models
from keras_ratesnn.layer_kinds import kind_of
from keras_ratesnn.layers import LIF
from keras_ratesnn.layers.pooling import PaddedMaxPooling2D

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


@for_networks(WITH_A_STEM)
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


@for_networks([models.PreActResNet18, models.ResNet19, models.VGG11, models.VGGSNN])
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


# Other normalisations than batch normalisation.
WITH_A_CHOICE = [models.VGG11, models.VGGSNN, models.ResNet18, models.ResNet19]


def standardised(network, **kwargs):
    return small(network, normalization="weight", **kwargs)


@for_networks(WITH_A_CHOICE)
def test_kernels_are_standardised_and_spikes_scaled(network):
    with without_weights():
        layers = standardised(network).network.layers
    for layer in layers:
        assert not isinstance(layer, keras.layers.BatchNormalization)
        if isinstance(layer, keras.layers.Conv2D):
            assert type(layer) is rsnn.layers.WSConv2D
            assert layer.use_bias
    by_name = {layer.name: layer for layer in layers}
    neurons = [layer for layer in layers if isinstance(layer, rsnn.layers.Neuron)]
    for neuron in neurons:
        scale = by_name[f"{neuron.name}_scale"]
        assert scale.scale == 2.74
        assert scale.input is neuron.output
        assert [node.operation for node in neuron._outbound_nodes] == [scale]


def test_blocks_divide_by_the_expected_standard_deviation():
    with without_weights():
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


@for_networks(WITH_A_CHOICE)
def test_an_online_network_renormalises_and_stabilises_its_thresholds(network):
    options = {"gradient": "sltt", "step_mode": "single"}
    with without_weights():
        model = small(network, normalization="online", **options)
        plain = small(network)
    online = model.network.layers
    names = [layer.name for layer in plain.network.layers]
    assert [layer.name for layer in online] == names
    for layer in online:
        if isinstance(layer, keras.layers.BatchNormalization):
            assert type(layer) is rsnn.layers.OnlineRenormalization
        if isinstance(layer, rsnn.layers.Neuron):
            assert layer.threshold_stabilizer


# Transformers.
TRANSFORMERS = [models.Spikformer, models.QKFormer, models.MaxFormer]


def tokens_network(network, **kwargs):
    arguments = {"classes": 3, "timesteps": 2, "dims": 32, "blocks": 4, "heads": 2}
    return network((16, 16, 3), **{**arguments, **kwargs})


@for_networks(TRANSFORMERS)
def test_the_edition_depends_on_the_image(network):
    tokens = {(28, 28, 1): 49, (124, 128, 2): 992, (160, 128, 1): 80, (128, 128, 2): 64}
    with without_weights():
        actual = {shape: network(shape, dims=32, blocks=4, heads=2) for shape in tokens}
    assert {shape: tokens_of(model) for shape, model in actual.items()} == tokens
    cifar, dvs = block_names(actual[124, 128, 2]), block_names(actual[128, 128, 2])
    assert (cifar == dvs) == (network is models.Spikformer)


def block_names(model):
    names = [layer.name for layer in model.network.layers]
    return [name for name in names if name.endswith("mlp_add")]


def tokens_of(model):
    return model.network.get_layer("tokens").output.shape[1]


def pools(shape, **arguments):
    """The number of tokens of a Spike-driven Transformer, and where it halves."""
    model = models.SpikeDrivenTransformer(shape, dims=32, blocks=1, **arguments)
    names = [layer.name for layer in model.network.layers]
    assert names.index("patches4_pool") < names.index("patches4_neuron")
    if "patches3_pool" in names:
        assert names.index("patches3_neuron") < names.index("patches3_pool")
    halves = [f"patches{number}_pool" in names for number in (1, 2, 3, 4)]
    return tokens_of(model), "".join(str(int(value)) for value in halves)


def test_pooling_stat_says_where_a_spike_driven_transformer_halves_images():
    with without_weights():
        assert pools((32, 32, 3)) == (64, "0011")
        assert pools((128, 128, 3)) == (64, "1111")
        assert pools((128, 128, 2)) == (256, "0111")
        assert pools((32, 16, 3), pooling_stat="1101") == (8, "1101")
    message = r"`pooling_stat` must be .* Received: pooling_stat="
    for wrong in ("011", "0012", "0011\n", 11):
        with pytest.raises((ValueError, TypeError), match=message):
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
    assert model.name == network.__name__.lower()


@for_networks([*TRANSFORMERS, models.SpikeDrivenTransformer])
def test_measurements_see_the_neurons_of_attention(network):
    model, x = tokens_network(network), data(4, (16, 16, 3))[0]
    described = rsnn.describe(model, x, verbose=False)
    assert "attention_query_neuron" in str(described)
    counted = described.energy
    attention = [name for name in counted.layers if "attention" in name]
    parts = {name.rsplit("_", 1)[-1] for name in attention}
    assert parts >= {"query", "key", "output"}
    assert counted.not_counted == ()


def test_heads_of_maxformer_divide_the_channels_of_the_stage_with_attention_alone():
    model = tokens_network(models.MaxFormer, heads=16, blocks=3)
    attention = model.network.get_layer("stage3_block1_attention_neuron")
    assert attention.output.shape == (None, 16, 16, 2)
