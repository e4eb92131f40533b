"""Every case of the suite runs somewhere."""

import pathlib

from places import PLACES, backends_of

TESTS = pathlib.Path(__file__).parents[1]


def test_places_are_of_files_and_folders_that_exist():
    assert [path for path in PLACES if not (TESTS / path).exists()] == []


def test_pytorch_runs_all_and_of_two_backends_the_other_one_differs_between_cases():
    cases = [f"test_{number}" for number in range(20)]
    assert {backends_of(1, case) for case in cases} == {("torch",)}
    two = {("torch", "jax"), ("torch", "tensorflow")}
    assert {backends_of(2, case) for case in cases} == two
    assert {len(set(backends_of(3, case))) for case in cases} == {3}
