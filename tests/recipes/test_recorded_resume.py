"""A run resumes to the same result where every call is recorded: on PyTorch, as in
`tests/model/test_recorded_promises.py`."""

import pytest
from helpers import BACKEND

if BACKEND != "torch":
    pytest.skip(
        "other backends compile whole functions themselves", allow_module_level=True
    )

from tests.model.test_recorded_promises import (
    _precision,
    _recorded_at_all,
    _recorded_at_once,
    pytest_generate_tests,
)
from tests.recipes.test_resume import (
    folder,
    stopped_run,
    test_an_interrupted_run_resumes_to_the_same_curve,
    whole_run,
)

__all__ = [
    "_precision",
    "_recorded_at_all",
    "_recorded_at_once",
    "folder",
    "pytest_generate_tests",
    "stopped_run",
    "test_an_interrupted_run_resumes_to_the_same_curve",
    "whole_run",
]
