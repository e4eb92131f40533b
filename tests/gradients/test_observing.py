"""Observed networks: where a backend would compile each operation alone, parts of the
network are compiled, and what is seen is the same."""

import numpy as np
import pytest
from helpers import BACKEND, chain
from keras import layers

import keras_ratesnn as rsnn
from keras_ratesnn.testing import check_sample_independence

X = np.random.default_rng(0).uniform(0.0, 2.0, (3, 6)).astype("float32")


class Keeping(layers.Layer):
    """Keeps a number that no variable holds."""

    layer_kind = rsnn.layers.LayerKind(affine=True)
    number = 0.0

    def call(self, inputs):
        self.number += 0.1
        return inputs + self.number

    def compute_output_shape(self, input_shape):
        return input_shape


class KeepingCell(rsnn.layers.LIFCell):
    """Likewise."""

    number = 0.0

    def step(self, inputs, state):
        self.number += 0.1
        return super().step(inputs, state + self.number)


@pytest.mark.parametrize(
    "dependent",
    [
        lambda: Keeping(name="dependent"),
        lambda: rsnn.layers.Neuron(KeepingCell(), name="dependent"),
        lambda: rsnn.layers.Recurrent(rsnn.layers.LIF(), Keeping(), name="dependent"),
        lambda: rsnn.layers.Recurrent(
            rsnn.layers.Neuron(KeepingCell()), layers.Dense(8), name="dependent"
        ),
    ],
    ids=["layer", "cell", "synapse", "recurrent cell"],
)
def test_what_code_of_ones_own_keeps_is_found(dependent):
    network = chain(layers.Dense(8), rsnn.layers.LIF(), layers.Dense(8), dependent())
    said = "^Layer 'dependent'.* after a call with other samples"
    with pytest.raises(AssertionError, match=said):
        check_sample_independence(rsnn.SpikingModel(network, 2, "bptt"), X)


@pytest.mark.skipif(BACKEND != "jax", reason="other backends compile no operations")
def test_what_is_between_two_neuron_layers_is_compiled_together(caplog):
    import jax

    blocks = []
    for _ in range(2):
        blocks += [layers.Dense(8), layers.BatchNormalization(), rsnn.layers.LIF()]
    model = rsnn.SpikingModel(chain(*blocks, layers.Dense(3)), 2)
    check_sample_independence(model, X)
    with jax.log_compiles():
        check_sample_independence(model, X)
    compilations = [text for text in caplog.messages if "XLA compilation" in text]
    # After the first currents, which are the same at each step, there are four parts
    # and the search for NaN, for the batch and for one sample.
    assert len(compilations) == 2 * (4 + 1)
