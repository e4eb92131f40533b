"""fold_batch_normalization: equal outputs in inference, what is folded and what stays,
and that nothing else changes.

Spikes are steps: a membrane within rounding of its threshold may spike in one network
and not in the other. So the currents of spiking networks are compared in float32 layer
by layer, for the same inputs of a layer. Their outputs are compared in float64, where
none of these random membranes is that close. (On PyTorch, Keras computes batch
normalisation and sums in float32 even then, see docs/upstream.md: outputs are equal to
a few roundings of the largest of them, not to 1e-12.)
"""

import functools

import helpers
import keras
import numpy as np
import pytest
from helpers import BACKEND, saved_and_loaded, to_numpy
from keras import layers

import keras_ratesnn as rsnn
from keras_ratesnn.layers import (
    OnlineRenormalization,
    TemporalEffectiveBatchNormalization,
    ThresholdDependentBatchNormalization,
    WSConv2D,
    WSDense,
)

pytestmark = pytest.mark.runs_once

fold = functools.partial(rsnn.fold_batch_normalization, verbose=False)


def data(*shape, seed=0):
    return np.random.default_rng(seed).normal(0.5, 1.0, shape)


def trained(network, seed=0):
    """The network with random statistics, scales, shifts and biases, as if it had been
    trained."""
    random = np.random.default_rng(seed)
    for weight in network.weights:
        if weight.name in ("moving_mean", "beta", "bias"):
            weight.assign(
                random.normal(0.3 if weight.name == "beta" else 0.0, 0.5, weight.shape)
            )
        elif weight.name in ("moving_variance", "gain"):
            weight.assign(random.uniform(0.3, 2.0, weight.shape))
        elif weight.name == "gamma":
            weight.assign(
                random.uniform(1.0, 4.0, weight.shape)
                * random.choice([-1.0, 1.0, 1.0], weight.shape)
            )
    return network


def normalizations(model):
    network = model.network if isinstance(model, rsnn.SpikingModel) else model
    return [
        layer
        for layer in network._flatten_layers()
        if isinstance(layer, layers.BatchNormalization)
    ]


def outputs_of(model, x):
    return keras.tree.flatten(to_numpy(model(x, training=False)))


def check_equal(model, folded, x, atol):
    """Outputs are equal, and depend on the inputs."""
    for before, after in zip(outputs_of(model, x), outputs_of(folded, x), strict=True):
        assert np.ptp(before, axis=0).max() > 1e-3
        np.testing.assert_allclose(after, before, atol=atol, rtol=0)


def check_currents(network, folded):
    """Each folded layer gives the currents that the normalisation gave, for random
    inputs."""
    for change in folded.fold_report.folded:
        before, normalization = (
            network.get_layer(change.into),
            network.get_layer(change.name),
        )
        x = data(2, *before.input.shape[1:]).astype("float32")
        expected = to_numpy(normalization(before(x), training=False))
        assert np.ptp(expected, axis=0).max() > 0.1
        # In units of the largest current, 30 or so where one neuron has thousands of
        # inputs.
        difference = to_numpy(folded.network.get_layer(change.into)(x)) - expected
        assert np.abs(difference).max() < 1e-4 * max(1.0, np.abs(expected).max())


def reasons(folded):
    return {change.name: change.reason for change in folded.fold_report.kept}


# Layers.
LAYERS = {
    "conv1d": (functools.partial(layers.Conv1D, 4, 3, padding="causal"), (6, 2)),
    "conv2d": (
        functools.partial(layers.Conv2D, 4, 3, strides=2, padding="same"),
        (6, 6, 2),
    ),
    "conv3d": (functools.partial(layers.Conv3D, 3, 2), (3, 3, 3, 2)),
    "grouped": (functools.partial(layers.Conv2D, 6, 3, groups=2), (5, 5, 4)),
    "depthwise1d": (
        functools.partial(layers.DepthwiseConv1D, 3, depth_multiplier=2),
        (6, 3),
    ),
    "depthwise2d": (
        functools.partial(layers.DepthwiseConv2D, 3, depth_multiplier=3),
        (5, 5, 2),
    ),
    "separable1d": (functools.partial(layers.SeparableConv1D, 4, 3), (6, 2)),
    "separable2d": (
        functools.partial(layers.SeparableConv2D, 4, 3, depth_multiplier=2),
        (5, 5, 3),
    ),
    "transposed1d": (functools.partial(layers.Conv1DTranspose, 4, 3), (5, 2)),
    "transposed2d": (
        functools.partial(layers.Conv2DTranspose, 4, 3, strides=2),
        (4, 4, 2),
    ),
    "transposed3d": (functools.partial(layers.Conv3DTranspose, 3, 2), (2, 2, 2, 2)),
    "dense": (functools.partial(layers.Dense, 4), (6,)),
    "dense on rows": (functools.partial(layers.Dense, 4), (5, 6)),
    "standardized": (functools.partial(WSConv2D, 4, 3), (5, 5, 2)),
    "standardized dense": (functools.partial(WSDense, 4), (6,)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_normalization_is_folded_into_every_kind_of_layer(name):
    make, shape = LAYERS[name]
    inputs = x = keras.Input(shape)
    for use_bias, kwargs in (
        (True, {}),
        (False, {"scale": False}),
        (False, {"center": False}),
    ):
        branch = layers.BatchNormalization(epsilon=1e-2, **kwargs)(
            make(use_bias=use_bias)(inputs)
        )
        x = [branch] if x is inputs else [*x, branch]
    network = trained(keras.Model(inputs, x))
    folded = fold(network)
    assert normalizations(folded) == []
    assert [type(layer) for layer in folded.layers] == [
        type(layer)
        for layer in network.layers
        if not isinstance(layer, layers.BatchNormalization)
    ]
    check_equal(network, folded, data(3, *shape).astype("float32"), 1e-4)


@pytest.mark.skipif(
    BACKEND == "tensorflow",
    reason="TensorFlow has no channels_first convolutions on a CPU",
)
@pytest.mark.parametrize(
    "name",
    ["conv2d", "grouped", "depthwise2d", "separable2d", "transposed2d", "standardized"],
)
def test_channels_may_come_first(name):
    make, (*space, channels) = LAYERS[name]
    inputs = keras.Input((channels, *space))
    convolution = make(use_bias=False, data_format="channels_first", name="convolution")
    network = trained(
        keras.Model(inputs, layers.BatchNormalization(axis=1)(convolution(inputs)))
    )
    folded = fold(network)
    assert normalizations(folded) == []
    check_equal(network, folded, data(3, channels, *space).astype("float32"), 1e-4)


@pytest.mark.parametrize(
    "normalization",
    [
        functools.partial(layers.BatchNormalization, renorm=True),
        functools.partial(layers.BatchNormalization, trainable=False),
        functools.partial(ThresholdDependentBatchNormalization, threshold=0.5),
        OnlineRenormalization,
    ],
)
def test_every_normalization_that_is_a_scale_and_a_shift_in_inference_is_folded(
    normalization,
):
    network = trained(
        keras.Sequential([keras.Input((6,)), layers.Dense(4), normalization()])
    )
    folded = fold(network)
    assert isinstance(folded, keras.Sequential)
    assert normalizations(folded) == []
    check_equal(network, folded, data(5, 6).astype("float32"), 1e-4)


def test_a_custom_layer_declares_that_its_outputs_can_be_scaled():
    @keras.saving.register_keras_serializable("test_fold")
    class Halved(layers.Dense):
        layer_kind = rsnn.LayerKind(
            affine=True, output_factors=lambda layer: ("kernel", (-1,))
        )

        def call(self, inputs, training=None):
            outputs = keras.ops.matmul(0.5 * inputs, self.kernel)
            return outputs + self.bias if self.use_bias else outputs

    network = trained(
        keras.Sequential(
            [keras.Input((6,)), Halved(4, use_bias=False), layers.BatchNormalization()]
        )
    )
    folded = fold(network)
    assert normalizations(folded) == []
    check_equal(network, folded, data(5, 6).astype("float32"), 1e-4)


# Places in the graph.
def test_a_layer_used_twice_is_folded_if_the_same_normalization_always_follows():
    shared, normalization = (
        layers.Dense(4, name="shared"),
        layers.BatchNormalization(name="normalization"),
    )
    a, b = keras.Input((6,), name="a"), keras.Input((6,), name="b")
    x = {
        "a": data(5, 6, seed=1).astype("float32"),
        "b": data(5, 6, seed=2).astype("float32"),
    }

    alike = trained(
        keras.Model(
            {"a": a, "b": b},
            layers.Add()([normalization(shared(a)), normalization(shared(b))]),
        )
    )
    assert normalizations(fold(alike)) == []
    check_equal(alike, fold(alike), x, 1e-4)

    other = layers.BatchNormalization(name="other")
    differing = trained(
        keras.Model(
            {"a": a, "b": b}, layers.Add()([normalization(shared(a)), other(shared(b))])
        )
    )
    assert reasons(fold(differing)) == dict.fromkeys(
        ["normalization", "other"], "the layer before also feeds others"
    )
    check_equal(differing, fold(differing), x, 1e-4)


@pytest.mark.on_each_backend
def test_nested_models_are_folded_inside_and_across_their_borders():
    inner = keras.Sequential(
        [keras.Input((8,)), layers.BatchNormalization(name="first"), layers.ReLU()],
        name="inner",
    )
    only = keras.Sequential(
        [keras.Input((8,)), layers.BatchNormalization(name="only")], name="only"
    )
    x = within = keras.Input((8,))
    x = layers.Dense(8)(layers.BatchNormalization(name="own")(layers.Dense(8)(x)))
    last = keras.Model(within, x, name="last")
    last.trainable = False
    inputs = keras.Input((6,))
    x = inner(layers.Dense(8)(inputs))
    x = only(layers.Dense(8)(x))
    x = layers.BatchNormalization(name="outer")(last(x))
    network = trained(keras.Model(inputs, x))
    folded = fold(network)
    assert [change.name for change in folded.fold_report.folded] == [
        "first",
        "only",
        "own",
        "outer",
    ]
    assert normalizations(folded) == []
    assert not folded.get_layer("last").trainable
    check_equal(network, folded, data(5, 6).astype("float32"), 1e-4)


def test_a_tower_that_is_called_twice_is_folded():
    tower = keras.Sequential(
        [keras.Input((6,)), layers.Dense(4), layers.BatchNormalization()], name="tower"
    )
    a, b = keras.Input((6,), name="a"), keras.Input((6,), name="b")
    network = trained(keras.Model([a, b], layers.Concatenate()([tower(a), tower(b)])))
    assert normalizations(fold(network)) == []
    check_equal(
        network,
        fold(network),
        [data(5, 6).astype("float32"), data(5, 6, seed=1).astype("float32")],
        1e-4,
    )


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


def with_lora(x):
    dense = layers.Dense(6)
    x = dense(x)
    dense.enable_lora(2)
    return layers.BatchNormalization(name="bn")(x)


def after(*before, **kwargs):
    """Layers, and batch normalisation after them."""
    return lambda x: functools.reduce(
        lambda x, layer: layer(x),
        [*(make() for make in before), layers.BatchNormalization(name="bn", **kwargs)],
        x,
    )


@pytest.mark.parametrize(
    ("build", "name", "reason"),
    [
        (after(), "bn", "after an input"),
        (after(functools.partial(layers.ReLU)), "bn", "after ReLU"),
        (
            after(functools.partial(layers.EinsumDense, "ab,bc->ac", 6)),
            "bn",
            "after EinsumDense",
        ),
        (
            after(functools.partial(layers.Dense, 6, activation="relu")),
            "bn",
            "after an activation",
        ),
        (
            after(
                functools.partial(layers.Reshape, (2, 3)),
                functools.partial(layers.Dense, 6),
                axis=1,
            ),
            "bn",
            "another axis",
        ),
        (
            after(functools.partial(layers.Dense, 6), dtype="mixed_bfloat16"),
            "bn",
            "another precision",
        ),
        (two_readers, "bn", "the layer before also feeds others"),
        (with_lora, "bn", "after a layer with LoRA"),
        (
            lambda x: TemporalEffectiveBatchNormalization(2, name="bn")(
                layers.Dense(6)(x)
            ),
            "bn",
            "a factor for each time step",
        ),
        (lambda x: Doubled(name="bn")(layers.Dense(6)(x)), "bn", "another computation"),
        (
            lambda x: Holder(name="holder")(layers.Dense(6)(x)),
            "holder/inner",
            "inside a layer",
        ),
    ],
)
def test_what_cannot_be_folded_stays_and_is_reported(build, name, reason):
    inputs = keras.Input((6,))
    network = trained(keras.Model(inputs, build(inputs)))
    folded = fold(network)
    assert list(reasons(folded)) == [name]
    assert reasons(folded)[name].startswith(reason)
    assert len(normalizations(folded)) == 1
    np.testing.assert_array_equal(
        outputs_of(folded, data(4, 6))[0], outputs_of(network, data(4, 6))[0]
    )


def test_the_report_is_printed(capsys):
    inputs = keras.Input((6,))
    network = keras.Model(
        inputs,
        two_readers(layers.BatchNormalization()(layers.Dense(3, name="into")(inputs))),
    )
    folded = rsnn.fold_batch_normalization(network)
    assert capsys.readouterr().out == f"{folded.fold_report}\n"
    assert str(folded.fold_report).splitlines() == [
        "fold_batch_normalization: 1 of 2 batch normalisations were folded.",
        "  stays (the layer before also feeds others): bn",
    ]
    assert [change.into for change in folded.fold_report.folded] == ["into"]


def test_a_model_without_a_graph_is_an_error():
    class Subclassed(keras.Model):
        pass

    for model in (Subclassed(), layers.Dense(3), None):
        with pytest.raises(
            TypeError,
            match="`model` must be a SpikingModel, or a Functional or Sequential",
        ):
            fold(model)
    with pytest.raises(ValueError, match="`model` must know its input shape"):
        fold(keras.Sequential([layers.Dense(3), layers.BatchNormalization()]))


# That nothing else changes.
def small_spiking(**kwargs):
    inputs = keras.Input((6,))
    x = rsnn.layers.ParametricLIF(name="neurons")(
        layers.BatchNormalization()(layers.Dense(8, use_bias=False)(inputs))
    )
    return rsnn.SpikingModel(
        trained(keras.Model(inputs, layers.Dense(3)(x), name="network")),
        timesteps=3,
        **kwargs,
    )


def test_settings_of_a_spiking_model_are_kept():
    model = small_spiking(
        gradient=rsnn.gradients.Rate(windows=3),
        step_mode="single",
        return_sequences=True,
        name="mine",
    )
    folded = fold(model)
    config, before = folded.get_config(), model.get_config()
    assert {**config, "network": None} == {**before, "network": None}
    assert config["network"] != before["network"]
    assert folded.gradient is not model.gradient
    assert folded.network.name == "network"


def test_the_original_model_is_not_changed():
    model = small_spiking()
    before = (
        [weight.path for weight in model.weights],
        to_numpy(model.get_weights()),
        outputs_of(model, data(4, 6)),
    )
    folded = fold(model)
    for weight in folded.weights:
        weight.assign(keras.ops.ones_like(weight.value))
    after = (
        [weight.path for weight in model.weights],
        to_numpy(model.get_weights()),
        outputs_of(model, data(4, 6)),
    )
    assert before[0] == after[0]
    keras.tree.map_structure(np.testing.assert_array_equal, before[1:], after[1:])


@pytest.mark.on_each_backend
def test_a_folded_model_is_saved_loaded_and_trained():
    folded = fold(small_spiking())
    loaded = saved_and_loaded(folded)
    x, y = helpers.data()
    np.testing.assert_array_equal(
        loaded.predict(x, verbose=0), folded.predict(x, verbose=0)
    )
    history = helpers.compiled(loaded).fit(x, y, verbose=0)
    assert np.isfinite(history.history["loss"][0])


@pytest.mark.on_each_backend
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "bfloat16"])
def test_weights_are_folded_in_full_precision(policy):
    def network(policy):
        inputs = keras.Input((6,), dtype="float32")
        x = layers.BatchNormalization(dtype=policy)(
            layers.Dense(4, dtype=policy)(inputs)
        )
        return keras.Model(inputs, x)

    half, single = network(policy), trained(network("float32"))
    half.set_weights(single.get_weights())
    single.set_weights([np.asarray(weight, "float32") for weight in half.get_weights()])
    for here, expected in zip(fold(half).weights, fold(single).weights, strict=True):
        expected, here_again = (
            keras.ops.cast(keras.ops.cast(x.value, here.dtype), "float32")
            for x in (expected, here)
        )
        np.testing.assert_array_equal(to_numpy(here_again), to_numpy(expected))
        assert here.dtype == ("float32" if policy.startswith("mixed") else policy)
    assert fold(half).output.dtype == half.output.dtype


# Networks.
def inverted_bottlenecks():
    """Two blocks of a MobileNetV2, the second with a skip connection."""
    inputs, x = helpers.inverted_bottlenecks()
    outputs = layers.Dense(3)(layers.Flatten()(x))
    return rsnn.spikify(
        trained(keras.Model(inputs, outputs)), timesteps=2, verbose=False
    )


def normalized_first():
    """A block with normalisation and neurons before each convolution; the stem feeds
    the shortcut, too."""
    inputs = keras.Input((8, 8, 3))
    x = stem = layers.Conv2D(8, 3, padding="same")(inputs)
    for _ in range(2):
        x = layers.Conv2D(8, 3, padding="same")(
            rsnn.layers.LIF()(layers.BatchNormalization()(x))
        )
    x = rsnn.layers.LIF()(layers.BatchNormalization()(layers.Add()([stem, x])))
    return rsnn.SpikingModel(
        trained(keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))), timesteps=2
    )


def mobilenet():
    """With the statistics of its data: otherwise no difference between two inputs would
    reach the end of so deep a network."""
    network = keras.applications.MobileNetV2(
        (32, 32, 3), alpha=0.35, weights=None, classes=10, classifier_activation=None
    )
    trained(network)
    x = data(8, 32, 32, 3)
    for layer in normalizations(network):
        layer.momentum = 0.0
    network(x, training=True)
    return rsnn.spikify(network, timesteps=4, calibrate=x, verbose=False)


def of(builder, size, **kwargs):
    def build():
        model = getattr(rsnn.models, builder)((size, size, 3), classes=10, **kwargs)
        trained(model.network)
        return model

    return build


TINY = {"timesteps": 2, "width": 0.125}
slow = pytest.mark.slow


@pytest.mark.parametrize(
    ("build", "size", "folded_number", "left"),
    [
        pytest.param(of("ResNet18", 8, **TINY), 8, 20, [], id="resnet18"),
        pytest.param(of("VGG11", 16, **TINY), 16, 8, [], id="vgg11"),
        pytest.param(of("PreActResNet18", 8, **TINY), 8, 20, [], id="preact resnet18"),
        pytest.param(
            inverted_bottlenecks,
            8,
            6,
            [],
            id="inverted bottlenecks",
            marks=pytest.mark.on_each_backend,
        ),
        pytest.param(
            normalized_first,
            8,
            1,
            ["the layer before also feeds others", "after Add"],
            id="normalisation before convolution",
        ),
        pytest.param(
            of("SEWResNet34", 32, width=0.25, stem="cifar"),
            32,
            36,
            [],
            id="sew large",
            marks=slow,
        ),
        pytest.param(of("SEWResNet34", 8, **TINY), 8, 36, [], id="sew", marks=slow),
        pytest.param(of("ResNet18", 32), 32, 20, [], id="resnet18 large", marks=slow),
        pytest.param(of("VGG11", 32), 32, 8, [], id="vgg11 large", marks=slow),
        pytest.param(mobilenet, 32, 52, [], id="mobilenet", marks=slow),
    ],
)
def test_a_network_is_the_same_without_normalization(build, size, folded_number, left):
    x = data(2, size, size, 3)
    model = build()
    folded = fold(model)
    assert len(folded.fold_report.folded) == folded_number
    assert list(reasons(folded).values()) == left
    assert len(normalizations(folded)) == len(left)
    check_currents(model.network, folded)
    with helpers.double_precision():
        model = build()
        # The outputs of a pre-activation network sum all of its blocks, up to 100, of
        # which float32 keeps 4e-6. If a layer of the last block is wrong by 1 %, they
        # change by 8e-3.
        largest = max(np.abs(outputs).max() for outputs in outputs_of(model, x))
        check_equal(model, fold(model), x, 1e-5 + 1e-6 * largest)
