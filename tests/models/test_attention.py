"""Spiking attention on tokens and images, exact in every precision. Its formulas are
those of the authors' programs: `test_published.py`."""

import keras
import numpy as np
import pytest
from helpers import to_numpy
from keras import ops

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
    for weight, value in zip(on_tokens.weights, on_images.get_weights(), strict=True):
        weight.assign(value.reshape(weight.shape))
    x = 9 * np.random.default_rng(0).normal(size=(2, 2, 3, 8)).astype("float32")
    expected = to_numpy(on_images(x)).reshape((2, 6, 8))
    assert expected.any()
    outputs = to_numpy(on_tokens(x.reshape((2, 6, 8))))
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)


def always():
    """Neurons that always spike."""
    return LIF(threshold=1e-3)


class Records(LIF):
    """Keeps its inputs."""

    def call(self, inputs, training=None):
        self.inputs = to_numpy(ops.cast(inputs, "float32"))
        return super().call(inputs, training)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("tokens", [1, 1024])
def test_counts_do_not_overflow_in_half_precision_and_small_ones_are_exact(
    policy, tokens
):
    keras.config.set_dtype_policy(policy)
    inputs, records = keras.Input((tokens, 64)), Records()
    options = {"neuron": always, "attention_neuron": lambda: records}
    model = keras.Model(inputs, spiking_self_attention(inputs, 1, **options))
    for layer in model.layers:
        if layer.name.endswith("_bn"):
            layer.beta.assign(np.ones(layer.beta.shape))
    model(np.zeros((1, tokens, 64), "float32"))
    assert (records.inputs == 0.125 * tokens * 64).all()


TOKENS = keras.Input((4, 8))


@pytest.mark.backends(1)
@pytest.mark.parametrize(
    ("attention", "arguments", "error", "message"),
    [
        (spiking_self_attention, {"heads": 3}, ValueError, "divide.*heads=3.*8 chan"),
        (token_attention, {"name": 5}, TypeError, "must be a str.*begin with it"),
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


@pytest.mark.backends(1)
def test_each_call_makes_new_layers_with_names_of_their_own():
    # The number of tokens may be open.
    inputs = keras.Input((None, 8))
    model = keras.Model(inputs, token_attention(token_attention(inputs, 2), 2))
    names = [layer.name for layer in model.layers]
    assert len(set(names)) == len(names)
