"""The spiking transformers: editions, and where they halve images."""

import helpers
import keras
import pytest

import keras_ratesnn as rsnn
from keras_ratesnn import models

pytestmark = pytest.mark.runs_once

NETWORKS = [models.Spikformer, models.QKFormer, models.MaxFormer]
WITH_SPIKE_DRIVEN = [*NETWORKS, models.SpikeDrivenTransformer]


def of_networks(networks):
    return pytest.mark.parametrize(
        "network", networks, ids=lambda network: network.__name__
    )


def small(network, **kwargs):
    arguments = {"classes": 3, "timesteps": 2, "dims": 32, "blocks": 4, "heads": 2}
    return network((16, 16, 3), **{**arguments, **kwargs})


@of_networks(NETWORKS)
def test_the_edition_depends_on_the_image(network):
    tokens = {(28, 28, 1): 49, (124, 128, 2): 992, (160, 128, 1): 80, (128, 128, 2): 64}
    with keras.StatelessScope(initialize_variables=False):
        found = {shape: network(shape, dims=32, blocks=4, heads=2) for shape in tokens}
    assert {shape: tokens_of(model) for shape, model in found.items()} == tokens
    cifar, dvs = block_names(found[124, 128, 2]), block_names(found[128, 128, 2])
    assert (cifar == dvs) == (network is models.Spikformer)


def block_names(model):
    return [
        layer.name for layer in model.network.layers if layer.name.endswith("mlp_add")
    ]


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
    with keras.StatelessScope(initialize_variables=False):
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


@of_networks([models.Spikformer, models.SpikeDrivenTransformer])
def test_the_edition_gives_the_default_image(network):
    shapes = {"imagenet": (224, 224, 3), "dvs": (128, 128, 2), None: (32, 32, 3)}
    for edition, shape in shapes.items():
        with keras.StatelessScope(initialize_variables=False):
            model = network(dims=256, edition=edition)
        assert model.network.input_shape == (None, *shape)
    assert model.name == network.__name__.lower()


@of_networks(WITH_SPIKE_DRIVEN)
def test_measurements_see_the_neurons_of_attention(network):
    model, x = small(network), helpers.data(4, (16, 16, 3))[0]
    described = rsnn.describe(model, x, verbose=False)
    assert "attention_query_neuron" in str(described)
    counted = described.energy
    attention = [name for name in counted.layers if "attention" in name]
    parts = {name.rsplit("_", 1)[-1] for name in attention}
    assert parts >= {"query", "key", "output"}
    assert counted.not_counted == ()


def test_heads_of_maxformer_divide_the_channels_of_the_stage_with_attention_alone():
    model = small(models.MaxFormer, heads=16, blocks=3)
    attention = model.network.get_layer("stage3_block1_attention_neuron")
    assert attention.output.shape == (None, 16, 16, 2)
