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


def network():
    """Two neuron layers, one with a learned decay, and a max pooling, whose rate
    differs from that of its input."""
    inputs = keras.Input((8, 8, 2))
    x = layers.Conv2D(4, 3, padding="same")(inputs)
    x = layers.BatchNormalization(momentum=0.8)(x)
    x = layers.MaxPooling2D(2)(rsnn.layers.LIF()(x))
    x = layers.Conv2D(4, 3, padding="same")(x)
    x = layers.BatchNormalization(momentum=0.8)(x)
    x = rsnn.layers.ParametricLIF(learn_threshold=True, threshold=0.8)(x)
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))


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
    (loss, gradients), (multi_loss, multi_gradients) = (
        loss_and_gradients(spiking(shared, 4, gradient, step_mode=mode), x, y)
        for mode in ("single", "multi")
    )
    assert loss == pytest.approx(multi_loss, rel=1e-5)
    assert_close(gradients, multi_gradients, rtol=1e-4, atol=1e-6)


@pytest.mark.skipif(
    keras.backend.backend() != "jax",
    reason="only JAX's compiler tells the memory of a step",
)
def test_memory_does_not_grow_with_time():
    import jax

    def temporary_bytes(timesteps, step_mode, gradient="rate"):
        model = spiking(network(), timesteps, gradient, step_mode=step_mode)
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
