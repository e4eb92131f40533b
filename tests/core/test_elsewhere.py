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


def test_every_case_of_a_room_in_turn_runs_on_one_of_the_other_backends():
    items = [case for room in IN_TURN for case in cases(room)]
    left = [left_to_others(items, backend) for backend in ("jax", "tensorflow")]
    names = [case.nodeid for case in left[0] + left[1]]
    assert sorted(names) == sorted(case.nodeid for case in items)
    assert 0.4 * len(items) < len(left[0]) < 0.6 * len(items)
    for room in (*IN_TURN, *OF_BACKENDS):
        assert (TESTS / room).is_dir(), room


def test_in_other_rooms_every_value_is_kept_and_what_is_marked_runs_everywhere():
    items = cases("model")
    left = left_to_others(items, "jax")
    assert len(left) == 3
    remaining = [case.callspec.params for case in items if case not in left]
    assert {params["step_mode"] for params in remaining} == {"multi", "single"}
    assert len({str(params["gradient"]) for params in remaining}) == 3
    for room in ("model", *OF_BACKENDS):
        marked = cases(room, marks=("on_each_backend",))
        marked += cases(room, function=names_the_backend)
        assert left_to_others(marked, "jax") == []
    assert left_to_others(cases("backend"), "jax") == []


def test_values_that_need_not_be_equal_are_all_kept():
    values = [types.SimpleNamespace(), types.SimpleNamespace(), 1, True, 1.0, 1]
    values += [[1, {"y": 2}], [1, {"y": 2}], (1, {"y": 2})]
    parameters = {str(index): {"x": value} for index, value in enumerate(values)}
    assert len(few(parameters)) == 7
