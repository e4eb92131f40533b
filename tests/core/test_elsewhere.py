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


def item(room, parameters=None, marks=(), function=lambda: None):
    """What is read of an item of pytest."""
    found = types.SimpleNamespace(
        path=TESTS / room / "test_it.py",
        function=function,
        nodeid=f"tests/{room}/test_it.py::test",
    )
    found.get_closest_marker = lambda name: name in marks
    if parameters:
        found.callspec = types.SimpleNamespace(params=parameters)
        found.nodeid += f"[{'-'.join(map(str, parameters.values()))}]"
    return found


def cases(room, **arguments):
    products = itertools.product(["rate", "bptt", Rate(windows=2)], ["multi", "single"])
    return [
        item(room, {"gradient": gradient, "step_mode": mode}, **arguments)
        for gradient, mode in products
    ]


def test_a_case_of_a_room_in_turn_is_left_to_one_of_the_other_backends():
    items = [case for room in IN_TURN for case in (*cases(room), item(room))]
    by_jax, by_tensorflow = (
        left_to_others(items, backend) for backend in ("jax", "tensorflow")
    )
    assert sorted(id(case) for case in (*by_jax, *by_tensorflow)) == sorted(
        map(id, items)
    )
    assert 0.4 * len(items) < len(by_jax) < 0.6 * len(items)


def test_the_rooms_are_those_of_the_tests():
    assert [
        room for room in (*IN_TURN, *OF_BACKENDS) if not (TESTS / room).is_dir()
    ] == []


@pytest.mark.parametrize("backend", ["jax", "tensorflow"])
def test_elsewhere_every_value_is_kept(backend):
    items = cases("model")
    left = left_to_others(items, backend)
    assert len(left) == 3
    kept = [case.callspec.params for case in items if case not in left]
    assert {params["step_mode"] for params in kept} == {"multi", "single"}
    assert {str(params["gradient"]) for params in kept} == {
        "rate",
        "bptt",
        str(Rate(windows=2)),
    }
    assert left_to_others([item("model")], backend) == []


@pytest.mark.parametrize("room", ["models", "model"])
def test_what_is_marked_or_asks_for_the_backend_runs_on_each(room):
    for arguments in (
        *({"marks": (mark,)} for mark in ("on_each_backend", "skipif")),
        {"function": names_the_backend},
    ):
        assert left_to_others(cases(room, **arguments), "jax") == []
    assert (
        left_to_others([case for room in OF_BACKENDS for case in cases(room)], "jax")
        == []
    )


def test_values_that_need_not_be_equal_are_all_kept():
    layers = [types.SimpleNamespace(), types.SimpleNamespace()]
    assert few(
        {str(number): {"layer": layer} for number, layer in enumerate(layers)}
    ) == {"0", "1"}
    assert (
        len(
            few(
                {"1": {"x": 1}, "True": {"x": True}, "1.0": {"x": 1.0}, "one": {"x": 1}}
            )
        )
        == 3
    )
    assert (
        len(
            few(
                {
                    "a": {"x": [1, {"y": 2}]},
                    "b": {"x": [1, {"y": 2}]},
                    "c": {"x": (1, {"y": 2})},
                }
            )
        )
        == 2
    )
