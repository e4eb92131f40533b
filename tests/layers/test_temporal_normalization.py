"""tdBN and TEBN against a few lines of NumPy, with every gradient and in both step
modes."""

import keras
import numpy as np
import pytest
from helpers import (
    assert_close,
    double_precision,
    spiking,
    to_numpy,
    training_results,
)
from keras import layers, ops

import keras_ratesnn as rsnn
from keras_ratesnn.gradients import Rate
from keras_ratesnn.layer_kinds import kind_of
from keras_ratesnn.layers import TemporalEffectiveBatchNormalization as TEBN
from keras_ratesnn.layers import ThresholdDependentBatchNormalization as TDBN

T = 4
FACTORS = np.array([1.0, -0.5, 2.0, 0.7])
STEP_MODES = pytest.mark.parametrize("step_mode", ["multi", "single"])


# tdBN.
def test_the_scale_starts_at_alpha_times_threshold_in_a_batch_normalisation():
    layer, plain = (
        TDBN(0.5, 0.7, momentum=0.9, epsilon=1e-5),
        layers.BatchNormalization(momentum=0.9, epsilon=1e-5),
    )
    x = np.random.default_rng(0).normal(size=(8, 5, 3)).astype("float32")
    outputs = to_numpy(layer(x, training=True))
    np.testing.assert_allclose(to_numpy(layer.gamma), 0.35)
    np.testing.assert_allclose(
        outputs, 0.35 * to_numpy(plain(x, training=True)), rtol=1e-4, atol=1e-6
    )
    assert kind_of(layer) == kind_of(plain)
    again = TDBN.from_config(layer.get_config())
    assert (again.threshold, again.alpha, again.momentum) == (0.5, 0.7, 0.9)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"threshold": 0.0}, ValueError, "`threshold` must be > 0"),
        ({"alpha": "half"}, TypeError, "`alpha` must be a real number"),
        ({"scale": False}, ValueError, "`scale` must be True.*Received: scale=False"),
        (
            {"gamma_initializer": "ones"},
            TypeError,
            "`gamma_initializer` is alpha \\* threshold",
        ),
    ],
    ids=lambda value: str(next(iter(value))) if isinstance(value, dict) else "",
)
def test_conflicting_settings_of_the_scale_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        TDBN(**arguments)


# TEBN.
def naive(x, axis, step_mode, gamma, beta, factors, epsilon, moving=None):
    """p_t (γ x̂_t + β) of inputs `(batch, T, ...)`, and the means and variances,
    `(channels,)`, by which it was computed.

    `axis` is that of the channels in one step; `moving` are a mean and a variance, in
    the place of the batch's.
    """
    x = np.moveaxis(x, axis + 1 if axis > 0 else axis, -1)
    axes = tuple(range(x.ndim - 1))
    outputs, statistics = np.zeros(x.shape), []
    for steps in (
        [slice(None)]
        if step_mode == "multi"
        else [slice(t, t + 1) for t in range(x.shape[1])]
    ):
        mean, variance = moving or (x[:, steps].mean(axes), x[:, steps].var(axes))
        outputs[:, steps] = (
            gamma * (x[:, steps] - mean) / np.sqrt(variance + epsilon) + beta
        )
        statistics.append((mean, variance))
    outputs *= np.reshape(factors, (-1, *[1] * (x.ndim - 2)))
    return np.moveaxis(outputs, -1, axis + 1 if axis > 0 else axis), statistics


def beside_neurons(x, layer, **kwargs):
    """A model whose first output is that of the layer, at every step."""
    inputs = keras.Input(x.shape[2:])
    outputs = layer(inputs)
    model = spiking(
        keras.Model(inputs, [outputs, rsnn.layers.LIF()(outputs)]),
        T,
        return_sequences=True,
        **kwargs,
    )
    layer.step_factors.assign(FACTORS)
    layer.gamma.assign(np.random.default_rng(1).normal(size=layer.gamma.shape))
    layer.beta.assign(np.random.default_rng(2).normal(size=layer.beta.shape))
    return model


@STEP_MODES
@pytest.mark.parametrize("axis", [-1, 1])
def test_outputs_and_moving_averages_are_those_of_the_formula(axis, step_mode):
    x = np.random.default_rng(0).normal(2.0, 3.0, (5, T, 3, 3, 3)).astype("float32")
    layer = TEBN(T, axis=axis, momentum=0.75)
    model = beside_neurons(x, layer, gradient="bptt", step_mode=step_mode)
    parameters = [to_numpy(variable) for variable in (layer.gamma, layer.beta)]
    expected, statistics = naive(
        x, axis, step_mode, *parameters, FACTORS, layer.epsilon
    )
    outputs = to_numpy(model(x, training=True)[0])
    np.testing.assert_allclose(outputs, expected, rtol=1e-3, atol=1e-4)
    moving = np.zeros(3), np.ones(3)
    for means in statistics:
        moving = [
            0.75 * before + 0.25 * of_batch
            for before, of_batch in zip(moving, means, strict=True)
        ]
    assert_close((layer.moving_mean, layer.moving_variance), moving, rtol=1e-4)
    inference, _ = naive(
        x, axis, step_mode, *parameters, FACTORS, layer.epsilon, moving=moving
    )
    np.testing.assert_allclose(to_numpy(model(x)[0]), inference, rtol=1e-3, atol=1e-4)


@STEP_MODES
def test_bptt_has_the_derivative_of_the_formula(step_mode):
    random = np.random.default_rng(0)
    x, weights = random.normal(size=(6, T, 3)), random.normal(size=(6, T, 3))
    with double_precision():
        # Not a Dense layer: on PyTorch, Keras computes those in float32, whatever their
        # dtype.
        convolution, layer = layers.Conv1D(3, 1, use_bias=False), TEBN(T)
        inputs = keras.Input((1, 3), dtype="float64")
        outputs = layer(convolution(inputs))
        network = keras.Model(inputs, [outputs, rsnn.layers.LIF()(outputs)])
        model = spiking(network, T, "bptt", step_mode=step_mode, return_sequences=True)
        layer.step_factors.assign(FACTORS)
        _, found, _ = training_results(
            model,
            x[:, :, None],
            weights[:, :, None],
            lambda weights, outputs: ops.sum(weights * outputs[0]),
        )
    variables = [convolution.kernel, layer.gamma, layer.beta, layer.step_factors]
    arrays = [to_numpy(variable).astype("float64") for variable in variables]

    def objective():
        kernel, *parameters = arrays
        return (
            weights * naive(x @ kernel[0], -1, step_mode, *parameters, layer.epsilon)[0]
        ).sum()

    for variable, array in zip(variables, arrays, strict=True):
        expected, step = np.zeros_like(array), 1e-5
        for index in np.ndindex(array.shape):
            before = array[index]
            array[index] = before + step
            above = objective()
            array[index] = before - step
            expected[index] = (above - objective()) / (2 * step)
            array[index] = before
        np.testing.assert_allclose(
            found[variable.path], expected, rtol=1e-4, atol=1e-6, err_msg=variable.path
        )


@STEP_MODES
@pytest.mark.parametrize("windows", [1, (1, 3)])
def test_the_rate_derivative_is_that_of_the_mean_of_the_scaled_rate(windows, step_mode):
    """For a loss that is linear in the mean: p̄ for the input, and the normalised rate
    over T for each factor."""
    random = np.random.default_rng(0)
    x, weights = (
        random.normal(size=(6, T, 3)).astype("float32"),
        random.normal(size=(6, 2)).astype("float32"),
    )
    results = []
    for make in (
        lambda: TEBN(T, center=False),
        lambda: layers.BatchNormalization(center=False),
    ):
        keras.utils.set_random_seed(0)
        inputs, layer = keras.Input((3,)), make()
        outputs = layer(layers.Dense(2, use_bias=False, name="before")(inputs))
        network = keras.Model(inputs, [outputs, rsnn.layers.LIF()(outputs)])
        model = spiking(network, T, Rate(windows=windows), step_mode=step_mode)
        if isinstance(layer, TEBN):
            layer.step_factors.assign(FACTORS)
        results.append(
            training_results(
                model,
                x,
                weights,
                lambda weights, outputs: ops.sum(weights * outputs[0]),
            )
        )
    (loss, found, _), (_, of_plain, _) = results
    currents = x @ to_numpy(model.network.get_layer("before").kernel)
    scaled, statistics = naive(currents, -1, step_mode, 1.0, 0.0, FACTORS, 1e-3)
    np.testing.assert_allclose(loss, (weights * scaled.mean(1)).sum(), rtol=1e-4)
    expected = np.zeros(T)
    for steps in [slice(0, T)] if windows == 1 else [slice(0, 1), slice(1, T)]:
        of_steps = statistics if step_mode == "multi" else statistics[steps]
        mean = np.mean([mean for mean, _ in of_steps], axis=0)
        precision = np.mean([1 / (variance + 1e-3) for _, variance in of_steps], axis=0)
        expected[steps] = (
            weights * (currents[:, steps].mean(1) - mean) * np.sqrt(precision)
        ).sum() / T
    by_factor = next(
        gradient for path, gradient in found.items() if path.endswith("step_factors")
    )
    np.testing.assert_allclose(by_factor, expected, rtol=1e-3)
    if windows == 1:
        for (path, ours), theirs in zip(found.items(), of_plain.values(), strict=False):
            if not path.endswith("step_factors"):
                np.testing.assert_allclose(
                    ours, FACTORS.mean() * theirs, rtol=1e-3, atol=1e-5, err_msg=path
                )


# More steps than have factors.
def test_more_steps_than_factors_are_refused_before_anything_runs():
    with pytest.raises(
        ValueError, match=r"`timesteps` must be at most 4.*layer 'tebn'.*timesteps=5"
    ):
        spiking(
            keras.Sequential(
                [keras.Input((3,)), TEBN(T, name="tebn"), rsnn.layers.LIF()]
            ),
            5,
        )
    nested = keras.Sequential([keras.Input((3,)), TEBN(T, name="tebn")])
    inputs = keras.Input((3,))
    model = spiking(keras.Model(inputs, rsnn.layers.LIF()(nested(inputs))), 4)
    with pytest.raises(ValueError, match="`timesteps` must be at most 4"):
        model.timesteps = 5
    assert model.timesteps == 4


def test_a_stream_ends_where_the_factors_do():
    x = np.random.default_rng(0).normal(size=(2, T, 3)).astype("float32")
    model = beside_neurons(x, TEBN(T))
    whole = to_numpy(model(x)[0])
    for t in range(T):
        np.testing.assert_allclose(
            to_numpy(model.step(x[:, t])[0]), whole[:, t], rtol=1e-5
        )
    with pytest.raises(ValueError, match=r"has weights for 4 steps. Received: step 5"):
        model.step(x[:, 0])
    model.reset_state()
    np.testing.assert_allclose(to_numpy(model.step(x[:, 0])[0]), whole[:, 0], rtol=1e-5)


def test_renorm_and_wrong_numbers_of_steps_are_refused():
    with pytest.raises(ValueError, match="`renorm` must be False"):
        TEBN(T, renorm=True)
    with pytest.raises(ValueError, match="`timesteps` must be 1 or more"):
        TEBN(0)
