"""Which tests JAX and TensorFlow leave to other backends: all run on PyTorch, where
they take the least time."""

import collections
import zlib

from keras_ratesnn.gradients import GradientMethod

IN_TURN = (
    "analysis",
    "callbacks",
    "conversion",
    "events",
    "integers",
    "losses",
    "models",
    "nir",
    "testing",
)
"""Rooms of tests of code in which nothing of a backend is, which
tests/core/test_rooms.py guards. Beside PyTorch each case runs on one backend, in
turn."""

OF_BACKENDS = ("backend", "contract", "gradients", "graph", "layers", "steps")
"""Rooms of tests of what differs between backends, and of what all else is built on."""

OTHERS = ("jax", "tensorflow")

PLAIN = (str, bytes, bool, int, float, complex, type(None))


def left_to_others(items, backend):
    """The tests that a backend other than PyTorch leaves out.

    Of rooms `IN_TURN` these are the cases that the other backend runs. Of other tests
    with several parameters as many cases run as have each value of each parameter
    together.

    Args:
        items: List of pytest's items.
        backend: String, "jax" or "tensorflow".

    Returns:
        List of items.
    """
    left, cases = [], collections.defaultdict(dict)
    for item in items:
        room = item.path.parent.name
        if room in OF_BACKENDS or _runs_everywhere(item):
            continue
        if room in IN_TURN:
            if OTHERS[_number(item.nodeid) % len(OTHERS)] != backend:
                left.append(item)
        elif hasattr(item, "callspec"):
            cases[item.nodeid.partition("[")[0]][item.nodeid] = item
    for of_test in cases.values():
        chosen = few({case: item.callspec.params for case, item in of_test.items()})
        left += [item for case, item in of_test.items() if case not in chosen]
    return left


def few(cases):
    """Some of the cases of a test: together they have each value of each parameter.

    Which pairs of values these are differs between tests.

    Args:
        cases: Dict of the id of each case to its parameters: a dict of names to values.

    Returns:
        Set of ids.
    """
    values = {
        case: {(name, _same(value)) for name, value in of.items()}
        for case, of in cases.items()
    }
    missing, chosen = set().union(*values.values()), set()
    while missing:
        case = max(
            values, key=lambda case: (len(values[case] & missing), _number(case))
        )
        missing -= values[case]
        chosen.add(case)
    return chosen


def _runs_everywhere(item):
    # Slow tests run on request only. Others are for some backends, or look at which one
    # it is.
    marks = any(map(item.get_closest_marker, ("on_each_backend", "slow", "skipif")))
    return marks or {"BACKEND", "backend"} & set(item.function.__code__.co_names)


def _number(text):
    """The same in each process, unlike Python's hash."""
    return zlib.crc32(text.encode())


def _same(value):
    """The same for values that are certainly equal."""
    if isinstance(value, (list, tuple)):
        return (type(value), *map(_same, value))
    if isinstance(value, dict):
        return (dict, *((key, _same(of_key)) for key, of_key in value.items()))
    if isinstance(value, int):
        # Python writes no integers of more than 4,300 digits.
        return type(value), value
    if isinstance(value, PLAIN):
        return type(value), repr(value)
    return repr(value) if isinstance(value, GradientMethod) else id(value)
