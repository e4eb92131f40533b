"""Batch normalisation on each backend, against plain formulas in double precision."""

import functools

import keras
import numpy as np
import pytest
from helpers import (
    BACKEND,
    assert_close,
    data,
    gradient_of,
    loss_and_gradients,
    spiking,
    to_numpy,
)
from keras import layers, ops

import keras_ratesnn as rsnn
from keras_ratesnn._core.backend import engine

SHAPES = [
    ((6, 3), -1),
    ((4, 3, 5), 1),
    ((3, 4, 3, 2), -1),
    ((2, 3, 2, 2, 3), 2),
]
CHANNELS_AT = [-1]
if BACKEND == "torch":  # Elsewhere a tensor has no order in memory of its own.
    CHANNELS_AT = [1, -1]
    # Images of one column or one row, whose memory order PyTorch cannot tell.
    SHAPES += [
        ((4, 5, 1, 3), -1),
        ((4, 3, 1, 5), 1),
    ]
EPSILON = 1e-3


def case(shape, axis):
    random = np.random.default_rng(0)
    beside = [1] * len(shape)
    beside[axis] = shape[axis]
    inputs, weights = random.normal(2.0, 3.0, shape), random.normal(size=shape)
    gamma, beta, mean = (random.normal(size=beside) for _ in range(3))
    return inputs, weights, gamma, beta, mean, random.uniform(0.5, 2.0, beside)


def axes_of(shape, axis):
    return tuple(index for index in range(len(shape)) if index != axis % len(shape))


def flat(parameters):
    return [ops.reshape(parameter, (-1,)) for parameter in parameters]


def central_differences(function, arrays, step=1e-5):
    gradients = []
    for array in arrays:
        gradient = np.zeros_like(array)
        for index in np.ndindex(array.shape):
            before = array[index]
            array[index] = before + step
            above = function(*arrays)
            array[index] = before - step
            gradient[index] = (above - function(*arrays)) / (2 * step)
            array[index] = before
        gradients.append(gradient)
    return gradients


def close(results, expected):
    assert_close(results, expected, rtol=1e-3, atol=1e-3)


def assert_derivatives(outputs_of, expected, arrays, weights, channels_at):
    """Of a sum of outputs, whose derivative lies in memory with its channels at that
    axis."""
    moved = np.ascontiguousarray(np.moveaxis(weights, 1, channels_at))
    moved = ops.convert_to_tensor(moved, "float32")

    def weighted(*tensors):
        return ops.sum(outputs_of(*tensors) * ops.moveaxis(moved, channels_at, 1))

    gradients = gradient_of(weighted, [array.astype("float32") for array in arrays])
    differences = central_differences(
        lambda *arrays: (expected(*arrays) * weights).sum(), arrays
    )
    close(gradients, differences)


@pytest.mark.parametrize("channels_at", CHANNELS_AT)
@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_a_batch_is_normalised_by_its_statistics_and_differentiated_through_them(
    shape, axis, channels_at
):
    inputs, weights, gamma, beta, *_ = case(shape, axis)
    axes = axes_of(shape, axis)

    def expected(x, gamma, beta):
        return (
            gamma
            * (x - x.mean(axes, keepdims=True))
            / np.sqrt(x.var(axes, keepdims=True) + EPSILON)
            + beta
        )

    results = []

    def outputs_of(*tensors):
        results[:] = engine.normalize(tensors[0], axis, *flat(tensors[1:]), EPSILON)
        return results[0]

    arrays = [inputs, gamma, beta]
    assert_derivatives(outputs_of, expected, arrays, weights, channels_at)
    if BACKEND != "jax":  # There they are traces, whose values are gone.
        statistics = inputs.mean(axes), inputs.var(axes)
        close(
            to_numpy([ops.stop_gradient(result) for result in results]),
            [expected(*arrays), *statistics],
        )


@pytest.mark.parametrize("channels_at", CHANNELS_AT)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_given_statistics_change_as_those_of_the_batch_or_of_weighted_rows(
    shape, axis, weighted, channels_at
):
    inputs, weights, gamma, beta, mean, variance = case(shape, axis)
    axes = axes_of(shape, axis)
    row_weights, options = np.ones(shape[0]), {}
    if weighted:
        row_weights = np.random.default_rng(1).uniform(0.0, 2.0, shape[0])
        options["weights"] = ops.convert_to_tensor(row_weights, "float32")
    beside = [1] * (len(shape) - 1)
    shares = np.broadcast_to(row_weights.reshape(-1, *beside), shape)

    def moments(x):
        own = np.average(x, axes, shares).reshape(mean.shape)
        return own, np.average((x - own) ** 2, axes, shares).reshape(mean.shape)

    mean_before, variance_before = moments(inputs)

    def expected(x, gamma, beta):
        own_mean, own_variance = moments(x)
        deviation = np.sqrt(variance + own_variance - variance_before + EPSILON)
        return gamma * (x - mean - own_mean + mean_before) / deviation + beta

    def outputs_of(x, *tensors):
        given = [ops.convert_to_tensor(array, "float32") for array in (mean, variance)]
        parameters = flat([*tensors, *given])
        return engine.normalize_as(x, axis, *parameters, EPSILON, **options)

    arrays = [inputs, gamma, beta]
    tensors = [ops.convert_to_tensor(array, "float32") for array in arrays]
    close([to_numpy(outputs_of(*tensors))], [expected(*arrays)])
    assert_derivatives(outputs_of, expected, arrays, weights, channels_at)


PARAMETER_FREE = {
    "batch": functools.partial(layers.BatchNormalization, scale=False, center=False),
    "online": rsnn.layers.OnlineRenormalization,
}


@pytest.mark.parametrize(
    ("kind", "gradient", "step_mode", "policy"),
    [
        ("batch", "rate", "multi", "mixed_float16"),
        ("batch", "rate", "single", "mixed_bfloat16"),
        ("online", "bptt", "multi", "mixed_float16"),
    ],
)
def test_statistics_without_parameters_are_wide_in_half_precision(
    kind, gradient, step_mode, policy
):
    """Their squares overflow in float16, and have three digits in bfloat16."""
    keras.config.set_dtype_policy(policy)
    inputs = keras.Input((6,))
    layer = PARAMETER_FREE[kind](momentum=0.0)
    outputs = layers.Dense(3)(rsnn.layers.LIF()(layer(layers.Identity()(inputs))))
    x, y = data(64, (4, 6))
    x = np.round(500 * x)
    loss, _ = loss_and_gradients(
        spiking(keras.Model(inputs, outputs), 4, gradient, step_mode=step_mode), x, y
    )
    assert np.isfinite(loss)
    # The online one is updated once; the other at each step, so that only the last one
    # is left.
    last_only = step_mode == "single" and kind == "batch"
    expected = (x[:, -1:] if last_only else x).reshape(-1, 6).var(0)
    exact = 1e-3 if policy == "mixed_float16" else 5e-3
    np.testing.assert_allclose(to_numpy(layer.moving_variance), expected, rtol=exact)
