"""tdBN and TEBN against a few lines of NumPy, with every gradient and in both step
modes."""

import keras
import numpy as np
import pytest
from helpers import (
    assert_close,
    compiled,
    data,
    double_precision,
    loss_and_gradients,
    saved_and_loaded,
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


def deep(frozen=False):
    """TEBN on an input, between neurons, shared, and in a nested model."""
    inputs = keras.Input((3, 2), dtype=keras.config.dtype_policy().compute_dtype)
    x = rsnn.layers.LIF(0.5)(TEBN(T, momentum=0.9)(layers.Conv1D(4, 1)(inputs)))
    shared = TEBN(T, axis=1, trainable=not frozen)
    inside = keras.Input((3, 4), dtype=inputs.dtype)
    nested = keras.Model(
        inside, rsnn.layers.LIF(0.5)(shared(layers.Conv1D(4, 1)(inside)))
    )
    x = rsnn.layers.LIF(0.5)(shared(nested(x)))
    network = keras.Model(inputs, layers.Flatten()(layers.Conv1D(3, 3)(x)))
    for layer in (network.layers[2], shared):
        layer.step_factors.assign(np.linspace(0.8, 1.6, T))
    return network


def squared_distance(y, outputs):
    """Not a loss of Keras, whose mean is taken in float32 on JAX."""
    return ops.sum(ops.square(outputs - 1.0))


@pytest.mark.parametrize(
    ("has_time", "frozen", "step_mode"),
    [
        (True, False, "multi"),
        (False, True, "single"),
        pytest.param(True, True, "single", marks=pytest.mark.slow),
    ],
)
def test_rate_with_a_window_for_each_step_is_bptt(has_time, frozen, step_mode):
    x, y = data(6, (T, 3, 2) if has_time else (3, 2))
    results = []
    with double_precision():
        for gradient in ("bptt", Rate(windows=T)):
            keras.utils.set_random_seed(0)
            model = spiking(deep(frozen), T, gradient, step_mode=step_mode)
            results.append(
                [
                    model,
                    *loss_and_gradients(
                        model,
                        x.astype("float64"),
                        y,
                        lambda y, o: ops.sum(ops.square(o - 1.0)),
                    ),
                ]
            )
    (of_bptt, loss, expected), (of_rate, found_loss, found) = results
    np.testing.assert_allclose(found_loss, loss, rtol=1e-9)
    assert_close(found.values(), expected.values(), rtol=1e-8, atol=1e-10)
    factors = [path for path in found if path.endswith("step_factors")]
    assert len(factors) == (1 if frozen else 2)
    assert all(np.abs(found[path]).max() > 0 for path in factors)
    assert_close(
        of_rate.non_trainable_variables, of_bptt.non_trainable_variables, rtol=1e-9
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


@pytest.mark.parametrize(
    ("gradient", "step_mode", "policy"),
    [
        ("rate", "multi", "mixed_float16"),
        ("rate", "single", "float32"),
        pytest.param("bptt", "single", "mixed_bfloat16", marks=pytest.mark.slow),
    ],
)
def test_both_train_with_a_last_smaller_batch_and_load(gradient, step_mode, policy):
    keras.config.set_dtype_policy(policy)
    inputs = keras.Input((6,))
    x = rsnn.layers.LIF()(TDBN()(layers.Dense(16)(inputs)))
    x = rsnn.layers.LIF()(TEBN(T)(layers.Dense(16)(x)))
    model = compiled(
        spiking(
            keras.Model(inputs, layers.Dense(3)(x)), T, gradient, step_mode=step_mode
        )
    )
    x, y = data(22)
    y = (x[:, 0] > 0.5).astype("int32")
    losses = model.fit(x, y, batch_size=8, epochs=6, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    factors = model.network.layers[5].step_factors
    assert factors.dtype == "float32"
    assert np.abs(to_numpy(factors) - 1.0).min() > 0
    again = saved_and_loaded(model)
    np.testing.assert_array_equal(
        again.predict(x, verbose=0), model.predict(x, verbose=0)
    )
    # Fewer steps are the first of them.
    model.timesteps = again.timesteps = T - 1
    model.return_sequences = True
    sequence = model.predict(x, verbose=0).astype("float32")
    np.testing.assert_allclose(
        again.predict(x, verbose=0).astype("float32"),
        sequence.mean(1),
        rtol=0.02,
        atol=0.01,
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
