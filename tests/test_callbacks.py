"""Callbacks for `fit`."""

import pytest
from helpers import compiled, data, mlp, spiking

import keras_ratesnn as rsnn


@pytest.mark.parametrize("step_mode", ["multi", "single"])
def test_the_firing_rate_of_each_epoch_is_that_of_all_neurons_of_the_trained_network(step_mode):
    model = compiled(spiking(mlp(), step_mode=step_mode))
    x, y = data()
    rates = model.fit(x, y, epochs=2, callbacks=[rsnn.callbacks.FiringRate(x)], verbose=0).history["firing_rate"]
    assert len(rates) == 2
    (layer,) = rsnn.describe(model, x, print_fn=None).layers
    assert rates[-1] == pytest.approx(layer.firing_rate)
    assert 0 < rates[-1] < 1
