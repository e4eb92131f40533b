"""Surrogates and training methods are fixed; a Keras variable as the number of a
surrogate takes effect at once."""

import keras
import numpy as np
import pytest
from helpers import (
    assert_close,
    chain,
    compiled,
    data,
    loss_and_gradients,
    recorded_early,
    registered,
    saved_and_loaded,
    spiking,
    to_numpy,
)
from keras import layers, ops

import keras_ratesnn as rsnn
from keras_ratesnn import surrogates
from keras_ratesnn.layers import LIF, ParametricLIF

KINDS = list(dict.fromkeys(surrogates.BY_NAME.values()))
ALPHAS = 4.0, 4.0, 4.0, 1.0, 8.0


def variable(value=4.0):
    return keras.Variable(value, trainable=False)


def network(alpha, kind=surrogates.Sigmoid):
    """Two layers of neurons, which share a variable if `alpha` is one."""
    first, second = LIF(surrogate=kind(alpha)), ParametricLIF(surrogate=kind(alpha))
    return chain(layers.Dense(8), first, layers.Dense(8), second, layers.Dense(3))


CALLS = []


@registered
class CountingSigmoid(surrogates.Sigmoid):
    """Counts how often its code runs."""

    def derivative(self, distance):
        CALLS.append("derivative")
        return super().derivative(distance)


@registered
class Mixed(surrogates.Surrogate):
    """A sum of other surrogates, by factors."""

    def __init__(self, parts, factors):
        self.parts, self.factors = parts, factors

    def derivative(self, distance):
        pairs = zip(self.parts, self.factors, strict=True)
        return sum(
            ops.cast(factor, distance.dtype) * part.derivative(distance)
            for part, factor in pairs
        )

    def get_config(self):
        return {"parts": self.parts, "factors": list(map(float, self.factors))}


def nested(alpha):
    return Mixed([CountingSigmoid(alpha)], [0.5])


def listed(factor):
    return Mixed([CountingSigmoid()], [factor])


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_variable_is_as_good_as_its_value(kind):
    distances = ops.convert_to_tensor(np.linspace(-2, 2, 9), "float16")
    held = variable(0.5)
    for value in (0.5, 2.0):
        held.assign(value)
        found, expected = (
            kind(number).derivative(distances) for number in (held, value)
        )
        assert found.dtype == expected.dtype
        assert_close([found], [expected], rtol=2e-3, atol=2e-3)
        assert kind(held).get_config() == kind(value).get_config()


@pytest.mark.parametrize(
    ("kind", "gradient", "step_mode", "jit_compile", "policy"),
    [
        (CountingSigmoid, "rate", "multi", "auto", "float32"),
        (CountingSigmoid, "sltt", "single", "auto", "mixed_float16"),
        (nested, "rate", "multi", "auto", "float32"),
        (listed, "bptt", "multi", "auto", "float32"),
    ],
)
def test_a_new_value_takes_effect_and_compiles_nothing(
    kind, gradient, step_mode, jit_compile, policy
):
    def made(alpha):
        keras.utils.set_random_seed(0)
        keras.config.set_dtype_policy(policy)
        try:
            model = spiking(network(alpha, kind), 4, gradient, step_mode=step_mode)
        finally:
            keras.config.set_dtype_policy("float32")
        return compiled(model, keras.optimizers.SGD(0.3), jit_compile=jit_compile)

    x, y = data()
    held = variable()
    model = made(held)
    calls = []
    with recorded_early():
        for alpha in ALPHAS:
            held.assign(alpha)
            model.train_on_batch(x, y)
            calls.append(len(CALLS))
    assert calls[2:] == [calls[2]] * 3

    weights = made(4.0).get_weights()
    for alpha in ALPHAS:
        fixed = made(alpha)
        fixed.set_weights(weights)
        fixed.train_on_batch(x, y)
        weights = fixed.get_weights()
    tolerance = 1e-5 if policy == "float32" else 1e-3
    assert_close(model.get_weights(), weights, rtol=tolerance, atol=tolerance)


def test_a_long_time_loop_reads_the_present_value():
    held = variable()
    model = spiking(network(held), 40, "bptt")
    for alpha in (4.0, 1.0):
        held.assign(alpha)
        fixed = spiking(network(alpha), 40, "bptt")
        fixed.set_weights(model.get_weights())
        found, expected = (
            loss_and_gradients(one, *data())[1] for one in (model, fixed)
        )
        pairs = list(found.values()), list(expected.values())
        assert_close(*pairs, rtol=1e-4, atol=1e-6)


def test_a_variable_is_no_weight_and_a_file_has_its_value(tmp_path):
    held = variable()
    model, fixed = spiking(network(held)), spiking(network(4.0))
    assert len(model.get_weights()) == len(fixed.get_weights())
    held.assign(2.0)
    loaded = saved_and_loaded(model)
    assert loaded.network.layers[2].surrogate.alpha == 2.0
    of_another = saved_and_loaded(spiking(network(held, nested)))
    assert repr(of_another.network.layers[2].surrogate) == repr(nested(2.0))
    file = tmp_path / "m.weights.h5"
    model.save_weights(file)
    fixed.load_weights(file)
    x, _ = data()
    for one in (loaded, fixed):
        np.testing.assert_array_equal(to_numpy(one(x)), to_numpy(model(x)))


@pytest.mark.parametrize(
    ("frozen", "name", "remedy"),
    [
        (surrogates.Sigmoid(), "alpha", r"LIF\(surrogate=Sigmoid\(alpha=...\)\)"),
        (rsnn.gradients.BPTT(), "new", r"model.gradient = BPTT\("),
    ],
)
def test_assigning_an_attribute_says_to_make_a_new_one(frozen, name, remedy):
    with pytest.raises(
        AttributeError, match=f"`{name}` of .* Received: {name}=3. .*{remedy}"
    ):
        setattr(frozen, name, 3)
    assert getattr(frozen, name, None) != 3
