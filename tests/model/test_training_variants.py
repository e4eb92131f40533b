"""Keras' variants of training work with every gradient and in both step modes."""

import keras
import numpy as np
import pytest
from helpers import (
    assert_close,
    compiled,
    data,
    loss_and_gradients,
    mlp,
    spiking,
    to_numpy,
)
from keras import layers
from own_step import OwnStep

import keras_ratesnn as rsnn

MODES = [("rate", "multi"), ("sltt", "single")]


@pytest.fixture(params=MODES, ids="-".join)
def method(request):
    gradient, step_mode = request.param
    return {"gradient": gradient, "step_mode": step_mode}


def test_constraints_hold_after_a_step(method):
    inputs = keras.Input((6,))
    dense = layers.Dense(8, kernel_constraint=keras.constraints.MaxNorm(0.1))
    network = keras.Model(inputs, layers.Dense(3)(rsnn.layers.LIF()(dense(inputs))))
    compiled(spiking(network, 4, **method)).train_on_batch(*data())
    assert np.linalg.norm(to_numpy(dense.kernel), axis=0).max() <= 0.1 + 1e-6


def test_a_moving_average_of_the_weights_is_what_an_optimizer_leaves(method):
    x, y = data(8)
    plain = compiled(spiking(timesteps=4, **method), keras.optimizers.SGD(0.5))
    averaged = spiking(keras.models.clone_model(plain.network), 4, **method)
    averaged.set_weights(plain.get_weights())
    compiled(averaged, keras.optimizers.SGD(0.5, use_ema=True, ema_momentum=0.5))
    averaged.fit(x, y, batch_size=4, shuffle=False, verbose=0)
    plain.train_on_batch(x[:4], y[:4])
    first = [to_numpy(weight) for weight in plain.trainable_variables]
    plain.train_on_batch(x[4:], y[4:])
    last = [to_numpy(weight) for weight in plain.trainable_variables]
    means = [0.5 * (one + two) for one, two in zip(first, last, strict=True)]
    assert_close(averaged.trainable_variables, means, rtol=1e-4, atol=1e-6)
    # They stay where they are, whatever the model does next.
    averaged.predict(x, verbose=0)
    averaged.fit(x, y, batch_size=4, verbose=0)
    assert int(averaged.optimizer.iterations) == 4


def test_accumulated_gradients_are_those_of_the_whole_batch(method):
    x, y = data(8)
    whole = compiled(spiking(timesteps=4, **method), keras.optimizers.SGD(0.5))
    parts = spiking(keras.models.clone_model(whole.network), 4, **method)
    parts.set_weights(whole.get_weights())
    compiled(parts, keras.optimizers.SGD(0.5, gradient_accumulation_steps=2))
    whole.train_on_batch(x, y)
    parts.train_on_batch(x[:4], y[:4])
    parts.train_on_batch(x[4:], y[4:])
    assert_close(
        parts.trainable_variables, whole.trainable_variables, rtol=1e-4, atol=1e-6
    )


def test_low_rank_adaptation_trains_only_its_factors(method):
    network = mlp()
    for layer in network.layers:
        if isinstance(layer, layers.Dense):
            layer.enable_lora(2)
    model = compiled(spiking(network, 4, **method), keras.optimizers.SGD(0.5))
    before = {variable.path: to_numpy(variable) for variable in model.variables}
    _, gradients = loss_and_gradients(model, *data())
    assert any("lora" in path for path in gradients)
    model.fit(*data(), epochs=2, verbose=0)
    for variable in model.variables:
        if "/kernel" in variable.path:
            np.testing.assert_array_equal(to_numpy(variable), before[variable.path])
    factors = [variable for variable in model.variables if "lora" in variable.path]
    assert len(factors) == 4
    for factor in factors:
        assert np.any(to_numpy(factor) != before[factor.path])


def test_a_custom_train_step_works_with_the_model(method):
    """Overrides `compute_loss`, the hook that Keras has on every backend."""

    class Scaled(rsnn.SpikingModel):
        def compute_loss(self, *args, **kwargs):
            return 3.0 * super().compute_loss(*args, **kwargs)

    network = mlp()
    x, y = data()
    plain = compiled(spiking(network, 4, **method))
    scaled = compiled(Scaled(network, 4, **method))
    expected = 3.0 * plain.test_on_batch(x, y)
    assert scaled.test_on_batch(x, y) == pytest.approx(expected, rel=1e-5)
    scaled.fit(x, y, verbose=0)


def test_a_custom_train_step_trains_the_model(method):
    class Custom(OwnStep, rsnn.SpikingModel):
        pass

    model = compiled(Custom(mlp(), 4, **method))
    history = model.fit(*data(32), epochs=5, verbose=0).history
    assert history["own"][-1] < history["own"][0]
