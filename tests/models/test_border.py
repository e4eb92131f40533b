"""Batch normalisation with a border: what it makes of 0, which counts in no statistics
and has no derivative."""

import keras
import numpy as np
import pytest
from helpers import (
    assert_close,
    both_step_modes,
    chain,
    loss_and_gradients,
    spiking,
    to_numpy,
)
from keras import layers, ops
from numpy.testing import assert_allclose, assert_array_equal

import keras_ratesnn as rsnn
from keras_ratesnn.gradients import SLTT, Rate
from keras_ratesnn.layers import LIF
from keras_ratesnn.layers.border import BorderedBatchNormalization

X = np.random.default_rng(0).normal(1.0, 2.0, (4, 3, 5, 2)).astype("float32")
WEIGHTS = [
    np.array(weight, "float32")
    for weight in ([1.5, 0.5], [-0.5, 2.0], [3.0, -1.0], [0.25, 4.0])
]


def normalizations():
    """A layer with a border, and an ordinary one, with the same weights: γ, β, mean and
    variance."""
    made = [
        kind(momentum=0.5, epsilon=1e-5)
        for kind in (BorderedBatchNormalization, layers.BatchNormalization)
    ]
    for layer in made:
        layer.build((None, 3, 5, 2))
        layer.set_weights(WEIGHTS)
    return made


def test_the_border_is_what_normalisation_makes_of_0():
    keras.config.set_dtype_policy("mixed_float16")
    bordered, ordinary = normalizations()
    expected = to_numpy(ordinary(np.pad(X, [(0, 0), (1, 1), (1, 1), (0, 0)])))
    actual = to_numpy(bordered(X))
    assert actual.shape == bordered.compute_output_shape(X.shape)
    assert actual.dtype == bordered.compute_dtype
    assert_array_equal(actual, expected)


def test_in_training_the_border_counts_in_no_statistics_and_is_of_the_running_ones():
    bordered, ordinary = normalizations()
    zero_response = to_numpy(ordinary(np.zeros((1, 1, 1, 2))))
    actual = to_numpy(bordered(X, training=True))
    assert_allclose(
        actual[:, 1:-1, 1:-1],
        to_numpy(ordinary(X, training=True)),
        rtol=1e-5,
        atol=1e-6,
    )
    assert_array_equal(actual[:, 0], np.broadcast_to(zero_response[0], (4, 7, 2)))
    assert_close(bordered.get_weights(), ordinary.get_weights(), rtol=1e-6)


def test_the_border_has_no_derivative():
    model = chain(BorderedBatchNormalization(name="bordered"), shape=(3, 5, 2))
    _, gradients = loss_and_gradients(
        model, X, np.zeros(4), lambda _, outputs: ops.sum(outputs)
    )
    assert_allclose(gradients["bordered/beta"], [4 * 3 * 5] * 2)


def network_of():
    keras.utils.set_random_seed(0)
    parts = []
    for _ in range(2):
        parts += [
            layers.Conv2D(4, 1, use_bias=False),
            BorderedBatchNormalization(momentum=0.5, epsilon=1e-5),
            layers.DepthwiseConv2D(3, use_bias=False),
            LIF(0.2, 0.3),
        ]
    parts += [layers.GlobalAveragePooling2D(), layers.Dense(3)]
    return chain(*parts, shape=(3, 5, 2))


def results_of(model, x=X):
    """The loss, the gradients and the running statistics after a batch."""
    value, gradients = loss_and_gradients(model, x, np.arange(4) % 3)
    network = model.network if isinstance(model, rsnn.SpikingModel) else model
    return [value, *gradients.values(), *map(to_numpy, network.non_trainable_variables)]


@pytest.mark.parametrize(
    ("method", "step_mode"),
    [("rate", "multi"), ("bptt", "single"), (SLTT(recompute=False), "single")],
    ids=str,
)
def test_one_step_of_every_method_is_that_of_keras(method, step_mode):
    model = spiking(network_of(), 1, method, step_mode=step_mode)
    expected = results_of(network_of())
    assert_close(results_of(model), expected, rtol=1e-3, atol=1e-5)


@both_step_modes
def test_the_rate_gradient_is_that_of_bptt_where_each_step_has_its_rate(step_mode):
    frames = np.stack([X, X[::-1]], axis=1)
    results = [
        results_of(spiking(network_of(), 2, method, step_mode=step_mode), frames)
        for method in (Rate(windows=2), "bptt")
    ]
    assert_close(*results, rtol=1e-3, atol=1e-5)
