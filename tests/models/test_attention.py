"""Spiking attention: the formulas of the papers, exact in every precision, on tokens
and images."""

import keras
import numpy as np
import pytest
from helpers import to_numpy

from keras_ratesnn.layers import LIF
from keras_ratesnn.models import (
    spike_driven_attention,
    spiking_self_attention,
    token_attention,
)

ATTENTIONS = [spiking_self_attention, token_attention, spike_driven_attention]


def spikes_of(attention, shape, *args, **kwargs):
    """The spikes of the parts of an attention with random weights, at the first step,
    and those of attention."""
    inputs = keras.Input(shape)
    outputs = attention(inputs, *args, **kwargs, name="attention")
    parts = (
        ("query", "key") if attention is token_attention else ("query", "key", "value")
    )
    model = keras.Model(inputs, outputs)
    names = [f"attention_{part}_neuron" for part in parts] + ["attention_neuron"]
    inner = keras.Model(inputs, [model.get_layer(name).output for name in names])
    for layer in model.layers:
        if layer.name.endswith("_bn"):
            layer.gamma.assign(np.full(layer.gamma.shape, 3.0))
            layer.beta.assign(np.full(layer.beta.shape, 1.5))
    x = np.random.default_rng(0).normal(size=(2, *shape)).astype("float32")
    return to_numpy(inner(x)), to_numpy(model(x)), model


def by_head(x, heads):
    """Tokens as `(batch, heads, tokens, channels per head)`."""
    batch, tokens, channels = x.shape
    return x.reshape(batch, tokens, heads, channels // heads).transpose(0, 2, 1, 3)


@pytest.mark.parametrize("value_ratio", [1, 2])
def test_self_attention_is_the_formula(value_ratio):
    (query, key, value, found), outputs, _ = spikes_of(
        spiking_self_attention, (5, 8), 2, scale=0.25, value_ratio=value_ratio
    )
    query, key, value = (by_head(x, 2) for x in (query, key, value))
    # The first step halves the current.
    expected = 0.25 * query @ key.swapaxes(-1, -2) @ value / 2 >= 0.5
    assert 0 < expected.mean() < 1
    np.testing.assert_array_equal(found, expected)
    assert outputs.shape == (2, 5, 8)


def test_token_attention_is_the_formula():
    (query, key, found), _, model = spikes_of(token_attention, (5, 8), 4)
    query, key = by_head(query, 4), by_head(key, 4)
    expected = query.sum(axis=-1, keepdims=True) / 2 >= 0.5
    assert 0 < expected.mean() < 1
    np.testing.assert_array_equal(found.transpose(0, 2, 1, 3), expected)
    chosen = keras.Model(model.inputs[0], model.get_layer("attention_joined").output)
    x = np.random.default_rng(0).normal(size=(2, 5, 8)).astype("float32")
    np.testing.assert_array_equal(by_head(to_numpy(chosen(x)), 4), expected * key)


def test_spike_driven_attention_is_the_formula():
    (query, key, value, found), _, model = spikes_of(spike_driven_attention, (5, 8), 4)
    # The first step halves the current, which is at the threshold for a sum of 1.
    expected = (key * value).sum(axis=1, keepdims=True) / 2 >= 0.5
    assert 0 < expected.mean() < 1
    np.testing.assert_array_equal(found.reshape((2, 1, 8)), expected)
    chosen = keras.Model(model.inputs[0], model.get_layer("attention_joined").output)
    x = np.random.default_rng(0).normal(size=(2, 5, 8)).astype("float32")
    np.testing.assert_array_equal(to_numpy(chosen(x)), expected * query)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_images_are_their_tokens(attention):
    images, tokens = keras.Input((2, 3, 8)), keras.Input((6, 8))
    on_images = keras.Model(images, attention(images, 2))
    for layer in on_images.layers:
        if layer.name.endswith("_bn"):
            layer.beta.assign(np.full(layer.beta.shape, 1.5))
    on_tokens = keras.Model(tokens, attention(tokens, 2))
    on_tokens.set_weights(
        [
            np.reshape(ours, theirs.shape)
            for ours, theirs in zip(
                on_images.get_weights(), on_tokens.get_weights(), strict=True
            )
        ]
    )
    x = 9 * np.random.default_rng(0).normal(size=(2, 2, 3, 8)).astype("float32")
    expected = to_numpy(on_images(x)).reshape((2, 6, 8))
    assert expected.any()
    np.testing.assert_allclose(
        to_numpy(on_tokens(x.reshape((2, 6, 8)))), expected, rtol=1e-4, atol=1e-5
    )


def always():
    """Neurons that always spike."""
    return LIF(threshold=1e-3)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_counts_do_not_overflow_in_half_precision_and_small_ones_are_exact(policy):
    keras.config.set_dtype_policy(policy)
    seen = []

    class Recorder(LIF):
        def call(self, inputs, training=None):
            seen.append(to_numpy(keras.ops.cast(inputs, "float32")))
            return super().call(inputs, training)

    def counts(tokens):
        inputs = keras.Input((tokens, 64))
        outputs = spiking_self_attention(
            inputs, 1, neuron=always, attention_neuron=Recorder, name="attention"
        )
        model = keras.Model(inputs, outputs)
        for layer in model.layers:
            if layer.name.endswith("_bn"):
                layer.beta.assign(np.ones(layer.beta.shape))
        seen.clear()
        model(np.zeros((1, tokens, 64), "float32"))
        return seen[-1]

    assert (counts(1024) == 0.125 * 1024 * 64).all()
    assert (counts(1) == 0.125 * 64).all()


TOKENS = keras.Input((4, 8))


@pytest.mark.runs_once
@pytest.mark.parametrize(
    ("attention", "arguments", "error", "message"),
    [
        (spiking_self_attention, {"heads": 3}, ValueError, "divide.*heads=3.*8 chan"),
        (
            token_attention,
            {"inputs": keras.Input((4, 4, 8)), "heads": 3},
            ValueError,
            "`heads` must divide.*heads=3.*8 channels",
        ),
        (spiking_self_attention, {"heads": 0}, ValueError, "`heads` must be 1 or more"),
        (spiking_self_attention, {"scale": 0.0}, ValueError, "`scale` must be > 0"),
        (spiking_self_attention, {"use_bias": 1}, TypeError, "`use_bias` must be True"),
        (
            token_attention,
            {"name": 5},
            TypeError,
            "`name` must be a str.*begin with it",
        ),
        (
            spiking_self_attention,
            {"neuron": "LIF"},
            TypeError,
            "`neuron` must be a fun",
        ),
        (token_attention, {"projection": "dense"}, TypeError, "`projection` must be a"),
        (
            token_attention,
            {"inputs": keras.Input((8,))},
            ValueError,
            r"must be tokens \(batch, tokens, channels\) or images",
        ),
        (
            token_attention,
            {"inputs": keras.Input((None, None, 8))},
            ValueError,
            r"must have a known.*\(None, None, None, 8\)",
        ),
        (
            token_attention,
            {"inputs": keras.layers.Masking()(TOKENS)},
            ValueError,
            "attends to all tokens.*with a mask",
        ),
        (
            token_attention,
            {"inputs": np.ones((1, 4, 8))},
            TypeError,
            "(?s)`inputs` must be a KerasTensor.*keras.Input",
        ),
    ],
)
def test_wrong_arguments_are_named(attention, arguments, error, message):
    with pytest.raises(error, match=message):
        attention(**{"inputs": TOKENS, "heads": 2, **arguments})


@pytest.mark.runs_once
@pytest.mark.parametrize("attention", ATTENTIONS)
def test_each_call_makes_new_layers_with_names_of_their_own(attention):
    inputs = keras.Input((4, 8))
    model = keras.Model(inputs, attention(attention(inputs, 2), 2))
    names = [layer.name for layer in model.layers]
    assert len(set(names)) == len(names)
    # The number of tokens may be open.
    keras.Model(tokens := keras.Input((None, 8)), attention(tokens, 2))
