"""The spiking transformers have the size of the authors' networks, treat samples alike,
and can be trained."""

import math

import helpers
import keras
import numpy as np
import pytest
from helpers import (
    BACKEND,
    assert_trains,
    loss_and_gradients,
    saved_and_loaded,
    to_numpy,
)

import keras_ratesnn as rsnn
from keras_ratesnn import models
from keras_ratesnn.layers import LIF, Neuron

pytestmark = pytest.mark.runs_once

NETWORKS = [models.Spikformer, models.QKFormer, models.MaxFormer]
WITH_SPIKE_DRIVEN = [*NETWORKS, models.SpikeDrivenTransformer]
EDITIONS = [
    (network, edition)
    for network in NETWORKS
    for edition in ("imagenet", "cifar", "dvs")
]
EDITIONS += [(models.SpikeDrivenTransformer, "cifar")]

SIZES = {"imagenet": 32, "cifar": 16, "dvs": 32}
"""Of images with some tokens."""


def of_networks(networks=NETWORKS):
    return pytest.mark.parametrize(
        "network", networks, ids=lambda network: network.__name__
    )


def of_editions():
    return pytest.mark.parametrize(
        ("network", "edition"),
        EDITIONS,
        ids=[f"{network.__name__}-{edition}" for network, edition in EDITIONS],
    )


def small(
    network, size=16, channels=3, timesteps=2, dims=32, blocks=4, heads=2, **kwargs
):
    return network(
        (size, size, channels),
        classes=3,
        timesteps=timesteps,
        dims=dims,
        blocks=blocks,
        heads=heads,
        **kwargs,
    )


def images(size=16, channels=3, samples=4):
    return helpers.data(samples, (size, size, channels), 3)


def firing(network, size=16, channels=3, **kwargs):
    """A small network whose neurons fire often, with and without batch statistics."""
    model = small(network, size, channels, **kwargs)
    for layer in [
        layer
        for layer in model.network.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]:
        layer.gamma.assign(np.full(layer.gamma.shape, 1.5))
        # The sums of these blocks are of currents, not of spikes, and would grow.
        of_currents = network in (models.MaxFormer, models.SpikeDrivenTransformer)
        summed = of_currents and not layer.name.endswith(
            ("query_bn", "key_bn", "value_bn")
        )
        layer.beta.assign(np.full(layer.beta.shape, 0.2 if summed else 1.0))
    take_statistics(model, images(size, channels)[0])
    return model


def take_statistics(model, x):
    """Makes the statistics of a batch those of inference."""
    normalizations = [
        layer
        for layer in model.network.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    for layer in normalizations:
        layer.momentum = 0.0
    model(x, training=True)
    for layer in normalizations:
        layer.momentum = 0.9


def unused(dims, blocks):
    """The parameters of the two layer normalisations of a block, which the authors'
    program never uses."""
    return 4 * dims * blocks


IMAGENET = {"classes": 1000, "edition": "imagenet"}
DVS = {"edition": "dvs", "dims": 256, "blocks": 2}


@pytest.mark.parametrize(
    ("network", "arguments", "expected"),
    [
        (
            models.Spikformer,
            {"blocks": 8, "dims": 384, **IMAGENET},
            16_828_312 - unused(384, 8),
        ),
        (
            models.Spikformer,
            {"blocks": 6, "dims": 512, **IMAGENET},
            23_385_640 - unused(512, 6),
        ),
        (
            models.Spikformer,
            {"blocks": 8, "dims": 512, **IMAGENET},
            29_705_768 - unused(512, 8),
        ),
        (
            models.Spikformer,
            {"blocks": 10, "dims": 512, **IMAGENET},
            36_025_896 - unused(512, 10),
        ),
        (
            models.Spikformer,
            {"blocks": 8, "dims": 768, **IMAGENET},
            66_363_208 - unused(768, 8),
        ),
        (models.Spikformer, {"blocks": 4, "dims": 256}, 4_159_274 - unused(256, 4)),
        (models.Spikformer, {"blocks": 2, "dims": 384}, 5_768_122 - unused(384, 2)),
        (models.Spikformer, {"blocks": 4, "dims": 384}, 9_330_874 - unused(384, 4)),
        # This program has a third normalisation and an embedding of the position of 64
        # tokens, which it does not use either.
        (models.Spikformer, DVS, 2_585_610 - unused(256, 2) - 2 * 256 - 64 * 256),
        (models.QKFormer, {"blocks": 10, "dims": 384, **IMAGENET}, 16_473_688),
        (models.QKFormer, {"blocks": 10, "dims": 512, **IMAGENET}, 29_079_336),
        (models.QKFormer, {"blocks": 10, "dims": 768, **IMAGENET}, 64_962_760),
        (models.QKFormer, {"classes": 10}, 6_706_234),
        (models.QKFormer, {"classes": 100}, 6_740_884),
        (models.QKFormer, {"classes": 10, **DVS}, 1_504_138),
        (models.QKFormer, {"classes": 11, **DVS}, 1_504_395),
        (models.QKFormer, {"classes": 11, "mlp_ratio": 4, **DVS}, 1_999_371),
        (models.MaxFormer, {"blocks": 10, "dims": 384, **IMAGENET}, 16_237_240),
        (models.MaxFormer, {"blocks": 10, "dims": 512, **IMAGENET}, 28_653_480),
        (models.MaxFormer, {"blocks": 10, "dims": 768, **IMAGENET}, 63_992_200),
        (models.MaxFormer, {"classes": 10}, 6_568_282),
        (models.MaxFormer, {"classes": 100}, 6_602_932),
        (models.MaxFormer, {"classes": 10, **DVS}, 1_455_626),
        (models.MaxFormer, {"classes": 11, **DVS}, 1_455_883),
        (models.ESpikeFormer, {"dims": (24, 48, 96, 128)}, 2_702_048),
        (models.ESpikeFormer, {"dims": (32, 64, 128, 192)}, 5_105_608),
        (models.ESpikeFormer, {"dims": (48, 96, 192, 240)}, 10_023_112),
        (models.ESpikeFormer, {}, 18_987_504),
        (models.ESpikeFormerLarge, {}, 170_971_714),
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
        (
            models.SpikeDrivenTransformer,
            {"blocks": 6, "dims": 512, **IMAGENET},
            23_373_736 - 6 * 8**2,
        ),
        (
            models.SpikeDrivenTransformer,
            {"blocks": 8, "dims": 512, **IMAGENET},
            29_689_896 - 8 * 8**2,
        ),
        (
            models.SpikeDrivenTransformer,
            {"blocks": 10, "dims": 512, **IMAGENET},
            36_006_056 - 10 * 8**2,
        ),
        (
            models.SpikeDrivenTransformer,
            {"blocks": 8, "dims": 768, **IMAGENET},
            66_339_144 - 8 * 8**2,
        ),
        (models.MetaSpikeFormer, {"dims": (64, 128, 256, 360)}, 15_112_208),
        (models.MetaSpikeFormer, {"dims": (96, 192, 384, 480)}, 31_333_864),
        (models.MetaSpikeFormer, {}, 55_350_248),
        # The paper's 11.14, 17.76 and 35.52 million are those without normalisations,
        # its 60.38 million are all.
        (models.SpikingResformer, {}, 11_180_992),
        (models.SpikingResformer, {"dims": (64, 256, 512)}, 17_813_824),
        (models.SpikingResformer, {"dims": (64, 384, 768)}, 35_601_472),
        (models.SpikingResformer, {"dims": (128, 512, 1024)}, 60_375_680),
        (models.SpikingResformer, {"input_shape": (32, 32, 3)}, 11_173_312),
    ],
)
def test_the_number_of_trainable_parameters_is_that_of_the_authors(
    network, arguments, expected
):
    # No weights are drawn.
    with keras.StatelessScope(initialize_variables=False):
        model = network(**arguments)
    assert (
        sum(math.prod(variable.shape) for variable in model.trainable_variables)
        == expected
    )


@of_networks()
def test_the_edition_depends_on_the_image(network):
    tokens = {(28, 28, 1): 49, (124, 128, 2): 992, (160, 128, 1): 80, (128, 128, 2): 64}
    with keras.StatelessScope(initialize_variables=False):
        found = {shape: network(shape, dims=32, blocks=4, heads=2) for shape in tokens}
    assert {shape: tokens_of(model) for shape, model in found.items()} == tokens
    of_cifar, of_dvs = (
        block_names(found[shape]) for shape in ((124, 128, 2), (128, 128, 2))
    )
    assert (of_cifar == of_dvs) == (network is models.Spikformer)


def block_names(model):
    return [
        layer.name for layer in model.network.layers if layer.name.endswith("mlp_add")
    ]


def tokens_of(model):
    return model.network.get_layer("tokens").output.shape[1]


def test_pooling_stat_says_where_a_spike_driven_transformer_halves_images():
    def pools(shape, **arguments):
        model = models.SpikeDrivenTransformer(shape, dims=32, blocks=1, **arguments)
        names = [layer.name for layer in model.network.layers]
        assert names.index("patches4_pool") < names.index("patches4_neuron")
        assert "patches3_pool" not in names or names.index(
            "patches3_neuron"
        ) < names.index("patches3_pool")
        return tokens_of(model), "".join(
            str(int(f"patches{number}_pool" in names)) for number in (1, 2, 3, 4)
        )

    with keras.StatelessScope(initialize_variables=False):
        assert pools((32, 32, 3)) == (64, "0011")
        assert pools((128, 128, 3)) == (64, "1111")
        assert pools((128, 128, 2)) == (256, "0111")
        assert pools((32, 16, 3), pooling_stat="1101") == (8, "1101")
    for wrong, error in (
        ("011", ValueError),
        ("0012", ValueError),
        ("0011\n", ValueError),
        (11, TypeError),
    ):
        with pytest.raises(
            error, match=r"`pooling_stat` must be .* Received: pooling_stat="
        ):
            models.SpikeDrivenTransformer(pooling_stat=wrong)
    with pytest.raises(ValueError, match="multiples of 16: in the edition 'cifar'"):
        models.SpikeDrivenTransformer((24, 32, 3), pooling_stat="1111")


@of_networks(WITH_SPIKE_DRIVEN)
def test_the_edition_gives_the_default_image(network):
    for edition, shape in (
        ("imagenet", (224, 224, 3)),
        ("cifar", (32, 32, 3)),
        ("dvs", (128, 128, 2)),
        (None, (32, 32, 3)),
    ):
        with keras.StatelessScope(initialize_variables=False):
            model = network(dims=256, edition=edition)
        assert model.network.input_shape == (None, *shape)
    assert model.name == network.__name__.lower()
    neurons = [layer for layer in model.network.layers if isinstance(layer, Neuron)]
    assert {(layer.decay, layer.decay_input, layer.reset) for layer in neurons} == {
        (0.5, True, "hard")
    }
    of_attention = [layer for layer in neurons if layer.threshold == 0.5]
    assert {layer.name.rsplit("_", 2)[-2] for layer in of_attention} == {"attention"}
    assert len(of_attention) == sum(
        layer.name.endswith("attention_output") for layer in model.network.layers
    )


# Every sample is treated alone: the authors' QKFormer runs neurons through the batch as
# if it were time.
@of_editions()
def test_samples_are_independent_and_a_step_reaches_every_kernel_in_both_layouts(
    network, edition
):
    size = SIZES[edition]
    model = firing(network, size=size, edition=edition)
    x, y = images(size)
    outputs = model.predict(x, verbose=0)
    assert np.ptp(outputs, axis=0).min() > 0
    np.testing.assert_allclose(
        model.predict(x[::-1], verbose=0)[::-1], outputs, rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(
        model.predict(x[2:3], verbose=0), outputs[2:3], rtol=1e-4, atol=1e-5
    )

    if BACKEND != "tensorflow":  # It has no channels_first convolutions on a CPU.
        keras.config.set_image_data_format("channels_first")
        first = network(
            (3, size, size),
            classes=3,
            timesteps=2,
            dims=32,
            blocks=4,
            heads=2,
            edition=edition,
        )
        first.set_weights(model.get_weights())
        np.testing.assert_allclose(
            first.predict(x.transpose(0, 3, 1, 2), verbose=0),
            outputs,
            rtol=1e-3,
            atol=1e-4,
        )
        keras.config.set_image_data_format("channels_last")
    assert_trains(model, x, y)


@of_networks()
def test_the_order_of_samples_does_not_matter_in_training(network):
    model = firing(network)
    x, _ = images()
    outputs = to_numpy(model(x, training=True))
    np.testing.assert_allclose(
        to_numpy(model(x[::-1], training=True))[::-1], outputs, rtol=1e-3, atol=1e-4
    )


# Training.
@pytest.mark.parametrize(
    ("network", "gradient", "step_mode"),
    [
        (models.MaxFormer, "rate", "multi"),
        # XLA takes long for the others.
        pytest.param(
            models.Spikformer, "rate", "single", marks=pytest.mark.on_each_backend
        ),
        (models.QKFormer, rsnn.gradients.Rate(windows=2), "multi"),
        (models.Spikformer, "sltt", "single"),
    ],
)
def test_networks_are_compiled_and_trained_by_every_method(
    network, gradient, step_mode
):
    blocks = 1 if network is models.Spikformer else 3
    model = small(
        network, 8, dims=16, blocks=blocks, gradient=gradient, step_mode=step_mode
    )
    model.compile(
        keras.optimizers.Adam(1e-2),
        cross_entropy(),
        jit_compile=BACKEND != "torch" or "auto",
    )
    x, y = images(8)
    losses = model.fit(x, y, batch_size=4, epochs=3, verbose=0).history["loss"]
    assert np.isfinite(losses).all()
    assert len(set(losses)) == 3


def cross_entropy():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def test_both_step_modes_give_the_same_logits():
    x, _ = images()
    multi = firing(models.MaxFormer)
    single = small(models.MaxFormer, step_mode="single")
    single.set_weights(multi.get_weights())
    np.testing.assert_allclose(
        single.predict(x, verbose=0), multi.predict(x, verbose=0), rtol=1e-4, atol=1e-5
    )


@pytest.mark.on_each_backend
def test_mixed_precision_trains():
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = small(models.QKFormer, 8, dims=16, blocks=3)
    loss, gradients = loss_and_gradients(model, *images(8))
    assert np.isfinite(loss)
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())
    assert gradients["stage3_block1_attention_query/kernel"].any()


def test_event_frames_train():
    x, y = helpers.data(4, (2, 16, 16, 2), 3)
    assert_trains(firing(models.Spikformer, channels=2), x, y)


# Networks in stages of convolutions and attention.
def espikeformer(input_shape=(32, 32, 3), **kwargs):
    return models.ESpikeFormer(
        input_shape,
        classes=3,
        **{"dims": (4, 8, 16, 24), "blocks": 3, "heads": 2, **kwargs},
    )


def large(input_shape=(32, 32, 3), **kwargs):
    arguments = {
        "dims": (4, 8, 16),
        "blocks": 1,
        "heads": 2,
        "shortcut_projection": True,
        **kwargs,
    }
    return models.ESpikeFormerLarge(input_shape, classes=3, **arguments)


def meta(input_shape=(32, 32, 3), **kwargs):
    arguments = {
        "timesteps": 2,
        "dims": (4, 8, 16, 24),
        "blocks": 3,
        "heads": 2,
        **kwargs,
    }
    return models.MetaSpikeFormer(input_shape, classes=3, **arguments)


of_staged_networks = pytest.mark.parametrize(
    "network",
    [espikeformer, large, meta],
    ids=["ESpikeFormer", "ESpikeFormerLarge", "MetaSpikeFormer"],
)


def attentive(network, *args):
    """A network whose attention is not silent with four tokens, and whose factors do
    not hide it."""
    model = network(*args)
    for layer in model.network.layers:
        if layer.name.endswith(
            ("query_bn", "key_bn", "value_bn", "query_bn2", "key_bn2", "value_bn2")
        ):
            layer.beta.assign(np.full(layer.beta.shape, 2.0))
        if layer.name.endswith("_factor"):
            layer.kernel.assign(np.ones(layer.kernel.shape))
    return model


@of_staged_networks
def test_a_network_in_stages_trains_and_its_samples_do_not_see_each_other(network):
    model = attentive(network)
    x, y = images(32)
    assert_trains(model, x, y)
    take_statistics(model, x)
    outputs = model.predict(x, verbose=0)
    assert np.ptp(outputs, axis=0).max() > 0
    np.testing.assert_allclose(
        model.predict(x[::-1], verbose=0)[::-1], outputs, rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(
        model.predict(x[2:3], verbose=0), outputs[2:3], rtol=1e-4, atol=1e-5
    )


@of_staged_networks
def test_a_saved_network_in_stages_loads_and_computes_the_same_in_channels_first_order(
    network,
):
    model, (x, _) = attentive(network), images(32)
    take_statistics(model, x)
    expected = model.predict(x, verbose=0)
    np.testing.assert_array_equal(
        saved_and_loaded(model).predict(x, verbose=0), expected
    )
    if BACKEND != "tensorflow":  # It has no channels_first convolutions on a CPU.
        keras.config.set_image_data_format("channels_first")
        first = network((3, 32, 32))
        first.set_weights(model.get_weights())
        found = first.predict(x.transpose(0, 3, 1, 2), verbose=0)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_what_a_block_of_a_large_espikeformer_adds_is_small_at_first():
    factors = [
        layer for layer in large().network.layers if layer.name.endswith("_factor")
    ]
    assert len(factors) == 2
    for layer in factors:
        np.testing.assert_allclose(to_numpy(layer.kernel), 1e-6)


@pytest.mark.parametrize(
    ("arguments", "error", "fragments"),
    [
        (
            {"timesteps": 4},
            ValueError,
            ["`timesteps` must be 1", "timesteps=4", "neuron=lambda"],
        ),
        ({"dims": 384}, TypeError, ["`dims` must be a tuple", "dims=384"]),
        ({"dims": (64, 128, 256)}, ValueError, ["`dims` must have four entries"]),
        ({"dims": (5, 8, 16, 24)}, ValueError, ["`dims[0]` must be even"]),
        ({"heads": 5}, ValueError, ["`heads` must divide", "16 and 24", "heads=5"]),
        ({"blocks": 2}, ValueError, ["`blocks` must be 3 or more"]),
        ({"input_shape": (40, 32, 3)}, ValueError, ["multiples of 16"]),
    ],
    ids=lambda value: str(next(iter(value))) if isinstance(value, dict) else None,
)
def test_wrong_arguments_of_an_espikeformer_are_named(arguments, error, fragments):
    with (
        keras.StatelessScope(initialize_variables=False),
        pytest.raises(error) as raised,
    ):
        espikeformer(**arguments)
    assert [
        fragment for fragment in fragments if fragment not in str(raised.value)
    ] == [], raised.value


@pytest.mark.parametrize(
    ("arguments", "error", "fragments"),
    [
        ({"dims": (64, 128, 256, 360)}, ValueError, ["`dims` must have three entries"]),
        ({"blocks": 0}, ValueError, ["`blocks` must be 1 or more"]),
        ({"shortcut_projection": 1}, TypeError, ["`shortcut_projection` must be"]),
        ({"timesteps": 4}, ValueError, ["`timesteps` must be 1"]),
    ],
    ids=lambda value: str(next(iter(value))) if isinstance(value, dict) else None,
)
def test_wrong_arguments_of_a_large_espikeformer_are_named(arguments, error, fragments):
    with (
        keras.StatelessScope(initialize_variables=False),
        pytest.raises(error) as raised,
    ):
        large(**arguments)
    assert [
        fragment for fragment in fragments if fragment not in str(raised.value)
    ] == [], raised.value


def test_an_espikeformer_takes_other_neurons_for_more_steps():
    with keras.StatelessScope(initialize_variables=False):
        model = espikeformer(timesteps=2, neuron=LIF)
    assert {
        type(layer) for layer in model.network.layers if isinstance(layer, Neuron)
    } == {LIF}


# Graphs that everything else sees inside.
@of_networks(WITH_SPIKE_DRIVEN)
def test_measurements_see_the_neurons_of_attention(network):
    model = firing(network)
    x, _ = images()
    assert "attention_query_neuron" in str(rsnn.describe(model, x))
    counted = rsnn.analysis.energy(model, x)
    assert {
        name.rsplit("_", 1)[-1] for name in counted.layers if "attention" in name
    } >= {"query", "key", "output"}
    assert counted.not_counted == ()


@of_networks()
def test_names_are_the_same_each_time_and_different(network):
    first, second = (
        small(network, neuron=lambda: LIF(learn_threshold=True)) for _ in range(2)
    )
    paths = [variable.path for variable in first.variables]
    assert [variable.path for variable in second.variables] == paths
    assert len(set(paths)) == len(paths)
    assert not [layer.name for layer in first.network.layers if "." in layer.name]


def test_a_saved_network_loads_and_gives_its_weights(tmp_path):
    model, path = firing(models.MaxFormer), tmp_path / "some.keras"
    x, _ = images()
    model.save(path)
    expected = model.predict(x, verbose=0)
    np.testing.assert_array_equal(
        keras.saving.load_model(path).predict(x, verbose=0), expected
    )
    np.testing.assert_array_equal(
        small(models.MaxFormer, weights=path).predict(x, verbose=0), expected
    )


# Arguments.
def test_heads_of_maxformer_divide_the_channels_of_the_stage_with_attention_alone():
    attention = small(models.MaxFormer, heads=16, blocks=3).network.get_layer(
        "stage3_block1_attention_neuron"
    )
    assert attention.output.shape == (None, 16, 16, 2)
    with pytest.raises(ValueError, match=r": 32\. Received: heads=3"):
        small(models.MaxFormer, heads=3)


@pytest.mark.parametrize(
    ("arguments", "error", "fragments"),
    [
        (
            {"heads": 3},
            ValueError,
            [
                "`heads` must divide the channels of every stage",
                ": 8.",
                "heads=3",
                "dims=32",
            ],
        ),
        (
            {"heads": None, "dims": 16},
            ValueError,
            ["heads=None, which stands for 8", "dims=16"],
        ),
        ({"heads": 0}, ValueError, ["`heads` must be 1 or more"]),
        ({"heads": 2.0}, TypeError, ["`heads` must be an integer"]),
        (
            {"input_shape": (30, 32, 3)},
            ValueError,
            ["multiples of 4", "edition 'cifar'", "(30, 32, 3)"],
        ),
        (
            {"input_shape": (132, 132, 3)},
            ValueError,
            ["multiples of 16", "edition 'imagenet'"],
        ),
        (
            {"input_shape": (None, 32, 3)},
            ValueError,
            ["`input_shape` must have a known height and width"],
        ),
        (
            {"input_shape": (32, 32)},
            ValueError,
            ["`input_shape` must have three entries"],
        ),
        ({"dims": 36}, ValueError, ["`dims` must be a multiple of 8", "dims=36"]),
        ({"dims": (8, 16)}, TypeError, ["`dims` must be an integer"]),
        (
            {"blocks": 2},
            ValueError,
            ["`blocks` must be 3 or more", "'cifar'", "blocks=2"],
        ),
        (
            {"edition": "mnist"},
            ValueError,
            ["`edition` must be one of 'imagenet', 'cifar', 'dvs'", "edition='mnist'"],
        ),
        ({"mlp_ratio": 0}, ValueError, ["`mlp_ratio` must be 1 or more"]),
        ({"classes": 0}, ValueError, ["`classes` must be 1 or more"]),
        (
            {"attention_neuron": "LIF"},
            TypeError,
            ["`attention_neuron` must be a function", "attention_neuron='LIF'"],
        ),
    ],
    ids=lambda value: str(next(iter(value))) if isinstance(value, dict) else None,
)
def test_wrong_arguments_are_named(arguments, error, fragments):
    with (
        keras.StatelessScope(initialize_variables=False),
        pytest.raises(error) as raised,
    ):
        models.QKFormer(
            **{
                "input_shape": (32, 32, 3),
                "dims": 32,
                "blocks": 4,
                "heads": 2,
                **arguments,
            }
        )
    message = str(raised.value)
    assert [fragment for fragment in fragments if fragment not in message] == [], (
        message
    )
