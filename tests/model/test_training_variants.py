"""Keras' variants of training work with every gradient and in both step modes."""

import keras
import pytest
from helpers import (
    assert_close,
    compiled,
    data,
    spiking,
)

MODES = [("rate", "multi"), ("sltt", "single")]


@pytest.fixture(params=MODES, ids="-".join)
def method(request):
    gradient, step_mode = request.param
    return {"gradient": gradient, "step_mode": step_mode}


def twins(method, **options):
    """Two equal models, the second one with these options of an optimizer."""
    models = []
    for arguments in ({}, options):
        keras.utils.set_random_seed(0)
        optimizer = keras.optimizers.SGD(0.5, **arguments)
        models.append(compiled(spiking(timesteps=4, **method), optimizer))
    return models


def test_a_moving_average_of_the_weights_is_what_an_optimizer_leaves(method):
    x, y = data(8)
    plain, averaged = twins(method, use_ema=True, ema_momentum=0.5)
    averaged.fit(x, y, batch_size=4, shuffle=False, verbose=0)
    steps = []
    for part in (slice(0, 4), slice(4, 8)):
        plain.train_on_batch(x[part], y[part])
        steps.append(plain.get_weights())
    means = [(first + last) / 2 for first, last in zip(*steps, strict=True)]
    assert_close(averaged.get_weights(), means, rtol=1e-4, atol=1e-6)
    # They stay where they are, whatever the model does next.
    averaged.predict(x, verbose=0)
    assert_close(averaged.get_weights(), means, rtol=1e-4, atol=1e-6)


def test_accumulated_gradients_are_those_of_the_whole_batch(method):
    x, y = data(8)
    whole, parts = twins(method, gradient_accumulation_steps=2)
    whole.train_on_batch(x, y)
    for part in (slice(0, 4), slice(4, 8)):
        parts.train_on_batch(x[part], y[part])
    assert_close(parts.get_weights(), whole.get_weights(), rtol=1e-4, atol=1e-6)
