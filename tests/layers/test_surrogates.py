"""Surrogate derivatives: values, areas and widths, names, saving and errors."""

import inspect
import math

import helpers
import keras
import numpy as np
import pytest
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
PARAMETER = {
    surrogates.Sigmoid: "alpha",
    surrogates.ATan: "alpha",
    surrogates.Triangle: "width",
    surrogates.Rectangular: "width",
    surrogates.FastSigmoid: "slope",
    surrogates.Gaussian: "sigma",
}
CASES = [
    *((kind, {}) for kind in PRIMITIVES),
    *((kind, {name: value}) for kind, name in PARAMETER.items() for value in (0.3, 3)),
]
# Off the corners (0, ±width/2, ±width for every width used) by more than the numeric
# derivative's step.
DISTANCES = np.linspace(-4.01, 4.02, 300)

every_kind = pytest.mark.parametrize("kind", PRIMITIVES, ids=lambda kind: kind.__name__)
every_case = pytest.mark.parametrize(
    ("kind", "arguments"),
    CASES,
    ids=lambda value: getattr(value, "__name__", None) or str(value),
)


def derivative(surrogate, distances, dtype="float32"):
    return helpers.to_numpy(
        surrogate.derivative(ops.convert_to_tensor(distances, dtype))
    )


@every_case
def test_it_is_the_derivative_of_its_primitive(kind, arguments):
    primitive, step = PRIMITIVES[kind], 1e-6
    numeric = (
        primitive(DISTANCES + step, **arguments)
        - primitive(DISTANCES - step, **arguments)
    ) / (2 * step)
    np.testing.assert_allclose(
        derivative(kind(**arguments), DISTANCES), numeric, rtol=1e-4, atol=2e-6
    )


@every_case
def test_its_area_is_1_if_the_docstring_says_so(kind, arguments):
    # ATan's tails beyond ±200 hold 0.7 % at its smallest alpha. An odd number of
    # intervals, so that no edge is on the grid.
    distances = np.linspace(-200, 200, 99_999)
    values = derivative(kind(**arguments), distances).astype("float64")
    area = np.sum((values[1:] + values[:-1]) / 2 * np.diff(distances))
    if "area 1" in kind.__doc__.split("\n\n")[0].lower():
        assert area == pytest.approx(1, abs=0.015)
    else:
        assert area == pytest.approx(2 / arguments.get(PARAMETER[kind], 25.0), rel=0.02)


LARGEST = {
    surrogates.Sigmoid: lambda alpha: alpha / 4,
    surrogates.ATan: lambda alpha: alpha / 2,
    surrogates.Triangle: lambda width: 1 / width,
    surrogates.Rectangular: lambda width: 1 / width,
    surrogates.FastSigmoid: lambda slope: 1.0,
    surrogates.Gaussian: lambda sigma: 1 / (sigma * math.sqrt(2 * math.pi)),
}


@every_kind
@pytest.mark.parametrize("width", [0.5, 1.0, 2.0, 8.0])
def test_its_largest_value_is_at_the_threshold_and_follows_the_width(kind, width):
    surrogate = kind(**{PARAMETER[kind]: width})
    assert derivative(surrogate, [0.0])[0] == pytest.approx(
        LARGEST[kind](width), rel=1e-6
    )
    assert (derivative(surrogate, DISTANCES) <= LARGEST[kind](width) * (1 + 1e-6)).all()


@every_kind
def test_it_is_even(kind):
    found, expected = (derivative(kind(), side * DISTANCES) for side in (1, -1))
    # Where a sigmoid is nearly 1, α times a few roundings of float32 are left of 1 − σ.
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=3e-6)


@every_kind
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_it_keeps_shape_and_dtype(kind, dtype):
    distances = ops.zeros((2, 1, 3), dtype)
    result = kind().derivative(distances)
    assert keras.backend.standardize_dtype(result.dtype) == dtype
    assert tuple(result.shape) == (2, 1, 3)


@every_kind
def test_it_is_finite_far_from_the_threshold(kind):
    far = derivative(kind(), [-1e30, -1e4, 1e4, 1e30])
    assert np.isfinite(far).all()
    assert (far < 1e-6).all()


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
    found = surrogates.get(name)
    assert type(found) is kind
    assert found.get_config() == kind().get_config()
    assert rsnn.layers.LIF(surrogate=name).surrogate.get_config() == found.get_config()


@every_case
def test_a_serialised_surrogate_is_restored(kind, arguments):
    surrogate = kind(**arguments)
    found = surrogates.get(keras.saving.serialize_keras_object(surrogate))
    assert type(found) is kind
    assert (
        found.get_config()
        == surrogate.get_config()
        == {**kind().get_config(), **arguments}
    )


@every_kind
def test_its_repr_is_the_call_that_makes_it(kind):
    surrogate = kind(**{PARAMETER[kind]: 0.75})
    again = eval(repr(surrogate), vars(surrogates))
    assert type(again) is kind
    assert again.get_config() == surrogate.get_config()


def test_the_config_is_documented_in_full():
    for kind, name in PARAMETER.items():
        assert (
            list(inspect.signature(kind).parameters)
            == list(kind().get_config())
            == [name]
        )


@every_kind
@pytest.mark.parametrize(
    ("value", "error"),
    [
        *((value, ValueError) for value in (0, -1.0, math.nan, math.inf)),
        *((value, TypeError) for value in ("1", True, None)),
    ],
)
def test_the_error_for_a_wrong_width_has_its_name_and_value(kind, value, error):
    with pytest.raises(
        error, match=f"`{PARAMETER[kind]}` must be .*{PARAMETER[kind]}={value!r}"
    ):
        kind(**{PARAMETER[kind]: value})


def test_an_unknown_name_lists_the_names():
    with pytest.raises(ValueError, match="surrogate='relu'") as error:
        surrogates.get("relu")
    assert all(repr(name) in str(error.value) for name in NAMES)


def test_a_class_instead_of_an_instance_is_an_error():
    with pytest.raises(TypeError, match="Pass an instance"):
        surrogates.get(surrogates.ATan)


@pytest.mark.parametrize(
    "value",
    [
        None,
        4.0,
        abs,
        {"class_name": "Dense", "module": "keras.layers", "config": {"units": 1}},
    ],
)
def test_other_objects_are_refused(value):
    with pytest.raises(TypeError, match="`surrogate` must be one of"):
        surrogates.get(value)


def test_a_surrogate_without_derivative_says_what_to_implement():
    with pytest.raises(NotImplementedError, match="derivative"):
        type("Mine", (surrogates.Surrogate,), {})().derivative(ops.zeros((1,)))


@keras.saving.register_keras_serializable(package="tests")
class Tent(surrogates.Surrogate):
    """A custom surrogate: height · max(0, 1 − |u|)."""

    def __init__(self, height=1.0):
        self.height = height

    def derivative(self, distance):
        return self.height * ops.relu(1.0 - ops.abs(distance))

    def get_config(self):
        return {"height": self.height}


@pytest.mark.parametrize("gradient", ["rate", "bptt"])
def test_a_custom_surrogate_trains_and_can_be_saved(gradient):
    model = helpers.compiled(
        helpers.spiking(helpers.mlp(surrogate=Tent(height=0.5)), gradient=gradient)
    )
    x, y = helpers.data()
    assert np.isfinite(model.train_on_batch(x, y))
    loaded = helpers.saved_and_loaded(model)
    (neuron,) = [
        layer for layer in loaded.network.layers if isinstance(layer, rsnn.layers.LIF)
    ]
    assert type(neuron.surrogate) is Tent
    assert neuron.surrogate.height == 0.5
    np.testing.assert_array_equal(
        loaded.predict(x, verbose=0), model.predict(x, verbose=0)
    )


def test_the_surrogate_scales_the_gradient():
    def kernel_gradient(height):
        keras.utils.set_random_seed(1)
        model = helpers.spiking(helpers.mlp(surrogate=Tent(height)), timesteps=1)
        _, gradients = helpers.loss_and_gradients(model, *helpers.data())
        return next(iter(gradients.values()))

    np.testing.assert_allclose(
        kernel_gradient(2.0), 2 * kernel_gradient(1.0), rtol=1e-5, atol=1e-7
    )
    assert np.abs(kernel_gradient(1.0)).max() > 0
