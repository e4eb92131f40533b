"""The table of facts about layers, and that nothing else compares layers by their
class."""

import pathlib
import re

import keras
import pytest
from helpers import assert_close, data, loss_and_gradients, needs_keras
from keras import layers, ops

import keras_ratesnn as rsnn
from keras_ratesnn import layer_kinds
from keras_ratesnn.layer_kinds import kind_of, seeds_of, wants_time_step
from keras_ratesnn.layers import (
    LIF,
    BatchStatistics,
    BernoulliEncoder,
    IFCell,
    LayerKind,
)

PACKAGE = pathlib.Path(rsnn.__file__).parent


def operation_of(tensor):
    return tensor._keras_history.operation


def test_facts_of_keras_layers_are_known():
    assert kind_of(layers.Dense(3)).affine
    assert not kind_of(layers.Dense(3, activation="relu")).affine
    assert kind_of(layers.Add()).parameter_free
    assert kind_of(layers.BatchNormalization()).normalization.normalize_rate is not None
    assert kind_of(layers.Dropout(0.5)).random_mask
    assert not kind_of(layers.AlphaDropout(0.5)).random_mask
    assert kind_of(layers.Conv2D(3, 3)).any_layout
    assert kind_of(layers.LSTM(3)) == LayerKind()
    assert kind_of(LIF()).role == "neuron"
    assert kind_of(BernoulliEncoder()).role == "encoder"
    assert kind_of(IFCell()).role == "cell"


@needs_keras("3.14")
def test_batch_renormalization_has_no_normalisation_of_rates():
    renormalization = kind_of(layers.BatchNormalization(renorm=True)).normalization
    assert renormalization.normalize_rate is None


@pytest.mark.parametrize(
    "combine",
    [lambda x, y: x + y, lambda x, y: x - y, lambda x, y: -x],
    ids=["+", "-", "negative"],
)
def test_sums_in_the_graph_have_the_facts_of_sum_layers(combine):
    x, y = keras.Input((3,)), keras.Input((3,))
    kind = kind_of(operation_of(combine(x, y)))
    assert kind.affine
    assert kind.parameter_free
    assert not kind_of(operation_of(x * y)).affine


def test_a_subclass_that_redefines_something_is_only_a_layer():
    class Renamed(layers.Dense):
        def __init__(self, units, **kwargs):
            super().__init__(units, **kwargs)

    class Scaled(layers.Dense):
        def call(self, inputs):
            return super().call(inputs) ** 2

    class Standardised(layers.Conv2D):
        def convolution_op(self, inputs, kernel):
            return super().convolution_op(inputs, kernel) ** 2

    assert kind_of(Renamed(3)).affine
    assert kind_of(Scaled(3)) == kind_of(Standardised(3, 3)) == LayerKind()


def test_a_layer_declares_its_facts():
    class Scale(layers.Layer):
        layer_kind = LayerKind(affine=True)

        def call(self, inputs):
            return inputs * 2.0

    class Squared(Scale):
        def call(self, inputs):
            return inputs * inputs

    assert kind_of(Scale()).affine
    assert kind_of(Squared()) == LayerKind()


def test_seeds_are_those_of_layers_inside_too():
    inner = keras.Sequential(
        [
            keras.Input((3,)),
            layers.Dropout(0.5),
            layers.Dense(2),
            layers.GaussianNoise(0.1),
        ]
    )
    assert len(seeds_of(inner)) == 2
    assert seeds_of(layers.Dense(3)) == ()


def test_a_layer_asks_for_the_time_step_by_an_argument_of_its_call():
    class Timed(layers.Layer):
        def call(self, inputs, time_step=None):
            return inputs

    assert wants_time_step(Timed)
    assert not wants_time_step(layers.Dense)


def test_layers_are_named_by_the_table_the_models_and_conversion_alone():
    """Methods and layers are connected only by facts: methods do not know layers, of
    Keras or ours, and layers do not know methods."""
    allowed = {"conversion", "layer_kinds", "layers", "models", "testing"}
    names = [name for name in vars(layers) if isinstance(vars(layers)[name], type)]
    names = {*names, *rsnn.layers.__all__} - {"Layer", "NeuronCell", "Neuron"}
    names -= set(layer_kinds.__all__)
    offences = []
    for path in PACKAGE.rglob("*.py"):
        room, *_ = path.relative_to(PACKAGE).parts
        code = re.sub(r'"""(.|\n)*?"""|#.*|"[^"\n]*"', "", path.read_text())
        words = set(re.findall(r"keras\.layers\.(?!Layer\b)\w+", code))
        if room == "gradients":
            words |= names & set(re.findall(r"\w+", code))
        offences += [(path.name, words)] if words and room not in allowed else []
    assert offences == []


def _standardized(layer, inputs, times=1, mask=None):
    mean, variance = ops.mean(inputs, axis=0), ops.var(inputs, axis=0)
    return (inputs - mean) / ops.sqrt(variance + layer.epsilon), mean, variance


def _standardized_rate(layer, rate, mean, variance, weights=None):
    """With the values of the given statistics and the derivatives of the rate's own."""
    mean = _with_derivative_of(ops.mean(rate, axis=0), mean)
    variance = _with_derivative_of(ops.var(rate, axis=0), variance)
    return (rate - mean) / ops.sqrt(variance + layer.epsilon)


def _with_derivative_of(own, value):
    return own + ops.stop_gradient(value - own)


class Standardized(layers.Layer):
    layer_kind = LayerKind(
        affine=True,
        normalization=BatchStatistics(_standardized, _standardized_rate),
    )
    epsilon = 1e-3

    def call(self, inputs, training=None):
        return _standardized(self, inputs)[0]


@pytest.mark.parametrize(
    ("gradient", "step_mode"),
    [("rate", "multi"), ("rate", "single"), ("bptt", "multi")],
)
def test_a_normalization_of_ones_own_trains_as_batch_normalization_does(
    gradient, step_mode
):
    def trained(norm):
        x = norm(hidden(LIF()(inputs)))
        network = keras.Model(inputs, outputs(LIF()(x)))
        model = rsnn.SpikingModel(network, 3, gradient, step_mode)
        return loss_and_gradients(model, *x_y)

    inputs, x_y = keras.Input((6,)), data(8, (3, 6))
    hidden, outputs = layers.Dense(5), layers.Dense(3)
    options = {"center": False, "scale": False, "epsilon": 1e-3}
    loss, gradients = trained(Standardized())
    expected_loss, expected = trained(layers.BatchNormalization(**options))
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert max(abs(gradient).max() for gradient in gradients.values()) > 1e-3
    assert_close(gradients, expected, rtol=1e-4, atol=1e-6)
