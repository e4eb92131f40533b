"""What JAX and TensorFlow leave to other backends is tested there, and on each of them
every value of each parameter."""

import itertools
import pathlib
import types

import pytest
from elsewhere import IN_TURN, OF_BACKENDS, few, left_to_others

from keras_ratesnn.gradients import Rate

pytestmark = pytest.mark.runs_once

TESTS = pathlib.Path(__file__).parents[1]


def names_the_backend():
    return BACKEND  # noqa: F821


def item(room, name="", marks=(), function=lambda: None, **parameters):
    """What is read of an item of pytest."""
    return types.SimpleNamespace(
        path=TESTS / room / "test_it.py",
        function=function,
        nodeid=f"tests/{room}/test_it.py::test[{name}]",
        get_closest_marker=marks.__contains__,
        callspec=types.SimpleNamespace(params=parameters),
    )


def cases(room, **arguments):
    items = []
    methods = "rate", "bptt", Rate(windows=2)
    for gradient, mode in itertools.product(methods, ["multi", "single"]):
        name = f"{gradient}-{mode}"
        items.append(item(room, name, gradient=gradient, step_mode=mode, **arguments))
    return items


def test_a_case_of_a_room_in_turn_is_left_to_one_of_the_other_backends():
    items = [case for room in IN_TURN for case in cases(room)]
    by_jax, by_tensorflow = (
        left_to_others(items, backend) for backend in ("jax", "tensorflow")
    )
    left = [case.nodeid for case in by_jax + by_tensorflow]
    assert sorted(left) == sorted(case.nodeid for case in items)
    assert 0.4 * len(items) < len(by_jax) < 0.6 * len(items)


def test_the_rooms_are_those_of_the_tests():
    for room in (*IN_TURN, *OF_BACKENDS):
        assert (TESTS / room).is_dir(), room


@pytest.mark.parametrize("backend", ["jax", "tensorflow"])
def test_elsewhere_every_value_is_kept(backend):
    items = cases("model")
    left = left_to_others(items, backend)
    assert len(left) == 3
    remaining = [case.callspec.params for case in items if case not in left]
    assert {params["step_mode"] for params in remaining} == {"multi", "single"}
    assert len({str(params["gradient"]) for params in remaining}) == 3


@pytest.mark.parametrize("room", ["models", "model", *OF_BACKENDS])
def test_what_is_marked_or_asks_for_the_backend_runs_on_each(room):
    items = cases(room, marks=("on_each_backend",)) + cases(room, marks=("skipif",))
    items += cases(room, function=names_the_backend)
    if room in OF_BACKENDS:
        items += cases(room)
    assert left_to_others(items, "jax") == []


@pytest.mark.parametrize(
    ("values", "number"),
    [
        ([types.SimpleNamespace(), types.SimpleNamespace()], 2),
        ([1, True, 1.0, 1], 3),
        ([[1, {"y": 2}], [1, {"y": 2}], (1, {"y": 2})], 2),
    ],
)
def test_values_that_need_not_be_equal_are_all_kept(values, number):
    parameters = {str(index): {"x": value} for index, value in enumerate(values)}
    assert len(few(parameters)) == number
