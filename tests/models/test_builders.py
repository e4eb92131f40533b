"""Builders of networks: each has the size of the authors' network, trains in every
kernel, treats samples alike, comes back from a file, and names wrong arguments."""

import functools
import inspect
import math

import keras
import numpy as np
import pytest
from helpers import BACKEND, assert_trains, data, to_numpy
from numpy.testing import assert_allclose, assert_array_equal

from keras_ratesnn import models
from keras_ratesnn.layers import LIF, Neuron, ParametricLIF

BUILDERS = [getattr(models, name) for name in models.__all__ if name[0].isupper()]
IMAGENET = {"classes": 1000, "edition": "imagenet"}
DVS = {"edition": "dvs", "dims": 256, "blocks": 2}
NARROW = {"classes": 3, "timesteps": 2, "width": 0.125}
TOKENS = {"classes": 3, "timesteps": 2, "dims": 32, "blocks": 3, "heads": 2}
STAGES = {"classes": 3, "dims": (4, 8, 16, 24), "blocks": 3, "heads": 2}
LARGE = {"classes": 3, "dims": (4, 8, 16), "blocks": 1, "heads": 2}
RESFORMER = {
    "classes": 3,
    "timesteps": 2,
    "dims": (4, 8, 8),
    "blocks": (1, 1, 1),
    "heads": (1, 2, 2),
    "group_size": 4,
}


def name_of(value):
    return getattr(value, "__name__", None)


def unused(dims, blocks):
    """The parameters of the two layer normalisations of a block, which Spikformer's
    authors never use."""
    return 4 * dims * blocks


def without_weights():
    """A context in which networks are built without drawing weights, which takes most
    of the time."""
    return keras.StatelessScope(initialize_variables=False)


def parameters(model):
    return sum(math.prod(variable.shape) for variable in model.trainable_variables)


@pytest.mark.parametrize(
    ("build", "arguments", "expected"),
    [
        (models.ResNet18, {}, 11_173_962),
        (models.ResNet19, {}, 12_697_994),
        (models.VGG11, {}, 11_001_354),
        (models.VGG13, {"classes": 100}, 9_462_180),
        (models.VGGSNN, {}, 9_271_498),
        # Those of ResNets of Keras, which have a bias in every convolution, too.
        (models.SEWResNet50, {}, 25_583_592),
        (models.SEWResNet101, {}, 44_601_832),
        (models.PreActResNet34, {}, 21_806_184),
        (models.MSResNet34, {}, 21_801_896),
        (models.MSResNet104, {}, 77_350_504),
        (
            models.Spikformer,
            {"blocks": 8, "dims": 384, **IMAGENET},
            16_828_312 - unused(384, 8),
        ),
        (models.Spikformer, {"blocks": 4, "dims": 256}, 4_159_274 - unused(256, 4)),
        # This program has a third normalisation and an embedding of the position of 64
        # tokens, which it does not use either.
        (models.Spikformer, DVS, 2_585_610 - unused(256, 2) - 2 * 256 - 64 * 256),
        (models.QKFormer, {"blocks": 10, "dims": 384, **IMAGENET}, 16_473_688),
        (models.QKFormer, {"classes": 11, "mlp_ratio": 4, **DVS}, 1_999_371),
        (models.MaxFormer, {"blocks": 10, "dims": 384, **IMAGENET}, 16_237_240),
        (models.MaxFormer, {"classes": 10, **DVS}, 1_455_626),
        (models.ESpikeFormer, {}, 18_987_504),
        (
            models.ESpikeFormerLarge,
            {"dims": (128, 256, 512), "shortcut_projection": True},
            82_502_952,
        ),
        # This program has a convolution of the heads in each block, which it does not
        # use.
        (
            models.SpikeDrivenTransformer,
            {"blocks": 8, "dims": 384, **IMAGENET},
            16_816_536 - 8 * 8**2,
        ),
        (models.MetaSpikeFormer, {}, 55_350_248),
        (models.SpikingResformer, {}, 11_180_992),
    ],
    ids=name_of,
)
def test_the_number_of_trainable_parameters_is_that_of_the_authors(
    build, arguments, expected
):
    with without_weights():
        model = build(**arguments)
    assert parameters(model) == expected


# Training, files and layouts.
FIRST_NORMALIZED = ("query_bn", "key_bn", "value_bn", "query_bn2", "key_bn2")


def firing(build, shape, arguments):
    """A small network whose neurons fire often, also in inference."""
    keras.utils.set_random_seed(0)
    model = build(shape[-3:], **arguments)
    for layer in model.network.layers:
        if layer.name.endswith((*FIRST_NORMALIZED, "value_bn2")):
            layer.beta.assign(np.full(layer.beta.shape, 1.5))
        elif layer.name.endswith("_bn2") and build is models.MSResNet18:
            # Its blocks add nothing at first.
            layer.gamma.assign(np.full(layer.gamma.shape, 0.5))
        elif layer.name.endswith("_factor"):
            layer.kernel.assign(np.ones(layer.kernel.shape))
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(data(4, shape)[0], training=True)
    for layer in model.network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.9
    return model


WIDE = {**NARROW, "stem": "imagenet"}
WEIGHTED = {**NARROW, "normalization": "weight"}
WEIGHTED["neuron"] = functools.partial(LIF, 0.5, 0.3)
ONLINE = {**NARROW, "normalization": "online"}
ONLINE |= {"gradient": "sltt", "step_mode": "single"}
LEARNING = {**NARROW, "timesteps": 3, "neuron": ParametricLIF}
PROJECTED = {**LARGE, "shortcut_projection": True}


@pytest.mark.parametrize(
    ("build", "shape", "arguments"),
    [
        pytest.param(
            models.ResNet18, (16, 16, 3), NARROW, marks=pytest.mark.backends(3)
        ),
        (models.SEWResNet18, (16, 16, 3), NARROW),
        (models.PreActResNet18, (32, 32, 3), WIDE),
        (models.VGG11, (16, 16, 3), WEIGHTED),
        (models.ResNet18, (16, 16, 3), ONLINE),
        (models.VGGSNN, (3, 16, 16, 2), LEARNING),
        (models.MSResNet18, (16, 16, 3), NARROW),
        (models.Spikformer, (3, 16, 16, 2), {**TOKENS, "timesteps": 3}),
        (models.QKFormer, (16, 16, 3), TOKENS),
        (models.MaxFormer, (32, 32, 3), {**TOKENS, "edition": "dvs"}),
        (models.SpikeDrivenTransformer, (16, 16, 3), TOKENS),
        (models.ESpikeFormer, (32, 32, 3), STAGES),
        (models.ESpikeFormerLarge, (32, 32, 3), PROJECTED),
        (models.MetaSpikeFormer, (32, 32, 3), {**STAGES, "timesteps": 2}),
        (models.SpikingResformer, (16, 16, 3), RESFORMER),
    ],
    ids=name_of,
)
def test_a_network_trains_treats_samples_alike_comes_back_and_has_two_layouts(
    build, shape, arguments, tmp_path
):
    """Of images, or of frames of events."""

    def predict(network, x):
        return network.predict(x, verbose=0)

    model = firing(build, shape, arguments)
    x, y = data(4, shape)
    outputs = predict(model, x)
    assert np.ptp(outputs, axis=0).max() > 0
    close = {"rtol": 1e-4, "atol": 1e-5}
    assert_allclose(predict(model, x[2:3]), outputs[2:3], **close)
    # Files.
    path = tmp_path / "some.keras"
    model.save(path)
    filled = build(shape[-3:], weights=path, **arguments)
    assert_array_equal(predict(filled, x), outputs)
    assert filled.name == model.name
    # Names are the same each time, different, and have no dots, as in PyTorch.
    paths = [variable.path for variable in model.variables]
    assert [variable.path for variable in filled.variables] == paths
    assert len(set(paths)) == len(paths)
    assert not [layer.name for layer in model.network.layers if "." in layer.name]
    if BACKEND != "tensorflow":  # It has no channels_first convolutions on a CPU.
        keras.config.set_image_data_format("channels_first")
        *_, height, width, channels = shape
        first = build((channels, height, width), **arguments)
        first.set_weights(model.get_weights())
        moved = predict(first, np.moveaxis(x, -1, -3))
        assert_allclose(moved, outputs, rtol=1e-3, atol=1e-4)
        keras.config.set_image_data_format("channels_last")
    assert_trains(model, x, y)


# Arguments.


@pytest.mark.parametrize("build", BUILDERS, ids=name_of)
def test_the_signature_of_a_network_has_each_argument_with_its_default(build):
    signature = inspect.signature(build).parameters
    usual = {"classes", "timesteps", "neuron", "step_mode", "weights", "name"}
    assert {*usual, "gradient"} <= signature.keys()
    for parameter in signature.values():
        assert parameter.default is not inspect.Parameter.empty
    with without_weights(), pytest.raises(ValueError, match="`weights` must") as raised:
        build(weights="digits")
    assert f"the name of a pretrained {build.__name__} (none)" in str(raised.value)
    assert "that is a digits: load_pretrained('digits') loads it" in str(raised.value)


SHARED = LIF(name="shared")


@pytest.mark.parametrize(
    ("build", "arguments", "error", "message"),
    [
        (models.VGG11, {"width": 0}, ValueError, "`width` must be > 0.*width=0"),
        (models.VGG11, {"input_shape": (32, 32)}, ValueError, "have three entries"),
        (models.VGG11, {"input_shape": (2, 32, 3)}, ValueError, "height and width of"),
        (models.VGG11, {"neuron": SHARED}, TypeError, "function that returns a new"),
        (models.VGG11, {"neuron": lambda: SHARED}, ValueError, "a new layer each time"),
        (models.VGG11, {"neuron": keras.layers.ReLU}, TypeError, "neuron layer.*ReLU"),
        (
            models.PreActResNet18,
            {"input_shape": (None, None, 3)},
            ValueError,
            "`stem` must be 'cifar' or 'imagenet' if the size of the images is not",
        ),
        (
            models.ResNet19,
            {"input_shape": (15, 15, 3), "stem": "imagenet"},
            ValueError,
            "a height and width of at least (16|32),",
        ),
        (models.VGGSNN, {"input_shape": (None, 48, 2)}, ValueError, "a known height"),
        (models.QKFormer, {"input_shape": (None, 8, 3)}, ValueError, "a known height"),
        (
            models.QKFormer,
            {"heads": 3},
            ValueError,
            "`heads` must divide the channels of every stage.*: 8.*heads=3, dims=32",
        ),
        (
            models.QKFormer,
            {"input_shape": (30, 32, 3)},
            ValueError,
            r"multiples of 4: in the edition 'cifar'.*\(30, 32, 3\)",
        ),
        (models.QKFormer, {"dims": 36}, ValueError, "multiple of 8.*dims=36"),
        (models.QKFormer, {"blocks": 2}, ValueError, "be 3 or more.*'cifar'.*blocks=2"),
        (
            models.ESpikeFormer,
            {"timesteps": 4},
            ValueError,
            "`timesteps` must be 1.*timesteps=4.*neuron=lambda",
        ),
        (models.ESpikeFormer, {"dims": (5, 8, 16, 24)}, ValueError, "must be even"),
        (models.ESpikeFormer, {"dims": 8}, TypeError, "`dims` must be a tuple"),
        (models.ESpikeFormer, {"blocks": 2}, ValueError, "be 3 or more.*blocks=2"),
        (
            models.SpikingResformer,
            {"heads": (1, 3, 2)},
            ValueError,
            r"`heads` must divide.*4 and 8 and 8.*heads=\(1, 3, 2\)",
        ),
        (
            models.SpikingResformer,
            {"group_size": 3},
            ValueError,
            "`group_size` must divide.*16 and 32 and 32.*group_size=3",
        ),
        (
            models.SpikingResformer,
            {"input_shape": (104, 104, 3)},
            ValueError,
            "multiples of 16.*stem='imagenet'",
        ),
    ],
    ids=lambda value: name_of(value) or "",
)
def test_wrong_arguments_are_named(build, arguments, error, message):
    usual = {
        models.QKFormer: TOKENS,
        models.ESpikeFormer: STAGES,
        models.SpikingResformer: RESFORMER,
    }.get(build, {"width": 0.05})
    given = {"input_shape": (32, 32, 3), **usual, **arguments}
    with without_weights(), pytest.raises(error, match=message) as raised:
        build(**given)
    assert "\n" not in str(raised.value)


def test_an_espikeformer_takes_other_neurons_for_more_steps():
    with without_weights():
        model = models.ESpikeFormer((32, 32, 3), timesteps=2, neuron=LIF, **STAGES)
    layers = model.network.layers
    neurons = {type(layer) for layer in layers if isinstance(layer, Neuron)}
    assert neurons == {LIF}


def test_factors_of_a_large_espikeformer_are_small_at_first():
    layers = models.ESpikeFormerLarge((32, 32, 3), **LARGE).network.layers
    factors = [layer.kernel for layer in layers if layer.name.endswith("_factor")]
    assert len(factors) == 2
    for factor in factors:
        assert_allclose(to_numpy(factor), 1e-6)
