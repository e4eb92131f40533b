"""Binned frames, voxel grids, time surfaces and augmentations of recordings, against
slow loops."""

import dataclasses
import re

import numpy as np
import pytest
from helpers import assert_close
from made_recordings import arrays_of, made_events
from numpy.testing import assert_allclose, assert_array_equal

from keras_ratesnn.events import (
    Events,
    binned_frames,
    event_drop,
    flip,
    roll,
    time_surfaces,
    voxel_grid,
)

pytestmark = pytest.mark.runs_once

SHAPE = (128, 128)
SMALL = (3, 4)


def small_events(count, seed=0, duration=1000):
    """Events on a sensor of 3x4 pixels, some at the same time and place."""
    events = made_events(count, seed, duration)
    return Events(
        events.x % 4, events.y % 3, events.polarity.astype("bool"), events.timestamp
    )


def in_order(events):
    fields = events.x, events.y, events.polarity, events.timestamp
    return zip(*(values.astype(int).tolist() for values in fields), strict=True)


FUNCTIONS = {
    "binned_frames": lambda events: binned_frames(events, 3, 100, SHAPE, (4, 4)),
    "voxel_grid": lambda events: voxel_grid(events, 3, SHAPE),
    "time_surfaces": lambda events: time_surfaces(events, 3, 50.0, SHAPE),
    "flip": lambda events: flip(events, SHAPE),
    "roll": lambda events: roll(events, 1, -2, SHAPE),
    "event_drop": lambda events: event_drop(events, np.random.default_rng(0), SHAPE),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_arrays_of_the_caller_stay_as_they_are(name):
    events = made_events(50, seed=0)
    for values in arrays_of(events).values():
        values.setflags(write=False)
    before = {name: values.copy() for name, values in arrays_of(events).items()}
    FUNCTIONS[name](events)
    assert_close(arrays_of(events), before, rtol=0)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_event_outside_the_sensor_and_what_is_no_recording_are_errors(name):
    with pytest.raises(ValueError, match="`x` must be less than 128"):
        FUNCTIONS[name](
            Events(np.array([128]), np.array([0]), np.array([0]), np.array([9]))
        )
    with pytest.raises(TypeError, match="`events` must be an Events"):
        FUNCTIONS[name](None)


@pytest.mark.parametrize(
    ("use", "kind", "said"),
    [
        (
            lambda events: binned_frames(events, 0, 5, SMALL, SMALL),
            ValueError,
            "`timesteps` must be 1 or more",
        ),
        (
            lambda events: binned_frames(events, 2, 0.5, SMALL, SMALL),
            TypeError,
            "`duration` must be an integer",
        ),
        (
            lambda events: binned_frames(events, 2, 5, (3,), SMALL),
            ValueError,
            "`sensor_shape` must be two integers",
        ),
        (
            lambda events: voxel_grid(events, 0, SMALL),
            ValueError,
            "`bins` must be 1 or more",
        ),
        (
            lambda events: time_surfaces(events, 2, 0.0, SMALL),
            ValueError,
            "`tau` must be > 0",
        ),
        (
            lambda events: roll(events, 0.5, 0, SMALL),
            TypeError,
            "`rows` must be an integer",
        ),
        (
            lambda events: event_drop(events, 7, SMALL),
            TypeError,
            "`generator` must be a Generator",
        ),
    ],
)
def test_a_wrong_argument_is_an_error_that_names_it(use, kind, said):
    with pytest.raises(kind, match=re.escape(said)):
        use(small_events(5))


def test_bins_have_a_fixed_duration_from_time_zero():
    events = small_events(200, duration=95)
    frames = binned_frames(events, 8, 10, SMALL, SMALL)
    expected = np.zeros((8, *SMALL, 2))
    for x, y, polarity, time in in_order(events):
        if time < 80:
            expected[time // 10, y, x, polarity] += 1
    assert expected.sum() < 200
    assert_array_equal(frames, expected)
    # Frames after the last event are zero, and events of unsigned times after the last
    # frame are left out.
    late = Events(*(np.array([1]) for _ in range(3)), np.array([2**64 - 1], "uint64"))
    assert not binned_frames(late, 3, 1, SMALL, SMALL).any()
    narrow = dataclasses.replace(late, timestamp=np.array([9], "uint8"))
    assert binned_frames(narrow, 3, 10_000, SMALL, SMALL)[0, 1, 1, 1] == 1
    with pytest.raises(ValueError, match="`timestamp` must be 0 or more"):
        binned_frames(
            Events(*(np.array([1]) for _ in range(3)), np.array([-1])),
            3,
            1,
            SMALL,
            SMALL,
        )


@pytest.mark.parametrize("bins", [1, 2, 5])
def test_voxel_grids_are_those_of_a_slow_loop(bins):
    events = small_events(100)
    grid = np.zeros((bins, *SMALL))
    first, last = int(events.timestamp[0]), int(events.timestamp[-1])
    for x, y, polarity, time in in_order(events):
        scaled = (bins - 1) * (time - first) / (last - first)
        for number in range(bins):
            grid[number, y, x] += (1 if polarity else -1) * max(
                0, 1 - abs(scaled - number)
            )
    found = voxel_grid(events, bins, SMALL)
    assert found.dtype == np.float32
    assert_allclose(found, grid, atol=1e-5)
    # No event is lost, also not the last one.
    assert found.sum() == pytest.approx(2 * events.polarity.sum() - 100, abs=1e-4)


def test_a_voxel_grid_of_one_moment_is_in_the_first_bin():
    events = Events(
        np.array([1, 1, 2]),
        np.array([0, 0, 0]),
        np.array([1, 1, 0]),
        np.array([7, 7, 7]),
    )
    grid = voxel_grid(events, 3, SMALL)
    assert grid[0, 0].tolist() == [0, 2, -1, 0]
    assert not grid[1:].any()


@pytest.mark.parametrize("timesteps", [1, 4])
def test_time_surfaces_are_those_of_a_slow_loop(timesteps):
    events, tau = small_events(60, duration=97), 30.0
    first = int(events.timestamp[0])
    duration = int(events.timestamp[-1]) - first + 1
    expected = np.zeros((timesteps, *SMALL, 2))
    for step in range(timesteps):
        end = (step + 1) * duration / timesteps
        for x, y, polarity, time in in_order(events):
            if time - first < end:
                expected[step, y, x, polarity] = np.exp(-(end - (time - first)) / tau)
    assert_allclose(time_surfaces(events, timesteps, tau, SMALL), expected, rtol=1e-5)


def test_flips_and_rolls_move_events_as_images():
    events = small_events(40)
    image, flipped, rolled = (
        voxel_grid(moved, 1, SMALL)[0]
        for moved in (events, flip(events, SMALL), roll(events, 4, -1, SMALL))
    )
    assert_array_equal(flipped, image[:, ::-1])
    assert_array_equal(rolled, np.roll(image, (4, -1), (0, 1)))


def test_unsigned_columns_are_flipped_too():
    events = Events(*(np.array([1], "uint8") for _ in range(4)))
    assert flip(events, (2, 300)).x.tolist() == [298]


def dropped(events, draws, shape):
    """The times of the events that are left out, in many draws."""
    generator = np.random.default_rng(0)
    for _ in range(draws):
        rest = event_drop(events, generator, shape).timestamp
        yield np.setdiff1d(events.timestamp, rest)


def test_events_of_a_span_an_area_or_any_are_left_out():
    """On a line of 100 pixels with an event each, from left to right, spans and areas
    are alike."""
    zeros = np.zeros(100, int)
    events = Events(np.arange(100), zeros, zeros, np.arange(100))
    spans, others = set(), set()
    for times in dropped(events, 400, (1, 100)):
        is_run = len(times) > 0 and (np.diff(times) == 1).all()
        (spans if is_run else others).add(len(times))
    # Any: whole tenths. Spans and areas may reach beyond the end.
    assert others == set(range(0, 100, 10))
    assert 1 <= min(spans) < max(spans) <= 95


def test_a_dropped_area_is_a_rectangle_and_not_a_cross():
    rows, columns = (axis.ravel() for axis in np.mgrid[:20, :20])
    events = Events(columns, rows, 0 * rows, 0 * rows)
    generator, rectangles = np.random.default_rng(0), 0
    for _ in range(200):
        rest = event_drop(events, generator, (20, 20))
        image = np.ones((20, 20), bool)
        image[rest.y, rest.x] = False
        height, width = image.any(axis=1).sum(), image.any(axis=0).sum()
        if image.sum() == height * width:
            rectangles += 0 < height < 20 and 0 < width < 20
        else:
            # At random: tenths of the events.
            assert image.sum() % 40 == 0
    assert rectangles > 20


def test_events_are_dropped_in_each_of_four_ways_and_never_all():
    single = Events(*(np.array([1]) for _ in range(4)))
    events = made_events(100, seed=0)
    generator = np.random.default_rng(0)
    assert all(len(event_drop(single, generator, SHAPE).x) == 1 for _ in range(200))
    counts = [len(event_drop(events, generator, SHAPE).x) for _ in range(1000)]
    assert min(counts) >= 1
    # Nothing is dropped in a quarter of the draws, and where the area or the span holds
    # no event.
    assert 0.22 < counts.count(100) / 1000 < 0.35
    first, again = (event_drop(events, np.random.default_rng(3), SHAPE) for _ in "ab")
    assert_array_equal(first.timestamp, again.timestamp)
