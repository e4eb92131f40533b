"""Single-step mode: the same results as multi-step mode where both are defined, with
memory that does not grow with T."""

import keras
import numpy as np
import pytest
from helpers import (
    assert_close,
    compiled,
    data,
    dyadic,
    loss_and_gradients,
    spiking,
    to_numpy,
)
from keras import layers, ops

import keras_ratesnn as rsnn
from keras_ratesnn._core import backend

LONG = 11


def network(normalization=False, dropout=0.0, noise=False):
    """Two neuron layers, one with a learned decay, and a max pooling, whose rate
    differs from that of its input."""
    inputs = keras.Input((8, 8, 2))
    x = layers.Conv2D(4, 3, padding="same")(inputs)
    x = layers.BatchNormalization(momentum=0.8)(x) if normalization else x
    x = layers.MaxPooling2D(2)(rsnn.layers.LIF()(x))
    x = layers.Dropout(dropout, seed=1)(x) if dropout else x
    x = layers.Conv2D(4, 3, padding="same")(x)
    x = layers.BatchNormalization(momentum=0.8)(x) if normalization else x
    x = layers.GaussianNoise(0.1, seed=1)(x) if noise else x
    x = rsnn.layers.ParametricLIF(learn_threshold=True, threshold=0.8)(x)
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))


def variables(model):
    return {
        variable.path: to_numpy(variable)
        for variable in model.variables
        if variable.dtype == "float32"
    }


@pytest.mark.parametrize(
    ("gradient", "timesteps", "has_time"),
    [("rate", 4, True), ("rate", LONG, True), ("bptt", 4, False), ("bptt", LONG, True)],
)
def test_without_batch_normalization_it_is_the_multi_step_gradient(
    gradient, timesteps, has_time
):
    x, y = data(6, (timesteps, 8, 8, 2) if has_time else (8, 8, 2))
    shared = network()
    multi = spiking(shared, timesteps, gradient)
    single = spiking(shared, timesteps, gradient, step_mode="single")
    loss, gradients = loss_and_gradients(multi, x, y)
    single_loss, single_gradients = loss_and_gradients(single, x, y)
    assert single_loss == pytest.approx(loss, rel=1e-6)
    assert_close(single_gradients, gradients, rtol=1e-3, atol=2e-6)


def test_a_compiled_loop_equals_the_unrolled_loop(monkeypatch):
    """Batch normalisation, dropout and random noise included: their state is carried
    from step to step."""
    x, y = data(6, (LONG, 8, 8, 2))

    def train():
        keras.utils.clear_session(free_memory=False)
        keras.utils.set_random_seed(0)
        model = spiking(
            network(normalization=True, dropout=0.2, noise=True),
            LONG,
            step_mode="single",
        )
        loss, gradients = loss_and_gradients(model, x, y)
        return loss, gradients, variables(model)

    loss, gradients, state = train()
    monkeypatch.setattr(backend, "unrolled_network_steps", lambda: LONG)
    unrolled_loss, unrolled_gradients, unrolled_state = train()
    assert loss == pytest.approx(unrolled_loss, rel=1e-5)
    assert_close(gradients, unrolled_gradients, rtol=1e-3, atol=1e-5)
    assert_close(state, unrolled_state, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("has_time", [True, False])
def test_batch_normalization_takes_the_statistics_of_each_step(has_time):
    timesteps = 3
    x, y = data(8, (timesteps, 6) if has_time else (6,))
    inputs = keras.Input((6,))
    normalization = layers.BatchNormalization(momentum=0.5)
    model = spiking(
        keras.Model(inputs, layers.Dense(3)(rsnn.layers.LIF()(normalization(inputs)))),
        timesteps,
        step_mode="single",
    )
    compiled(model).train_on_batch(x, y)
    mean, variance = np.zeros(6), np.ones(6)
    for t in range(timesteps):
        frame = x[:, t] if has_time else x
        mean, variance = (
            0.5 * mean + 0.5 * frame.mean(axis=0),
            0.5 * variance + 0.5 * frame.var(axis=0),
        )
    np.testing.assert_allclose(to_numpy(normalization.moving_mean), mean, rtol=1e-5)
    np.testing.assert_allclose(
        to_numpy(normalization.moving_variance), variance, rtol=1e-4
    )


@pytest.mark.parametrize(("gradient", "timesteps"), [("rate", LONG), ("bptt", 2)])
def test_inference_is_that_of_multi_step(gradient, timesteps):
    x, y = data(12, (8, 8, 2))
    trained = compiled(spiking(network(normalization=True), 2, gradient))
    trained.fit(x, y, batch_size=6, verbose=0)
    multi = spiking(trained.network, timesteps, gradient)
    single = spiking(trained.network, timesteps, gradient, step_mode="single")
    np.testing.assert_allclose(
        single.predict(x, verbose=0), multi.predict(x, verbose=0), rtol=1e-4, atol=1e-5
    )
    multi.return_sequences = single.return_sequences = True
    np.testing.assert_allclose(
        single.predict(x, verbose=0), multi.predict(x, verbose=0), rtol=1e-4, atol=1e-5
    )


def test_shared_layers_keep_a_state_for_each_place():
    inputs = keras.Input((6,))
    neurons, dense = rsnn.layers.LIF(decay=0.5), layers.Dense(6)
    shared = keras.Model(inputs, neurons(dense(neurons(dense(inputs)))))
    x, _ = data(5)
    multi, single = (
        spiking(shared, 4, step_mode=mode).predict(x, verbose=0)
        for mode in ("multi", "single")
    )
    np.testing.assert_allclose(single, multi, rtol=1e-6)


@pytest.mark.parametrize("gradient", ["rate", "bptt"])
def test_an_activity_regularizer_counts_as_in_multi_step(gradient):
    inputs = keras.Input((6,))
    hidden = layers.Dense(4, activity_regularizer="l1")(inputs)
    hidden = rsnn.layers.LIF(decay=0.25, activity_regularizer="l1")(hidden)
    hidden = rsnn.layers.LIF(decay=0.25)(layers.Dense(4)(hidden))
    shared = keras.Model(inputs, layers.Dense(3, activity_regularizer="l1")(hidden))
    # Exact in any order of sums: no spike can flip.
    shared.set_weights(
        [dyadic(weight.shape, -1.0, 1.0) for weight in shared.get_weights()]
    )
    x, y = dyadic((10, 6)).astype("float32"), data()[1]
    losses = [
        loss_and_gradients(spiking(shared, 4, gradient, step_mode=mode), x, y)[0]
        for mode in ("multi", "single")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.skipif(
    keras.backend.backend() != "jax",
    reason="only JAX's compiler tells the memory of a step",
)
def test_memory_does_not_grow_with_time():
    import jax

    def temporary_bytes(timesteps, step_mode, gradient="rate"):
        model = spiking(
            network(normalization=True), timesteps, gradient, step_mode=step_mode
        )
        x, y = data(64, (8, 8, 2))

        def objective(trainable, fixed):
            outputs, fixed = model.stateless_call(
                trainable, fixed, ops.convert_to_tensor(x), training=True
            )
            return keras.losses.SparseCategoricalCrossentropy(from_logits=True)(
                y, outputs
            ), fixed

        values = (
            [v.value for v in model.trainable_variables],
            [v.value for v in model.non_trainable_variables],
        )
        lowered = jax.jit(jax.value_and_grad(objective, has_aux=True)).lower(*values)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    assert temporary_bytes(16, "single") < 1.02 * temporary_bytes(4, "single")
    assert temporary_bytes(24, "multi") > 2 * temporary_bytes(24, "single")
    assert temporary_bytes(16, "single", "sltt") < 1.15 * temporary_bytes(
        4, "single", "sltt"
    )


@pytest.mark.parametrize("gradient", ["rate", "bptt"])
def test_an_activity_regularizer_before_neurons_has_the_gradient_of_multi_step_order(
    gradient,
):
    inputs = keras.Input((5,))
    x = rsnn.layers.LIF()(
        layers.Dense(6, activity_regularizer=keras.regularizers.L2(1.0))(inputs)
    )
    shared = keras.Model(inputs, layers.Dense(3)(x))
    x, y = data(6, (5,))
    (loss, single), (multi_loss, multi) = (
        loss_and_gradients(spiking(shared, 4, gradient, step_mode=step_mode), x, y)
        for step_mode in ("single", "multi")
    )
    assert loss == pytest.approx(multi_loss, rel=1e-5)
    assert_close(single, multi, rtol=1e-4, atol=1e-6)
