"""Event frames, voxel grids, time surfaces and augmentations of recordings, against
slow loops."""

import dataclasses

import numpy as np
import pytest
from helpers import assert_close
from made_recordings import arrays_of, expect_error, made_events
from numpy.testing import assert_allclose, assert_array_equal

from keras_ratesnn.events import (
    Events,
    binned_frames,
    event_drop,
    event_frames,
    flip,
    roll,
    time_surfaces,
    voxel_grid,
)

SHAPE = (128, 128)
SMALL = (3, 4)


def events_on(shape, count, seed=0, duration=1000):
    """Events on a sensor of few pixels, some at the same time and place."""
    events = made_events(count, seed, duration)
    rows, columns = events.y % shape[0], events.x % shape[1]
    return Events(columns, rows, events.polarity, events.timestamp)


def in_order(events):
    fields = events.x, events.y, events.polarity, events.timestamp
    return zip(*(values.tolist() for values in fields), strict=True)


FUNCTIONS = {
    "event_frames": lambda events: event_frames(events, 3, "time", SHAPE, (4, 4)),
    "binned_frames": lambda events: binned_frames(events, 3, 100, SHAPE, (4, 4)),
    "voxel_grid": lambda events: voxel_grid(events, 3, SHAPE),
    "time_surfaces": lambda events: time_surfaces(events, 3, 50.0, SHAPE),
    "flip": lambda events: flip(events, SHAPE),
    "roll": lambda events: roll(events, 1, -2, SHAPE),
    "event_drop": lambda events: event_drop(events, np.random.default_rng(0), SHAPE),
}


@pytest.mark.parametrize("use", FUNCTIONS.values(), ids=FUNCTIONS)
def test_recordings_stay_as_they_are_and_what_is_none_is_an_error(use):
    events = made_events(50, seed=0)
    before = {name: values.copy() for name, values in arrays_of(events).items()}
    for values in arrays_of(events).values():
        values.setflags(write=False)
    use(events)
    assert_close(arrays_of(events), before, rtol=0)
    with expect_error(ValueError, "`x` must be less than 128"):
        use(Events(*np.array([[128], [0], [0], [9]])))
    with expect_error(TypeError, "`events` must be an Events"):
        use(None)


FRAMES = 2, "count"


@pytest.mark.parametrize(
    ("use", "arguments", "kind", "said"),
    [
        (event_frames, (*FRAMES, SMALL, (4,)), ValueError, "must be two integers of 1"),
        (binned_frames, (2, 0.5, SMALL, SMALL), TypeError, "`duration` must be an int"),
        (voxel_grid, (0, SMALL), ValueError, "`bins` must be 1 or more"),
        (time_surfaces, (2, 0.0, SMALL), ValueError, "`tau` must be > 0"),
        (roll, (0.5, 0, SMALL), TypeError, "`rows` must be an integer"),
        (event_drop, (7, SMALL), TypeError, "`generator` must be a Generator"),
    ],
)
def test_a_wrong_argument_is_an_error_that_names_it(use, arguments, kind, said):
    with expect_error(kind, said):
        use(events_on(SMALL, 5), *arguments)


def counted_slowly(events, timesteps, split_by, sensor_shape):
    """Event by event, following the definition."""
    counts = np.zeros((timesteps, *sensor_shape, 2), int)
    first, end = int(events.timestamp[0]), int(events.timestamp[-1]) + 1
    for number, (x, y, polarity, time) in enumerate(in_order(events)):
        place = number / len(events.x)
        if split_by == "time":
            place = (time - first) / (end - first)
        for frame in range(timesteps):
            if frame / timesteps <= place < (frame + 1) / timesteps:
                counts[frame, y, x, polarity] += 1
    return counts


def resized_slowly(frames, frame_shape):
    """On a grid so fine that both kinds of pixel consist of whole cells."""
    timesteps, old_height, old_width, channels = frames.shape
    new_height, new_width = frame_shape
    resized = np.zeros((timesteps, *frame_shape, channels))
    for row in range(old_height * new_height):
        for column in range(old_width * new_width):
            count = frames[:, row // new_height, column // new_width]
            share = count / (new_height * new_width)
            resized[:, row // old_height, column // old_width] += share
    return resized


@pytest.mark.parametrize("split_by", ["count", "time"])
@pytest.mark.parametrize(
    ("events", "timesteps"), [(1, 1), (3, 7), (10, 3), (200, 8), (203, 10)]
)
def test_events_are_counted_as_by_a_slow_loop(events, timesteps, split_by):
    recording = made_events(events, seed=events, duration=64)
    counts = event_frames(recording, timesteps, split_by, SHAPE, SHAPE)
    expected = counted_slowly(recording, timesteps, split_by, SHAPE)
    assert_array_equal(counts, expected)
    assert counts.sum() == events


@pytest.mark.parametrize(
    "timestamps",
    [
        np.array([-(2**63), -(2**62), -1, 0, 5, 2**62, 2**63 - 1], "int64"),
        np.array([0, 2**32, 2**53 + 1, 2**63, 2**64 - 2, 2**64 - 1], "uint64"),
        np.array([-128, -100, -1, 0, 1, 100, 127], "int8"),
        np.array([9, 9, 9]),
    ],
)
@pytest.mark.parametrize("timesteps", [1, 7, 1000])
def test_frames_by_time_are_exact_for_extreme_timestamps(timestamps, timesteps):
    zeros = np.zeros(len(timestamps), int)
    first, *_, last = times = timestamps.tolist()
    numbers = [(time - first) * timesteps // (last - first + 1) for time in times]
    events = Events(zeros, zeros, zeros, timestamps)
    counts = event_frames(events, timesteps, "time", (1, 1), (1, 1))[:, 0, 0, 0]
    assert_array_equal(counts, np.bincount(numbers, minlength=timesteps))


@pytest.mark.parametrize(
    ("old", "new"),
    [((8, 8), (3, 3)), ((8, 6), (4, 5)), ((5, 7), (5, 7)), ((3, 4), (7, 4))],
)
def test_frames_are_resized_as_by_a_slow_loop(old, new):
    events = events_on(old, 500)
    counts = event_frames(events, 2, "count", old, old)
    # Shapes may be lists and arrays.
    resized = event_frames(events, 2, "count", list(old), np.array(new))
    assert resized.dtype == np.float32
    assert_allclose(resized, resized_slowly(counts, new), rtol=1e-4)
    assert_allclose(resized.sum((1, 2)), counts.sum((1, 2)), rtol=1e-4)


def test_bins_have_a_fixed_duration_from_time_zero():
    events = events_on(SMALL, 200, duration=95)
    expected = np.zeros((8, *SMALL, 2))
    for x, y, polarity, time in in_order(events):
        if time < 80:
            expected[time // 10, y, x, polarity] += 1
    assert expected.sum() < 200
    assert_array_equal(binned_frames(events, 8, 10, SMALL, SMALL), expected)
    # Frames after the last event are zero, and events of unsigned times after the last
    # frame are left out.
    one = np.array([1])
    late = Events(one, one, one, np.array([2**64 - 1], "uint64"))
    assert not binned_frames(late, 3, 1, SMALL, SMALL).any()
    narrow = dataclasses.replace(late, timestamp=np.array([9], "uint8"))
    assert binned_frames(narrow, 3, 10_000, SMALL, SMALL)[0, 1, 1, 1] == 1
    with expect_error(ValueError, "`timestamp` must be 0 or more"):
        binned_frames(Events(one, one, one, -one), 3, 1, SMALL, SMALL)


@pytest.mark.parametrize("bins", [1, 2, 5])
def test_voxel_grids_are_those_of_a_slow_loop(bins):
    events = events_on(SMALL, 100)
    expected = np.zeros((bins, *SMALL))
    first, last = int(events.timestamp[0]), int(events.timestamp[-1])
    for x, y, polarity, time in in_order(events):
        place = (bins - 1) * (time - first) / (last - first)
        for number in range(bins):
            share = max(0, 1 - abs(place - number))
            expected[number, y, x] += share if polarity else -share
    grid = voxel_grid(events, bins, SMALL)
    assert grid.dtype == np.float32
    assert_allclose(grid, expected, atol=1e-5)
    # No event is lost, also not the last one.
    assert grid.sum() == pytest.approx(2 * events.polarity.sum() - 100, abs=1e-4)


def test_a_voxel_grid_of_one_moment_is_in_the_first_bin():
    events = Events(*np.array([[1, 1, 2], [0, 0, 0], [1, 1, 0], [7, 7, 7]]))
    grid = voxel_grid(events, 3, SMALL)
    assert grid[0, 0].tolist() == [0, 2, -1, 0]
    assert not grid[1:].any()


@pytest.mark.parametrize("timesteps", [1, 4])
def test_time_surfaces_are_those_of_a_slow_loop(timesteps):
    events, tau = events_on(SMALL, 60, duration=97), 30.0
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
    events = events_on(SMALL, 40)
    image, flipped, rolled = (
        voxel_grid(moved, 1, SMALL)[0]
        for moved in (events, flip(events, SMALL), roll(events, 4, -1, SMALL))
    )
    assert_array_equal(flipped, image[:, ::-1])
    assert_array_equal(rolled, np.roll(image, (4, -1), (0, 1)))
    unsigned = Events(*np.ones((4, 1), "uint8"))
    assert flip(unsigned, (2, 300)).x.tolist() == [298]


def drops(events, draws, shape):
    """Whether each event is left out, in many draws. Its time tells which it is."""
    generator = np.random.default_rng(0)
    for _ in range(draws):
        rest = event_drop(events, generator, shape)
        yield ~np.isin(events.timestamp, rest.timestamp)


def test_events_of_a_span_an_area_or_any_are_left_out():
    """On a line of 100 pixels with an event each, from left to right, spans and areas
    are alike."""
    zeros, numbers = np.zeros(100, int), np.arange(100)
    runs, others = set(), set()
    for is_left_out in drops(Events(numbers, zeros, zeros, numbers), 400, (1, 100)):
        times = numbers[is_left_out]
        is_run = len(times) > 0 and (np.diff(times) == 1).all()
        (runs if is_run else others).add(len(times))
    # Any: whole tenths. Spans and areas may reach beyond the end.
    assert others == set(range(0, 100, 10))
    assert 1 <= min(runs) < max(runs) <= 95


def test_a_dropped_area_is_a_rectangle_and_not_a_cross():
    numbers, rectangles = np.arange(400), 0
    # Neighbours in time are not neighbours in space: 7 and 400 have no common divisor.
    pixels = numbers * 7 % 400
    events = Events(pixels % 20, pixels // 20, 0 * numbers, numbers)
    for is_left_out in drops(events, 200, (20, 20)):
        image = np.zeros((20, 20), bool)
        image[events.y, events.x] = is_left_out
        height, width = image.any(axis=1).sum(), image.any(axis=0).sum()
        rectangles += 0 < height < 20 and image.sum() == height * width < 20 * height
    assert rectangles > 20


def test_events_are_dropped_in_each_of_four_ways_and_never_all():
    single, events = Events(*np.ones((4, 1), int)), made_events(100, seed=0)
    generator = np.random.default_rng(0)
    assert all(len(event_drop(single, generator, (2, 2)).x) == 1 for _ in range(200))
    counts = [len(event_drop(events, generator, SHAPE).x) for _ in range(1000)]
    assert min(counts) >= 1
    # Nothing is dropped in a quarter of the draws, and where the area or the span holds
    # no event.
    assert 0.22 < counts.count(100) / 1000 < 0.35
    first, again = (event_drop(events, np.random.default_rng(3), SHAPE) for _ in "ab")
    assert_array_equal(first.timestamp, again.timestamp)
