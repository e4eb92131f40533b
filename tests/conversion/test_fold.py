"""fold_batch_normalization: equal outputs in inference, what is folded and what stays,
and that nothing else changes.

Spikes are steps: a membrane within rounding of its threshold may spike in one network
and not in the other. So layers are compared without neurons.
"""

import functools

import helpers
import keras
import numpy as np
import pytest
from helpers import BACKEND, to_numpy
from keras import layers
from numpy.testing import assert_allclose, assert_array_equal

import keras_ratesnn as rsnn
from keras_ratesnn.layers import (
    LIF,
    LayerKind,
    OnlineRenormalization,
    ParametricLIF,
    TemporalEffectiveBatchNormalization,
    ThresholdDependentBatchNormalization,
    WSConv2D,
    WSDense,
)

pytestmark = pytest.mark.runs_once

fold = functools.partial(rsnn.deploy.fold_batch_normalization, verbose=False)


def data(*shape, seed=0):
    return np.random.default_rng(seed).normal(0.5, 1.0, shape)


def trained(network):
    """The network with random statistics, scales, shifts and biases, as if it had been
    trained."""
    random = np.random.default_rng(0)
    for weight in network.weights:
        shape = weight.shape
        match weight.name:
            case "beta":
                weight.assign(random.normal(0.3, 0.5, shape))
            case "moving_mean" | "bias":
                weight.assign(random.normal(0.0, 0.5, shape))
            case "moving_variance" | "gain":
                weight.assign(random.uniform(0.3, 2.0, shape))
            case "gamma":
                sign = random.choice([-1.0, 1.0, 1.0], shape)
                weight.assign(sign * random.uniform(1.0, 4.0, shape))
    return network


def normalizations(model):
    layers_inside = model._flatten_layers()
    normalization = layers.BatchNormalization
    return [layer for layer in layers_inside if isinstance(layer, normalization)]


def outputs_of(model, x):
    return keras.tree.flatten(to_numpy(model(x, training=False)))


def check_equal(model, folded, x, atol=1e-4):
    """Outputs are equal, and depend on the inputs."""
    for before, after in zip(outputs_of(model, x), outputs_of(folded, x), strict=True):
        assert np.ptp(before, axis=0).max() > 1e-3
        assert_allclose(after, before, atol=atol, rtol=0)


def check_folded(network, *shape):
    """All normalisations are folded."""
    folded = fold(trained(network))
    assert normalizations(folded) == []
    check_equal(network, folded, data(3, *shape).astype("float32"))
    return folded


def reasons(folded):
    return {change.name: change.reason for change in folded.fold_report.kept}


# Layers.
LAYERS = {
    "conv2d": (layers.Conv2D, (4, 3), {"strides": 2, "padding": "same"}, (6, 6, 2)),
    "grouped": (layers.Conv2D, (6, 3), {"groups": 2}, (5, 5, 4)),
    "depthwise2d": (layers.DepthwiseConv2D, (3,), {"depth_multiplier": 3}, (5, 5, 2)),
    "separable2d": (layers.SeparableConv2D, (4, 3), {"depth_multiplier": 2}, (5, 5, 3)),
    "transposed3d": (layers.Conv3DTranspose, (3, 2), {}, (2, 2, 2, 2)),
    "dense": (layers.Dense, (4,), {}, (6,)),
    "dense on rows": (layers.Dense, (4,), {}, (5, 6)),
    "standardized": (WSConv2D, (4, 3), {}, (5, 5, 2)),
    "standardized dense": (WSDense, (4,), {}, (6,)),
}


NO_SCALE, NO_CENTER = {"scale": False}, {"center": False}
AXES = [(name, -1) for name in LAYERS]
if BACKEND != "tensorflow":
    # It has no channels_first convolutions on a CPU.
    AXES += [("separable2d", 1), ("grouped", 1), ("standardized", 1)]


@pytest.mark.parametrize(("name", "axis"), AXES)
def test_a_normalization_is_folded_into_every_kind_of_layer(name, axis):
    cls, arguments, settings, shape = LAYERS[name]
    if axis == 1:
        *space, channels = shape
        shape = (channels, *space)
        settings = {"data_format": "channels_first", **settings}
    inputs, branches = keras.Input(shape), []
    for use_bias, options in ((True, {}), (False, NO_SCALE), (False, NO_CENTER)):
        made = cls(*arguments, use_bias=use_bias, **settings)
        normalization = layers.BatchNormalization(axis=axis, epsilon=1e-2, **options)
        branches.append(normalization(made(inputs)))
    folded = check_folded(keras.Model(inputs, branches), *shape)
    assert [type(layer) for layer in folded.layers[1:]] == [cls] * 3


@keras.saving.register_keras_serializable("test_fold")
class Halved(layers.Dense):
    """Declares that its outputs can be scaled."""

    layer_kind = LayerKind(affine=True, output_factors=lambda layer: ("kernel", (-1,)))

    def call(self, inputs, training=None):
        outputs = keras.ops.matmul(0.5 * inputs, self.kernel)
        return outputs + self.bias if self.use_bias else outputs


@pytest.mark.parametrize(
    "hidden",
    [
        [Halved(4, use_bias=False), layers.BatchNormalization()],
        [layers.Dense(4), layers.BatchNormalization(renorm=True)],
        [layers.Dense(4), ThresholdDependentBatchNormalization(threshold=0.5)],
        [layers.Dense(4), OnlineRenormalization()],
    ],
)
def test_every_normalization_that_is_a_scale_and_a_shift_in_inference_is_folded(hidden):
    """Also into a layer of one's own."""
    network = keras.Sequential([keras.Input((6,)), *hidden])
    assert isinstance(check_folded(network, 6), keras.Sequential)


# Places in the graph.
TWO = {"a": data(5, 6, seed=1), "b": data(5, 6, seed=2)}


def alike():
    one = layers.BatchNormalization(name="one")
    return one, one


def unlike():
    return layers.BatchNormalization(name="one"), layers.BatchNormalization(name="two")


def inside():
    """They follow inside of a tower."""
    return layers.Identity(), layers.Identity()


@pytest.mark.parametrize(
    ("following", "stays"), [(alike, []), (inside, []), (unlike, ["one", "two"])]
)
def test_a_layer_used_twice_is_folded_if_the_same_normalization_always_follows(
    following, stays
):
    shared, (first, second) = layers.Dense(4), following()
    if following is inside:
        parts = [keras.Input((6,)), shared, layers.BatchNormalization()]
        shared = keras.Sequential(parts)
    inputs = {name: keras.Input((6,), name=name) for name in TWO}
    parts = [first(shared(inputs["a"])), second(shared(inputs["b"]))]
    network = trained(keras.Model(inputs, layers.Add()(parts)))
    folded = fold(network)
    why = "the layer before also feeds others"
    assert reasons(folded) == dict.fromkeys(stays, why)
    assert len(normalizations(folded)) == len(stays)
    check_equal(network, folded, TWO)


@pytest.mark.on_each_backend
def test_nested_models_are_folded_inside_and_across_their_borders():
    def normalization(name):
        return layers.BatchNormalization(name=name)

    start = keras.Input((8,))
    inner = keras.Sequential([start, normalization("first"), layers.ReLU()])
    only = keras.Sequential([start, normalization("only")])
    x = layers.Dense(8)(normalization("own")(layers.Dense(8)(start)))
    last = keras.Model(start, x, name="last")
    last.trainable = False
    inputs = keras.Input((6,))
    x = only(layers.Dense(8)(inner(layers.Dense(8)(inputs))))
    network = keras.Model(inputs, normalization("outer")(last(x)))
    folded = check_folded(network, 6)
    names = [change.name for change in folded.fold_report.folded]
    assert names == ["first", "only", "own", "outer"]
    assert not folded.get_layer("last").trainable


# What stays.
class Doubled(layers.BatchNormalization):
    def call(self, inputs, training=None, mask=None):
        return 2.0 * super().call(inputs, training=training, mask=mask)


class Holder(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = layers.BatchNormalization(name="inner")

    def build(self, input_shape):
        self.inner.build(input_shape)

    def call(self, inputs, training=None):
        return self.inner(inputs, training=training)


def two_readers(x):
    x = layers.Dense(6)(x)
    return layers.Add()([x, layers.BatchNormalization(name="bn")(x)])


QUANTIZED = helpers.spiking(helpers.chain(LIF(), layers.Dense(6)))
ONE_SCALE = rsnn.deploy.quantize_aware(QUANTIZED).network.layers[-1]


def with_lora(x):
    dense = layers.Dense(6)
    x = dense(x)
    dense.enable_lora(2)
    return layers.BatchNormalization(name="bn")(x)


def after_two(x):
    normalization = layers.BatchNormalization(name="bn")
    return normalization(layers.Dense(6)(x)) + normalization(layers.Dense(6)(x))


def masked(x):
    return layers.BatchNormalization(name="bn")(layers.Dense(6)(x), mask=x[:, 0] > 0)


def after(*before, **settings):
    """Layers, and batch normalisation after them."""

    def build(x):
        for layer in before:
            x = layer(x)
        return layers.BatchNormalization(name="bn", **settings)(x)

    return build


def temporal(x):
    return TemporalEffectiveBatchNormalization(2, name="bn")(layers.Dense(6)(x))


@pytest.mark.parametrize(
    ("build", "name", "reason"),
    [
        (after(), "bn", "after an input"),
        (lambda x: after()(layers.Add()([x, x])), "bn", "after Add"),
        (after(layers.EinsumDense("ab,bc->ac", 6)), "bn", "after EinsumDense"),
        (after(layers.Dense(6, "relu")), "bn", "after an activation"),
        (
            after(layers.Reshape((2, 3)), layers.Dense(6), axis=1),
            "bn",
            "another axis",
        ),
        (after(layers.Dense(6), dtype="mixed_bfloat16"), "bn", "another precision"),
        (two_readers, "bn", "the layer before also feeds others"),
        (after_two, "bn", "after several layers"),
        (masked, "bn", "takes a mask"),
        (after(ONE_SCALE), "bn", "after a layer with one scale for its whole kernel"),
        (with_lora, "bn", "after a layer with LoRA"),
        (temporal, "bn", "a factor for each time step"),
        (lambda x: Doubled(name="bn")(layers.Dense(6)(x)), "bn", "another computation"),
        (Holder(name="holder"), "holder/inner", "inside a layer"),
    ],
)
def test_what_cannot_be_folded_stays_and_is_reported(build, name, reason):
    network = trained(helpers.chain(build))
    folded = fold(network)
    assert list(reasons(folded)) == [name]
    assert reasons(folded)[name].startswith(reason)
    assert len(normalizations(folded)) == 1
    check = assert_array_equal
    check(outputs_of(folded, data(4, 6)), outputs_of(network, data(4, 6)))


def test_the_report_is_printed(capsys):
    folded = layers.Dense(3, name="into"), layers.BatchNormalization()
    network = helpers.chain(*folded, two_readers)
    report = rsnn.deploy.fold_batch_normalization(network).fold_report
    assert capsys.readouterr().out == f"{report}\n"
    assert str(report).splitlines() == [
        "fold_batch_normalization: 1 of 2 batch normalisations were folded.",
        "  stays (the layer before also feeds others): bn",
    ]
    assert [change.into for change in report.folded] == ["into"]


UNBUILT = keras.Sequential([layers.Dense(3), layers.BatchNormalization()])
NO_GRAPH = "`model` must be a SpikingModel, or a Functional or Sequential"


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (keras.Model(), TypeError, NO_GRAPH),
        (UNBUILT, ValueError, "`model` must know its input shape"),
    ],
)
def test_a_model_without_a_graph_is_an_error(model, error, message):
    with pytest.raises(error, match=message):
        fold(model)


# That nothing else changes.
def small_spiking(**settings):
    first = layers.Dense(8, use_bias=False), layers.BatchNormalization()
    network = helpers.chain(*first, ParametricLIF(), layers.Dense(3))
    return rsnn.SpikingModel(trained(network), timesteps=3, **settings)


@pytest.mark.on_each_backend
def test_a_folded_model_has_the_settings_is_trained_and_leaves_the_original():
    def state():
        paths = [weight.path for weight in model.weights]
        return paths, model.get_weights(), outputs_of(model, x)

    method = rsnn.gradients.Rate(windows=3)
    model = small_spiking(gradient=method, step_mode="single", name="mine")
    x, y = helpers.data()
    before = state()
    folded = fold(model)
    config, expected = folded.get_config(), model.get_config()
    assert config.pop("network") != expected.pop("network")
    assert config == expected
    assert folded.gradient is not method
    assert folded.network.name == model.network.name
    helpers.compiled(folded).fit(x, y, verbose=0)
    keras.tree.map_structure(assert_array_equal, state(), before)


@pytest.mark.on_each_backend
@pytest.mark.parametrize("policy", ["mixed_float16", "bfloat16"])
def test_weights_are_folded_in_full_precision(policy):
    def network(policy):
        normalization = layers.BatchNormalization(dtype=policy)
        dense = layers.Dense(4, dtype=policy)
        return helpers.chain(dense, normalization, dtype="float32")

    half, single = network(policy), trained(network("float32"))
    half.set_weights(single.get_weights())
    single.set_weights([np.float32(weight) for weight in half.get_weights()])
    folded = fold(half)
    dtype = "float32" if policy.startswith("mixed") else policy
    for actual, expected in zip(folded.weights, fold(single).weights, strict=True):
        assert actual.dtype == dtype
        rounded = keras.ops.cast(expected.value, dtype)
        assert_array_equal(
            np.float32(to_numpy(actual.value)), np.float32(to_numpy(rounded))
        )
    assert folded.output.dtype == half.output.dtype


def test_a_network_is_the_same_without_normalization():
    with helpers.double_precision():
        model = rsnn.models.PreActResNet18((8, 8, 3), timesteps=2, width=0.125)
        trained(model.network)
        folded = fold(model)
        assert len(folded.fold_report.folded) == 20
        assert normalizations(folded) == []
        # Outputs sum all blocks, up to 100, of which float32 keeps 4e-6. If a layer of
        # the last block is wrong by 1 %, they change by 8e-3.
        check_equal(model, folded, data(2, 8, 8, 3), atol=2e-4)
