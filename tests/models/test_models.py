"""The ready-made networks match the paper in size, initialisation and computation, and
can be trained and loaded."""

import graphlib
import inspect
import itertools
import math
import re

import helpers
import keras
import numpy as np
import pytest
from helpers import BACKEND, assert_trains, saved_and_loaded, to_numpy

import keras_ratesnn as rsnn
from keras_ratesnn import models
from keras_ratesnn.layer_kinds import kind_of
from keras_ratesnn.layers import LIF, ParametricLIF
from keras_ratesnn.layers.pooling import PaddedMaxPooling2D
from keras_ratesnn.models import _blocks, _initializers, ms_resnet

pytestmark = pytest.mark.runs_once

TRANSFORMERS = [
    *(
        models.Spikformer,
        models.QKFormer,
        models.MaxFormer,
        models.ESpikeFormer,
        models.ESpikeFormerLarge,
    ),
    *(models.SpikeDrivenTransformer, models.MetaSpikeFormer, models.SpikingResformer),
]
EVERY_NETWORK = [
    network
    for network in (
        getattr(models, name) for name in models.__all__ if name[0].isupper()
    )
    if network not in TRANSFORMERS
]
ONE_OF_A_KIND = [
    models.ResNet18,
    models.SEWResNet18,
    models.PreActResNet18,
    models.VGG11,
]
MS_RESNETS = [models.MSResNet18, models.MSResNet34, models.MSResNet104]
WITH_A_STEM = [
    models.ResNet18,
    models.ResNet19,
    models.SEWResNet18,
    models.PreActResNet18,
]


def of_networks(networks):
    return pytest.mark.parametrize(
        "network", networks, ids=lambda network: network.__name__
    )


without_channels_first_on_cpu = pytest.mark.skipif(
    BACKEND == "tensorflow",
    reason="TensorFlow has no channels_first convolutions on a CPU",
)


def small(network, size=16, channels=3, classes=3, timesteps=2, width=0.125, **kwargs):
    """A narrow network for small images, quick to train."""
    return network(
        (size, size, channels),
        classes=classes,
        timesteps=timesteps,
        width=width,
        **kwargs,
    )


def without_weights():
    """A context in which networks are built without drawing weights, which takes most
    of the time."""
    return keras.StatelessScope(initialize_variables=False)


def images(size=16, channels=3, samples=4, classes=3):
    return helpers.data(samples, (size, size, channels), classes)


def parameters(variables):
    return sum(math.prod(variable.shape) for variable in variables)


def layers_of(model):
    return {layer.name: layer for layer in model.network.layers}


# Arguments.
def test_arguments_have_one_order_in_all_functions_and_are_passed_by_name():
    before = {}
    for name in models.__all__:
        parameters = inspect.signature(getattr(models, name)).parameters.values()
        by_name = [
            parameter.name
            for parameter in parameters
            if parameter.kind is parameter.KEYWORD_ONLY
        ]
        for one, other in itertools.pairwise(by_name):
            before.setdefault(other, set()).add(one)
        if name[0].isupper():
            assert [
                parameter.name
                for parameter in parameters
                if parameter.name not in by_name
            ] == ["input_shape"]
    # Raises an error that names the circle.
    graphlib.TopologicalSorter(before).prepare()


@pytest.mark.parametrize(
    "network", [*EVERY_NETWORK, *TRANSFORMERS], ids=lambda network: network.__name__
)
def test_the_signature_of_a_network_has_each_argument_with_its_default(network):
    parameters = dict(inspect.signature(network).parameters)
    assert parameters["gradient"].default == "rate"
    assert {
        "classes",
        "timesteps",
        "neuron",
        "step_mode",
        "weights",
        "name",
    } <= parameters.keys()
    assert not [
        name
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty
    ]
    with pytest.raises(TypeError, match="depth"):
        network(depth=3)
    with pytest.raises(TypeError, match="positional"):
        network((32, 32, 3), 10)


def test_arguments_that_are_described_are_those_that_networks_take():
    """`ResNet18` and `Spikformer` describe the arguments of the other networks of their
    kind, too."""
    of_spikformer = [models.QKFormer, models.MaxFormer, models.SpikeDrivenTransformer]
    for network, others in (
        (models.ResNet18, EVERY_NETWORK),
        (models.Spikformer, of_spikformer),
    ):
        described = re.findall(
            r"^        (\w+): ", network.__doc__.partition("Returns:")[0], re.MULTILINE
        )
        for other in (network, *others):
            taken = inspect.signature(other).parameters
            assert network is models.Spikformer or set(taken) <= set(described)
            ordered = [name for name in described if name in taken]
            assert ordered == [name for name in taken if name in described]


# Architecture.
@pytest.mark.parametrize(
    ("network", "classes", "expected"),
    [
        (models.ResNet18, 10, 11_173_962),
        (models.ResNet18, 100, 11_220_132),
        (models.ResNet19, 10, 12_697_994),
        (models.VGG11, 10, 11_001_354),
        (models.VGG13, 100, 9_462_180),
        (models.VGGSNN, 10, 9_271_498),
        (models.SEWResNet34, 1000, 21_806_184),
        (models.PreActResNet34, 1000, 21_806_184),
        (models.MSResNet18, 1000, 11_693_736),
        (models.MSResNet34, 1000, 21_801_896),
        (models.MSResNet104, 1000, 77_350_504),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_the_number_of_trainable_parameters_is_that_of_the_authors(
    network, classes, expected
):
    with without_weights():
        assert parameters(network(classes=classes).trainable_variables) == expected


@pytest.mark.parametrize("depth", [50, 101, 152])
def test_deep_sew_resnets_have_the_layers_of_keras_resnets(depth):
    # They, too, have a bias in every convolution, and their strides change no size.
    with without_weights():
        ours, theirs = (
            getattr(models, f"SEWResNet{depth}")(),
            getattr(keras.applications, f"ResNet{depth}")(weights=None),
        )
    assert parameters(ours.trainable_variables) == parameters(
        theirs.trainable_variables
    )


@pytest.mark.parametrize(
    ("network", "shape", "classes", "timesteps"),
    [
        *(
            (network, (32, 32, 3), 10, 4)
            for network in (models.ResNet18, models.ResNet19, models.ResNet34)
        ),
        *(
            (network, (32, 32, 3), 10, 4)
            for network in (models.VGG11, models.VGG13, models.VGG16)
        ),
        (models.VGGSNN, (48, 48, 2), 10, 10),
        *(
            (network, (224, 224, 3), 1000, 4)
            for network in (models.SEWResNet18, models.SEWResNet34, models.SEWResNet101)
        ),
        *(
            (network, (224, 224, 3), 1000, 4)
            for network in (models.PreActResNet18, models.PreActResNet34)
        ),
        *((network, (224, 224, 3), 1000, 6) for network in MS_RESNETS),
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
    neurons = [
        layer for layer in model.network.layers if isinstance(layer, rsnn.layers.Neuron)
    ]
    usual = (
        (0.25, pytest.approx(0.5), "hard")
        if network in MS_RESNETS
        else (0.2, 1.0, "soft")
    )
    assert all(
        (neuron.decay, neuron.threshold, neuron.reset) == usual for neuron in neurons
    )


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
@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_the_size_of_the_images_can_be_none_if_the_stem_is_given(network, stem):
    with without_weights():
        model = network((None, None, 3), classes=3, stem=stem)
    assert model.network.output_shape == (None, 3)


@of_networks([*ONE_OF_A_KIND, models.ResNet19, models.VGGSNN])
def test_without_the_top_a_network_gives_its_last_feature_map(network):
    with without_weights():
        model = network((32, 32, 3), include_top=False)
    assert not {"pool", "flatten", "hidden", "hidden_neuron", "classifier"} & set(
        layers_of(model)
    )
    side = {"ResNet19": 8, "VGG11": 2, "VGGSNN": 2}.get(network.__name__, 4)
    assert model.network.output_shape == (None, side, side, 512)


def test_width_multiplies_the_channels():
    with without_weights():
        model = models.ResNet19((8, 8, 3), width=0.3)
        narrowest = models.VGG11((16, 16, 3), width=1e-6)
    kernels = {
        layer.name: layer.kernel.shape[-1]
        for layer in model.network.layers
        if hasattr(layer, "kernel")
    }
    assert [
        kernels[name]
        for name in (
            "stem_conv",
            "stage2_block1_conv1",
            "stage3_block2_conv2",
            "hidden",
        )
    ] == [
        38,
        77,
        154,
        77,
    ]
    assert kernels["classifier"] == 10
    assert {
        layer.kernel.shape[-1]
        for layer in narrowest.network.layers
        if hasattr(layer, "kernel")
    } == {1, 10}


@pytest.mark.on_each_backend
@pytest.mark.parametrize(("size", "kernel"), [(8, 3), (7, 3), (9, 7), (10, 7), (6, 1)])
def test_strided_convolutions_have_the_padding_of_pytorch(size, kernel):
    generator = np.random.default_rng(0)
    x, weights = (
        generator.normal(size=(size, size, 2)),
        generator.normal(size=(kernel, kernel, 2, 3)),
    )
    inputs = keras.Input((size, size, 2))
    outputs = _blocks.convolution(
        inputs, 3, kernel, 2, False, _initializers.PYTORCH_DEFAULT, "conv"
    )
    model = keras.Model(inputs, outputs)
    model.set_weights([weights])
    padded = np.pad(x, ((kernel // 2, kernel // 2), (kernel // 2, kernel // 2), (0, 0)))
    expected = [
        [
            np.einsum("hwi,hwio->o", padded[i : i + kernel, j : j + kernel], weights)
            for j in range(0, size, 2)
        ]
        for i in range(0, size, 2)
    ]
    np.testing.assert_allclose(
        to_numpy(model(x[None].astype("float32")))[0], expected, rtol=1e-4, atol=1e-4
    )


@pytest.mark.on_each_backend
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("size", [4, 5, 8])
def test_max_pooling_pads_as_pytorch_does_and_never_chooses_the_padding(
    size, data_format
):
    if data_format == "channels_first" and BACKEND == "tensorflow":
        pytest.skip("TensorFlow has no channels_first pooling on a CPU")
    x = np.random.default_rng(0).uniform(-2, -1, (2, size, size, 3)).astype("float32")
    expected = np.stack(
        [
            np.stack(
                [
                    x[:, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2].max(axis=(1, 2))
                    for j in range(0, size, 2)
                ],
                axis=1,
            )
            for i in range(0, size, 2)
        ],
        axis=1,
    )
    layer = PaddedMaxPooling2D(3, strides=2, data_format=data_format)
    layer = PaddedMaxPooling2D.from_config(layer.get_config())
    # Although it overrides `call`.
    assert kind_of(layer).keeps_order
    order, back = (
        ((0, 3, 1, 2), (0, 2, 3, 1))
        if data_format == "channels_first"
        else ((0, 1, 2, 3),) * 2
    )
    outputs = to_numpy(layer(x.transpose(order)))
    assert outputs.shape == layer.compute_output_shape(x.transpose(order).shape)
    np.testing.assert_array_equal(outputs.transpose(back), expected)


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


@of_networks(ONE_OF_A_KIND)
def test_normalisations_have_the_defaults_of_pytorch(network):
    with without_weights():
        found = [
            layer
            for layer in network().network.layers
            if isinstance(layer, keras.layers.BatchNormalization)
        ]
    assert {(layer.momentum, layer.epsilon, layer.axis) for layer in found} == {
        (0.9, 1e-5, -1)
    }


# Training.


# The hidden neurons of a ResNet-19 start silent: no normalisation precedes them, and
# PyTorch's default start is small.
SILENT = {models.ResNet19: ["classifier"]}


@of_networks(
    [
        pytest.param(models.ResNet18, marks=pytest.mark.on_each_backend),
        *ONE_OF_A_KIND[1:],
    ]
)
def test_a_training_step_reaches_every_kernel(network):
    assert_trains(small(network), *images())


@of_networks(
    [
        network
        for network in EVERY_NETWORK
        if network not in [*ONE_OF_A_KIND, *MS_RESNETS]
    ]
)
@pytest.mark.slow
def test_a_training_step_reaches_every_kernel_of_the_other_networks(network):
    assert_trains(small(network), *images(), unreached=SILENT.get(network, ()))


@pytest.mark.on_each_backend
@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_neurons_of_ms_resnets_spike_above_their_threshold_and_not_at_it(precision):
    keras.config.set_dtype_policy(precision)
    inputs = keras.Input((3,))
    currents = keras.layers.Rescaling(1.0)(inputs)
    model = rsnn.SpikingModel(
        keras.Model(inputs, ms_resnet.ms_neuron()(currents)),
        timesteps=2,
        return_sequences=True,
    )
    # 0.5, the next number, which is 0.5 in half precision, and 0.25 · 0.5 + 0.375 in
    # the second step.
    frames = np.array(
        [[[0.5, np.nextafter(np.float32(0.5), np.float32(1)), 0.5], [0.5, 0.5, 0.375]]],
        "float32",
    )
    expected = (
        [[0, 1, 0], [1, 0, 0]] if precision == "float32" else [[0, 0, 0], [1, 1, 0]]
    )
    np.testing.assert_array_equal(
        to_numpy(model(frames))[0].astype("float32"), expected
    )


@of_networks([models.MSResNet18, models.MSResNet104])
def test_blocks_of_ms_resnets_add_nothing_at_first_and_then_learn_in_every_kernel(
    network,
):
    model = small(network)
    for name, layer in layers_of(model).items():
        if name.endswith("_bn2"):
            assert not to_numpy(layer.gamma).any()
            layer.gamma.assign(np.full(layer.gamma.shape, 0.5))
        elif isinstance(layer, keras.layers.BatchNormalization):
            assert set(to_numpy(layer.gamma)) == {0.5}
    assert_trains(model, *images())


def test_the_stages_of_ms_resnets_each_halve_the_image():
    with without_weights():
        deep, usual = (
            small(network, 96) for network in (models.MSResNet104, models.MSResNet18)
        )
        with pytest.raises(ValueError, match="at least 16"):
            small(models.MSResNet18, 8)
    for model, stem in ((deep, "stem_conv3"), (usual, "stem_conv")):
        assert [
            layers_of(model)[name].output.shape[1]
            for name in (stem, "stage1_block1_add", "last_neuron")
        ] == [48, 24, 3]
    assert layers_of(usual)["stem_conv"].kernel_size == (7, 7)
    assert not [name for name in layers_of(usual) if "pool" in name and name != "pool"]
    assert layers_of(deep)["dropout"].rate == 0.2


@of_networks(ONE_OF_A_KIND[:3])
@pytest.mark.slow
def test_a_training_step_with_the_stem_for_large_images(network):
    assert_trains(small(network, 64, stem="imagenet"), *images(64))


@pytest.mark.parametrize(
    ("gradient", "step_mode"),
    [("rate", "single"), ("bptt", "multi"), ("bptt", "single")],
)
@pytest.mark.slow
def test_a_training_step_with_other_gradients_and_step_modes(gradient, step_mode):
    assert_trains(
        small(models.SEWResNet18, gradient=gradient, step_mode=step_mode), *images()
    )


@pytest.mark.on_each_backend
def test_event_frames_train_a_vggsnn():
    x, y = helpers.data(4, (2, 16, 16, 2), 3)
    model = helpers.compiled(small(models.VGGSNN, channels=2))
    losses = model.fit(x, y, batch_size=4, epochs=2, verbose=0).history["loss"]
    assert np.isfinite(losses).all()
    assert losses[0] != losses[1]


@of_networks([models.SEWResNet34, models.PreActResNet34])
@pytest.mark.slow
def test_the_imagenet_networks_train_at_full_size(network):
    assert_trains(network(timesteps=1), *images(224, samples=2, classes=1000))


# Names, saving and loading.
@of_networks([*ONE_OF_A_KIND, models.ResNet19, models.SEWResNet50])
def test_layers_have_the_same_names_each_time(network):
    with without_weights():
        first, second = (small(network, neuron=ParametricLIF) for _ in range(2))
    paths = [variable.path for variable in first.variables]
    assert [variable.path for variable in second.variables] == paths
    assert len(set(paths)) == len(paths)
    assert list(layers_of(first)) == list(layers_of(second))
    # Modules of PyTorch have no dots in their names.
    assert not [name for name in layers_of(first) if "." in name]


@pytest.mark.on_each_backend
@of_networks([models.VGGSNN])
def test_weights_load_into_another_network_of_the_same_arguments(network, tmp_path):
    model, other = (small(network, neuron=ParametricLIF) for _ in range(2))
    x, _ = images()
    model.save_weights(tmp_path / "some.weights.h5")
    other.load_weights(tmp_path / "some.weights.h5")
    np.testing.assert_array_equal(
        other.predict(x, verbose=0), model.predict(x, verbose=0)
    )


@of_networks([models.PreActResNet18])
def test_a_saved_network_loads(network):
    model = small(network, 32, stem="imagenet", neuron=lambda: LIF(decay=0.5))
    x, _ = images(32)
    loaded = saved_and_loaded(model)
    assert loaded.name == model.name
    assert loaded.network.get_layer("stage1_block1_neuron1").decay == 0.5
    np.testing.assert_array_equal(
        loaded.predict(x, verbose=0), model.predict(x, verbose=0)
    )


# Data formats.
@without_channels_first_on_cpu
@pytest.mark.parametrize(
    ("network", "kwargs"),
    [
        (models.VGGSNN, {}),
        (models.PreActResNet18, {"stem": "imagenet"}),
        pytest.param(models.MSResNet104, {"stem": "imagenet"}, marks=pytest.mark.slow),
        pytest.param(models.ResNet18, {"stem": "imagenet"}, marks=pytest.mark.slow),
        pytest.param(models.SEWResNet50, {}, marks=pytest.mark.slow),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_channels_first_computes_the_same(network, kwargs):
    x, _ = images(32)
    last = network((32, 32, 3), classes=3, timesteps=2, width=0.125, **kwargs)
    keras.config.set_image_data_format("channels_first")
    first = network((3, 32, 32), classes=3, timesteps=2, width=0.125, **kwargs)
    assert first.network.input_shape == (None, 3, 32, 32)
    first.set_weights(last.get_weights())
    np.testing.assert_allclose(
        first.predict(x.transpose(0, 3, 1, 2), verbose=0),
        last.predict(x, verbose=0),
        rtol=1e-3,
        atol=1e-4,
    )


@without_channels_first_on_cpu
def test_channels_first_trains():
    keras.config.set_image_data_format("channels_first")
    x, y = helpers.data(4, (3, 16, 16))
    assert_trains(models.VGG11((3, 16, 16), classes=3, timesteps=2, width=0.125), x, y)


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


# Arguments.
POSITIONAL = {
    "add_branches": ["model", "layer_names"],
    "list_pretrained": [],
    "load_pretrained": ["name"],
    "spiking_self_attention": ["inputs", "heads"],
    "token_attention": ["inputs", "heads"],
}
"""Those of functions that are no networks; a network has `input_shape`."""


def test_neurons_are_made_by_the_function_given_and_named_by_the_network():
    numbers = itertools.count(1)
    with without_weights():
        model = small(
            models.VGG11, neuron=lambda: LIF(threshold=1 / next(numbers), name="mine")
        )
    neurons = [layer for layer in model.network.layers if isinstance(layer, LIF)]
    assert [neuron.threshold for neuron in neurons] == [
        1 / number for number in range(1, 9)
    ]
    assert [neuron.name for neuron in neurons][:3] == [
        "block1_neuron1",
        "block2_neuron1",
        "block2_neuron2",
    ]


SHARED = LIF(name="shared")


@pytest.mark.parametrize(
    ("kwargs", "error", "fragments"),
    [
        ({"width": 0}, ValueError, ["`width` must be > 0", "width=0"]),
        ({"width": -1.0}, ValueError, ["`width` must be > 0", "width=-1.0"]),
        (
            {"width": "wide"},
            TypeError,
            ["`width` must be a real number", "width='wide'"],
        ),
        ({"classes": 0}, ValueError, ["`classes` must be 1 or more", "classes=0"]),
        (
            {"classes": 10.0},
            TypeError,
            ["`classes` must be an integer", "classes=10.0"],
        ),
        (
            {"include_top": 1},
            TypeError,
            ["`include_top` must be True or False", "include_top=1"],
        ),
        ({"timesteps": 0}, ValueError, ["`timesteps` must be 1 or more"]),
        ({"gradient": "none"}, ValueError, ["`gradient` must be one of"]),
        ({"step_mode": "both"}, ValueError, ["`step_mode` must be one of"]),
        (
            {"input_shape": 32},
            TypeError,
            [
                "`input_shape` must be a tuple",
                "input_shape=32",
                "(height, width, channels)",
            ],
        ),
        (
            {"input_shape": (32, 32)},
            ValueError,
            ["`input_shape` must have three entries", "(32, 32)"],
        ),
        (
            {"input_shape": (4, 32, 32, 3)},
            ValueError,
            ["`input_shape` must have three entries", "without batch and time"],
        ),
        (
            {"input_shape": (32, 32, None)},
            TypeError,
            ["`input_shape[2]` must be an integer", "None"],
        ),
        (
            {"input_shape": (32, 0, 3)},
            ValueError,
            ["`input_shape[1]` must be 1 or more"],
        ),
        (
            {"input_shape": (32.0, 32, 3)},
            TypeError,
            ["`input_shape[0]` must be an integer"],
        ),
        (
            {"input_shape": (2, 32, 3)},
            ValueError,
            ["`input_shape` must have a height and width of at least", "(2, 32, 3)"],
        ),
        (
            {"neuron": SHARED},
            TypeError,
            ["`neuron` must be a function that returns a new neuron layer", "lambda"],
        ),
        (
            {"neuron": "LIF"},
            TypeError,
            [
                "`neuron` must be a function that returns a new neuron layer",
                "neuron='LIF'",
            ],
        ),
        (
            {"neuron": lambda: SHARED},
            ValueError,
            ["`neuron` must return a new layer each time"],
        ),
        (
            {"neuron": lambda: None},
            TypeError,
            ["`neuron` must return a neuron layer", "NoneType"],
        ),
        (
            {"neuron": keras.layers.ReLU},
            TypeError,
            ["`neuron` must return a neuron layer", "ReLU"],
        ),
    ],
    ids=lambda value: str(next(iter(value))) if isinstance(value, dict) else None,
)
@of_networks([models.VGG11, models.ResNet18])
def test_wrong_arguments_are_named(network, kwargs, error, fragments):
    with without_weights(), pytest.raises(error) as raised:
        network(**{"input_shape": (16, 16, 3), "width": 0.05, **kwargs})
    message = str(raised.value)
    assert [fragment for fragment in fragments if fragment not in message] == [], (
        message
    )


@of_networks(WITH_A_STEM)
def test_wrong_stems_are_named(network):
    with pytest.raises(
        ValueError,
        match=r"`stem` must be one of 'auto', 'cifar', 'imagenet'. Received: "
        r"stem='resnet'",
    ):
        small(network, stem="resnet")
    with pytest.raises(
        ValueError,
        match="`stem` must be 'cifar' or 'imagenet' if the size of the images is not "
        "fixed",
    ):
        network((None, None, 3))
    with pytest.raises(
        ValueError,
        match=r"`input_shape` must have a height and width of at least (16|32),",
    ):
        small(network, 15, stem="imagenet")


def test_a_vggsnn_must_know_the_size_of_its_images():
    with pytest.raises(
        ValueError, match="`input_shape` must have a known height and width"
    ):
        models.VGGSNN((None, 48, 2))
    with without_weights():
        model = models.VGGSNN((None, 48, 2), include_top=False)
    assert model.network.output_shape[:3] == (None, None, 3)
