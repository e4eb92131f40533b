"""A run resumes to the same result where every call is recorded: on PyTorch."""

import pytest
from helpers import BACKEND

if BACKEND != "torch":
    pytest.skip(
        "other backends compile whole functions themselves", allow_module_level=True
    )

from recorded_calls import recording

from tests.recipes.test_resume import (
    folder,
    stopped_run,
    test_an_interrupted_run_resumes_to_the_same_curve,
    whole_run,
)

__all__ = [
    "folder",
    "stopped_run",
    "test_an_interrupted_run_resumes_to_the_same_curve",
    "whole_run",
]


@pytest.fixture(autouse=True, scope="module")
def _recorded_at_once():
    with recording():
        yield
