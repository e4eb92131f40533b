"""Rate-based backpropagation: values are those of the spiking network, derivatives are
local, nothing is computed twice."""

import keras
import numpy as np
import pytest
from helpers import (
    RUNS,
    Noted,
    assert_close,
    both_step_modes,
    chain,
    data,
    loss_and_gradients,
    response,
    spiking,
)
from keras import layers, ops

import keras_ratesnn as rsnn
from keras_ratesnn.layers import LIF, LayerKind


class ScaleByStep(layers.Layer):
    """Multiplies each step by a factor of its own."""

    def build(self, input_shape):
        start = keras.initializers.Constant([1.0, -2.0, 0.5, 3.0, 1.5])
        self.factors = self.add_weight(shape=(5,), initializer=start, name="factors")

    def call(self, inputs, time_step=None):
        # While a network is built.
        if time_step is None:
            return inputs
        factors = ops.take(self.factors, time_step, axis=0)
        return inputs * ops.reshape(factors, (-1, *[1] * (len(inputs.shape) - 1)))


@rsnn.layers.affine
class AffineScaleByStep(ScaleByStep):
    """Affine at each step, with another factor."""


def residual_network():
    """Convolutions, batch normalisation, a skip connection, max and average pooling,
    dropout, a nonlinearity, layers that take the time step."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, padding="same", use_bias=False)(inputs)
    x = LIF()(layers.BatchNormalization()(x))
    y = layers.Conv2D(8, 3, padding="same")(x)
    y = LIF(reset="hard")(layers.BatchNormalization()(y))
    y = layers.Dropout(0.3)(y)
    y = layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same")(y))
    x = LIF(decay=0.5)(layers.Add()([x, y]))
    x = layers.MaxPooling2D(2)(x)
    x = layers.SpatialDropout2D(0.3)(x)
    x = layers.Conv2D(8, 3, padding="same", activation="tanh")(x)
    x = LIF()(AffineScaleByStep()(x * 2.0))
    x = layers.AveragePooling2D(2)(ScaleByStep()(x))
    return keras.Model(inputs, layers.Dense(5)(layers.Flatten()(x)))


@pytest.mark.parametrize(
    ("has_time", "training", "step_mode"),
    [(True, True, "multi"), (False, False, "single")],
)
def test_the_rate_of_every_operation_is_the_time_mean_of_its_spikes(
    has_time, training, step_mode
):
    """Each output is multiplied by a constant: the derivative with respect to it is the
    rate of the output."""
    timesteps = 5
    network = residual_network()
    outputs = [operation.output for operation in network.operations[1:]]
    factors = [keras.Input(output.shape[1:]) for output in outputs]
    products = [
        layers.Multiply()([output, factor])
        for output, factor in zip(outputs, factors, strict=True)
    ]
    network_of_products = keras.Model([network.input, *factors], products)
    model = spiking(network_of_products, timesteps, step_mode=step_mode)
    x, _ = data(6, (timesteps, 8, 8, 3) if has_time else (8, 8, 3))
    ones = [np.ones((6, *factor.shape[1:]), "float32") for factor in factors]
    means, (_, *rates), of_variables = response(model, [x, *ones], ones, training)
    for operation, rate, mean in zip(network.operations[1:], rates, means, strict=True):
        assert mean.any()
        np.testing.assert_allclose(rate, mean, atol=2e-6, err_msg=operation.name)
    of_steps = [of for path, of in of_variables.items() if "factors" in path]
    assert [np.any(of) for of in of_steps] == [True, True]


@pytest.mark.parametrize("gradient", ["rate", "bptt"])
@both_step_modes
def test_layers_before_the_first_neuron_run_once_on_an_input_without_time(
    gradient, step_mode
):
    network = chain(Noted(), LIF(), layers.Dense(3))
    model = spiking(network, 4, gradient, step_mode=step_mode)
    x, _ = data(10)
    RUNS.clear()
    model(ops.convert_to_tensor(x), training=True)
    assert RUNS == [10]


def affine_layers():
    lora = layers.Dense(5, name="lora")
    lora.build((None, 4, 4, 3))
    lora.enable_lora(2)
    return [
        layers.Dense(5, use_bias=False),
        layers.Conv2D(5, 3, padding="same"),
        layers.Conv2D(5, 3, strides=2, use_bias=False),
        layers.DepthwiseConv2D(3),
        layers.SeparableConv2D(5, 3),
        layers.Conv2DTranspose(5, 3),
        layers.EinsumDense("bhwc,cd->bhwd", output_shape=(4, 4, 5)),
        layers.AveragePooling2D(2),
        layers.UpSampling2D(2),
        layers.ZeroPadding2D(1),
        lora,
    ]


@pytest.mark.parametrize("layer", affine_layers(), ids=lambda layer: layer.name)
def test_an_affine_layer_whose_value_is_not_computed_has_its_own_derivative(layer):
    """On PyTorch the rate's forward pass is deferred and never run; this must not
    affect its derivative."""
    network = chain(LIF(), layer, layers.Flatten(), shape=(4, 4, 3))
    x = 1.5 * data(3, (4, 4, 3))[0]
    weights = np.random.default_rng(1).normal(size=(3, network.output_shape[-1]))
    model, weights = spiking(network, 4), weights.astype("float32")

    def loss(weights, outputs):
        return ops.sum(weights * outputs)

    _, gradients = loss_and_gradients(model, x, weights, loss)
    lookup = rsnn.layer_kinds.lookup
    kind_of_class = lookup.kind_of_class

    def unknown(cls):
        return LayerKind(role=kind_of_class(cls).role)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lookup, "kind_of_class", unknown)
        _, expected = loss_and_gradients(model, x, weights, loss)
    assert_close(gradients, expected, rtol=1e-4, atol=1e-5)
