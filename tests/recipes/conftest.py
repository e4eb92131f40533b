"""Networks that recipes train for one short epoch in tests may be dead, of which their callback rightly warns."""

import pathlib

import pytest

HERE = pathlib.Path(__file__).parent


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("ignore:DEAD after epoch:UserWarning"))
