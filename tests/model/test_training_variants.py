"""Keras' variants of training work with every gradient and in both step modes."""

import keras
import numpy as np
import pytest
from helpers import (
    assert_close,
    compiled,
    data,
    mlp,
    spiking,
    to_numpy,
)
from own_step import OwnStep

import keras_ratesnn as rsnn

MODES = [("rate", "multi"), ("sltt", "single")]


@pytest.fixture(params=MODES, ids="-".join)
def method(request):
    gradient, step_mode = request.param
    return {"gradient": gradient, "step_mode": step_mode}


def twins(method, **options):
    """Two equal models, the second one with these options of an optimizer."""
    model = spiking(timesteps=4, **method)
    twin = spiking(keras.models.clone_model(model.network), 4, **method)
    twin.set_weights(model.get_weights())
    return (
        compiled(model, keras.optimizers.SGD(0.5)),
        compiled(twin, keras.optimizers.SGD(0.5, **options)),
    )


def test_a_moving_average_of_the_weights_is_what_an_optimizer_leaves(method):
    x, y = data(8)
    plain, averaged = twins(method, use_ema=True, ema_momentum=0.5)
    averaged.fit(x, y, batch_size=4, shuffle=False, verbose=0)
    steps = []
    for part in (slice(0, 4), slice(4, 8)):
        plain.train_on_batch(x[part], y[part])
        steps.append(plain.get_weights())
    means = [(first + last) / 2 for first, last in zip(*steps, strict=True)]
    tolerance = {"rtol": 1e-4, "atol": 1e-6}
    assert_close(averaged.get_weights(), means, **tolerance)
    # They stay where they are, whatever the model does next.
    averaged.predict(x, verbose=0)
    assert_close(averaged.get_weights(), means, **tolerance)
    averaged.fit(x, y, batch_size=4, verbose=0)
    assert int(averaged.optimizer.iterations) == 4


def test_accumulated_gradients_are_those_of_the_whole_batch(method):
    x, y = data(8)
    whole, parts = twins(method, gradient_accumulation_steps=2)
    whole.train_on_batch(x, y)
    for part in (slice(0, 4), slice(4, 8)):
        parts.train_on_batch(x[part], y[part])
    assert_close(parts.get_weights(), whole.get_weights(), rtol=1e-4, atol=1e-6)


def test_low_rank_adaptation_trains_only_its_factors(method):
    network = mlp()
    for layer in (network.layers[1], network.layers[-1]):
        layer.enable_lora(2)
    model = compiled(spiking(network, 4, **method), keras.optimizers.SGD(0.5))
    before = {variable.path: to_numpy(variable) for variable in model.variables}
    model.fit(*data(), epochs=2, verbose=0)
    changed = {
        variable.path
        for variable in model.variables
        if np.any(to_numpy(variable) != before[variable.path])
    }
    assert not [path for path in changed if path.endswith("/kernel")]
    assert len([path for path in changed if "lora" in path]) == 4


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
