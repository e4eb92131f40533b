"""Surrogate derivatives: values, areas and widths, names, saving and errors."""

import inspect
import math

import helpers
import keras
import numpy as np
import pytest
from helpers import registered
from keras import ops

import keras_ratesnn as rsnn
from keras_ratesnn import surrogates


# The smooth spike function H of each surrogate, as its paper gives it: the surrogate
# must be dH/du.
def sigmoid(u, alpha=4.0):
    return 1 / (1 + np.exp(-alpha * u))


def atan(u, alpha=2.0):
    return np.arctan(np.pi / 2 * alpha * u) / np.pi + 0.5


def triangle(u, width=1.0):
    x = np.clip(u / width, -1, 1)
    return 0.5 + x - np.sign(x) * x**2 / 2


def rectangular(u, width=1.0):
    return np.clip(u / width + 0.5, 0, 1)


def fast_sigmoid(u, slope=25.0):
    return u / (1 + slope * np.abs(u))


def gaussian(u, sigma=0.5):
    return 0.5 * (1 + np.vectorize(math.erf)(u / (sigma * math.sqrt(2))))


PRIMITIVES = {
    surrogates.Sigmoid: sigmoid,
    surrogates.ATan: atan,
    surrogates.Triangle: triangle,
    surrogates.Rectangular: rectangular,
    surrogates.FastSigmoid: fast_sigmoid,
    surrogates.Gaussian: gaussian,
}
# Off the corners (0, ±width/2, ±width for every width used) by more than the numeric
# derivative's step.
DISTANCES = np.linspace(-4.01, 4.02, 300)

every_kind = pytest.mark.parametrize("kind", PRIMITIVES, ids=lambda kind: kind.__name__)
every_number = pytest.mark.parametrize("number", [None, 0.3])


def derivative(surrogate, distances):
    distances = ops.convert_to_tensor(distances, "float32")
    return helpers.to_numpy(surrogate.derivative(distances))


def made(kind, number):
    """A surrogate and its argument, a dict; no number is the default."""
    (name,) = inspect.signature(kind).parameters
    arguments = {} if number is None else {name: number}
    return kind(**arguments), arguments


@every_kind
@every_number
def test_it_is_the_derivative_of_its_primitive(kind, number):
    surrogate, arguments = made(kind, number)
    above, below = (
        PRIMITIVES[kind](DISTANCES + step, **arguments) for step in (1e-6, -1e-6)
    )
    numeric = (above - below) / 2e-6
    found = derivative(surrogate, DISTANCES)
    np.testing.assert_allclose(found, numeric, rtol=1e-4, atol=2e-6)
    # NaN is not.
    assert (derivative(surrogate, [-1e30, -1e4, 1e4, 1e30]) < 1e-6).all()


@every_kind
@every_number
def test_its_area_is_1_if_the_docstring_says_so(kind, number):
    _, arguments = made(kind, number)
    right, left = (PRIMITIVES[kind](side * 150.0, **arguments) for side in (1, -1))
    is_promised = "area 1" in kind.__doc__.split("\n\n")[0].lower()
    assert is_promised == (right - left == pytest.approx(1, abs=0.015))


NAMES = {
    "sigmoid": surrogates.Sigmoid,
    "atan": surrogates.ATan,
    "triangle": surrogates.Triangle,
    "rectangular": surrogates.Rectangular,
    "fast_sigmoid": surrogates.FastSigmoid,
    "superspike": surrogates.FastSigmoid,
    "gaussian": surrogates.Gaussian,
}


@pytest.mark.parametrize(("name", "kind"), NAMES.items())
def test_a_name_gives_the_surrogate_with_its_defaults(name, kind):
    for found in (surrogates.get(name), rsnn.layers.LIF(surrogate=name).surrogate):
        assert type(found) is kind
        assert found.get_config() == kind().get_config()


@every_kind
@every_number
def test_a_serialised_surrogate_and_its_repr_make_the_same(kind, number):
    surrogate, arguments = made(kind, number)
    config = surrogate.get_config()
    assert config == {**kind().get_config(), **arguments}
    assert list(inspect.signature(kind).parameters) == list(config)
    serialised = keras.saving.serialize_keras_object(surrogate)
    again = eval(repr(surrogate), vars(surrogates))
    for found in (surrogates.get(serialised), again):
        assert type(found) is kind
        assert found.get_config() == config


def test_an_unknown_name_lists_the_names():
    with pytest.raises(ValueError, match="surrogate='relu'") as error:
        surrogates.get("relu")
    assert all(repr(name) in str(error.value) for name in NAMES)


DENSE = {"class_name": "Dense", "module": "keras.layers", "config": {"units": 1}}


def test_other_objects_are_refused():
    with pytest.raises(TypeError, match="`surrogate` must be one of"):
        surrogates.get(DENSE)


@registered
class Tent(surrogates.Surrogate):
    """A custom surrogate: height · max(0, 1 − |u|)."""

    def __init__(self, height=1.0):
        self.height = height

    def derivative(self, distance):
        return self.height * ops.relu(1.0 - ops.abs(distance))

    def get_config(self):
        return {"height": self.height}


def test_a_custom_surrogate_scales_the_gradient_and_can_be_saved():
    def model_of(height):
        keras.utils.set_random_seed(1)
        network = helpers.mlp(surrogate=Tent(height))
        return helpers.spiking(network, timesteps=1)

    kernels = []
    for model in (model_of(1.0), helpers.saved_and_loaded(model_of(2.0))):
        _, gradients = helpers.loss_and_gradients(model, *helpers.data())
        kernels.append(next(iter(gradients.values())))
    assert np.abs(kernels[0]).max() > 0
    np.testing.assert_allclose(kernels[1], 2 * kernels[0], rtol=1e-5, atol=1e-7)
