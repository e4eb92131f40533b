"""Spiking attention on tokens and images, exact in every precision. Its formulas are
those of the authors' programs: `test_published.py`."""

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


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_images_are_their_tokens(attention):
    images, tokens = keras.Input((2, 3, 8)), keras.Input((6, 8))
    on_images = keras.Model(images, attention(images, 2))
    for layer in on_images.layers:
        if layer.name.endswith("_bn"):
            layer.beta.assign(np.full(layer.beta.shape, 1.5))
    on_tokens = keras.Model(tokens, attention(tokens, 2))
    shapes = [weight.shape for weight in on_tokens.weights]
    weights = zip(on_images.get_weights(), shapes, strict=True)
    on_tokens.set_weights([weight.reshape(shape) for weight, shape in weights])
    x = 9 * np.random.default_rng(0).normal(size=(2, 2, 3, 8)).astype("float32")
    expected = to_numpy(on_images(x)).reshape((2, 6, 8))
    assert expected.any()
    outputs = to_numpy(on_tokens(x.reshape((2, 6, 8))))
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)


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
        (token_attention, {"name": 5}, TypeError, "must be a str.*begin with it"),
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
