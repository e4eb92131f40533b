"""Event-camera data: AEDAT files written by the tests, and event frames against slow
loops."""

import tracemalloc

import numpy as np
import pytest
from made_recordings import (
    HEADER,
    START,
    address,
    aedat_bytes,
    arrays_of,
    expect_error,
    made_events,
    write_aedat,
)
from numpy.testing import assert_allclose, assert_array_equal

from keras_ratesnn.events import Events, event_frames, read_aedat, read_arrays
from keras_ratesnn.events import recording as recording_module

pytestmark = pytest.mark.runs_once

SHAPE = (128, 128)
FIELDS = "x", "y", "polarity", "timestamp"


# AEDAT files


@pytest.mark.parametrize(
    "header", [HEADER, b"#!AER-DAT2.0\n", b"#!AER-DAT2.0\r\n#\r\n"]
)
def test_aedat_files_are_read_correctly(tmp_path, header):
    path = tmp_path / "recording.aedat"
    path.write_bytes(
        header
        + aedat_bytes(
            (address(3, 100, 0), 17), (address(0, 0, 1), 17), (address(127, 5, 0), 2000)
        )
    )
    events = read_aedat(path)
    # Column 127 - y, row 127 - x; bit 0 is 0 for ON.
    assert events.x.tolist() == [27, 127, 122]
    assert events.y.tolist() == [124, 127, 0]
    assert events.polarity.tolist() == [1, 0, 1]
    assert events.timestamp.tolist() == [17, 17, 2000]


def test_many_events_are_read_correctly(tmp_path):
    events = made_events(5000, seed=0)
    write_aedat(tmp_path / "recording.aedat", events)
    for name, values in arrays_of(read_aedat(tmp_path / "recording.aedat")).items():
        assert_array_equal(values, getattr(events, name), err_msg=name)


def test_special_events_are_left_out(tmp_path):
    path = tmp_path / "recording.aedat"
    # The last is a 16-bit address with bit 15 as programs write it that take it as
    # signed.
    specials = [
        (0x8000, 1),
        (0x8000 | address(9, 9, 1), 2),
        (0x80000000, 3),
        (0xFFFF8000, 4),
    ]
    path.write_bytes(
        HEADER
        + aedat_bytes(
            specials[0], (address(1, 2, 0), 2), *specials[1:], (address(3, 4, 0), 6)
        )
    )
    events = read_aedat(path)
    assert events.timestamp.tolist() == [2, 6]
    assert events.x.tolist() == [125, 123]


@pytest.mark.parametrize("wrap", [2**31, 2**32])
def test_timestamps_are_unwrapped(tmp_path, wrap):
    path = tmp_path / "recording.aedat"
    timestamps = [wrap - 10, wrap - 1, wrap, wrap + 5]
    path.write_bytes(
        HEADER
        + aedat_bytes(*((address(1, 1, 1), timestamp) for timestamp in timestamps))
    )
    assert read_aedat(path).timestamp.tolist() == timestamps


PIXEL = address(1, 1, 1)


@pytest.mark.parametrize(
    ("content", "byte", "said"),
    [
        (b"", 0, "first line must be #!AER-DAT2.0"),
        (aedat_bytes((PIXEL, 1)), 0, "first line must be #!AER-DAT2.0"),
        (
            b"#!AER-DAT3.1\r\n#!END-HEADER\r\n" + aedat_bytes((PIXEL, 1)),
            0,
            "#!AER-DAT3.1",
        ),
        (b"# a comment\r\n" + aedat_bytes((PIXEL, 1)), 0, "# a comment"),
        (HEADER + b"# cut off in the hea", START, "does not end"),
        (HEADER, START, "none of the 0 events"),
        (HEADER + aedat_bytes((0x8000, 1), (0x8000, 2)), START, "none of the 2 events"),
        (
            HEADER + aedat_bytes((PIXEL, 1), (PIXEL, 2))[:-1],
            START + 8,
            "the file ends after 7",
        ),
        (HEADER + aedat_bytes((PIXEL, 1)) + b"\0", START + 8, "the file ends after 1"),
        (
            HEADER + aedat_bytes((PIXEL, 5), (0x8000, 6), (PIXEL, 4)),
            START + 20,
            "4 runs backwards from 5",
        ),
        (
            HEADER + aedat_bytes((PIXEL, 5), (PIXEL, 2**31 + 5)),
            START + 12,
            "runs backwards from 5",
        ),
        (
            HEADER + aedat_bytes((0x8000, 1), (PIXEL, 1), (0x00400801, 2)),
            START + 16,
            "0x00400801",
        ),
    ],
)
def test_the_error_names_a_damaged_aedat_file_and_the_byte(
    tmp_path, content, byte, said
):
    path = tmp_path / "recording.aedat"
    path.write_bytes(content)
    with expect_error(ValueError, path, f"at byte {byte}:", said):
        read_aedat(path)


# Arrays of events


def test_arrays_of_events_are_read_from_both_kinds_of_file(tmp_path):
    events = made_events(100, seed=1)
    np.savez_compressed(tmp_path / "events.npz", **arrays_of(events), other=np.zeros(3))
    structured = np.zeros(
        100, [("timestamp", "u4"), ("x", "u1"), ("y", "u1"), ("polarity", "?")]
    )
    for name, values in arrays_of(events).items():
        structured[name] = values
    np.save(tmp_path / "events.npy", structured)
    for name in ("events.npz", "events.npy"):
        frames = event_frames(read_arrays(tmp_path / name), 4, "time", SHAPE, (48, 48))
        assert_array_equal(frames, event_frames(events, 4, "time", SHAPE, (48, 48)))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"x": np.zeros(2, int)}, "same length"),
        (dict.fromkeys(FIELDS, np.zeros((3, 1), int)), "one dimension"),
        (dict.fromkeys(FIELDS, np.zeros(0, int)), "none"),
        ({"x": np.array([-1, 0, 0])}, "Its smallest is -1"),
        ({"y": np.array([0, -7, 0])}, "Its smallest is -7"),
        ({"polarity": np.array([-1, 1, 1])}, "from -1 to 1"),
        ({"polarity": np.array([1, 2, 1])}, "from 1 to 2"),
        ({"timestamp": np.array([3, 5, 4], "uint32")}, "Event 2 is at 4"),
        ({"timestamp": np.array([0.0, 0.1, 0.2])}, "float64"),
    ],
)
def test_the_error_explains_why_arrays_are_not_a_recording(tmp_path, changed, said):
    arrays = {**dict.fromkeys(FIELDS, np.zeros(3, int)), **changed}
    with expect_error((TypeError, ValueError), said):
        Events(**arrays)
    np.savez(tmp_path / "events.npz", **arrays)
    with expect_error(ValueError, tmp_path / "events.npz", said):
        read_arrays(tmp_path / "events.npz")


def test_the_error_names_a_file_without_arrays_of_events(tmp_path):
    path = tmp_path / "events.npz"
    np.savez(path, x=np.zeros(3), y=np.zeros(3), t=np.zeros(3))
    with expect_error(
        ValueError, path, "has no polarity, timestamp", "It holds: x, y, t"
    ):
        read_arrays(path)
    np.save(tmp_path / "events.npy", np.zeros((4, 3)))
    with expect_error(
        ValueError, tmp_path / "events.npy", "has no x, y, polarity, timestamp"
    ):
        read_arrays(tmp_path / "events.npy")

    np.savez(path, **arrays_of(made_events(100, seed=0)))
    whole = path.read_bytes()
    for content in (b"", b"text", whole[:-100], whole[:300] + bytes(200) + whole[500:]):
        path.write_bytes(content)
        with expect_error(ValueError, "NumPy cannot read", path):
            read_arrays(path)


def test_a_recording_that_is_too_large_is_refused_before_it_is_unpacked(
    tmp_path, monkeypatch
):
    # 40 million events of a byte a field: 160 MB of zeros in a small archive.
    zeros = np.zeros(40 * 2**20, "bool")
    np.savez_compressed(tmp_path / "events.npz", **dict.fromkeys(FIELDS, zeros))
    np.save(tmp_path / "events.npy", np.zeros(1, [(name, "u1") for name in FIELDS]))
    (tmp_path / "recording.aedat").write_bytes(HEADER + aedat_bytes((PIXEL, 1)))
    monkeypatch.setattr(recording_module, "LARGEST_RECORDING", 2**20)
    tracemalloc.start()
    with expect_error(
        ValueError, tmp_path / "events.npz", "1 MiB at most", "It holds 160 MiB"
    ):
        read_arrays(tmp_path / "events.npz")
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
    monkeypatch.setattr(recording_module, "LARGEST_RECORDING", 20)
    for name, read in (("events.npy", read_arrays), ("recording.aedat", read_aedat)):
        with expect_error(ValueError, tmp_path / name, "at most"):
            read(tmp_path / name)


# Frames


def counted_slowly(events, timesteps, split_by, sensor_shape):
    """Event by event, following the definition."""
    frames = np.zeros((timesteps, *sensor_shape, 2), int)
    first, end = int(events.timestamp[0]), int(events.timestamp[-1]) + 1
    for event in range(len(events.x)):
        place = event / len(events.x)
        if split_by == "time":
            place = (int(events.timestamp[event]) - first) / (end - first)
        pixel = events.y[event], events.x[event], int(events.polarity[event])
        for frame in range(timesteps):
            if frame / timesteps <= place < (frame + 1) / timesteps:
                frames[(frame, *pixel)] += 1
    return frames


def resized_slowly(frames, frame_shape):
    """On a grid so fine that both kinds of pixel consist of whole cells."""
    timesteps, old_height, old_width, channels = frames.shape
    new_height, new_width = frame_shape
    resized = np.zeros((timesteps, *frame_shape, channels))
    for row in range(old_height * new_height):
        for column in range(old_width * new_width):
            count = frames[:, row // new_height, column // new_width] / (
                new_height * new_width
            )
            resized[:, row // old_height, column // old_width] += count
    return resized


@pytest.mark.parametrize("split_by", ["count", "time"])
@pytest.mark.parametrize(
    ("events", "timesteps"), [(1, 1), (3, 7), (10, 3), (200, 8), (203, 10)]
)
def test_events_are_counted_as_by_a_slow_loop(events, timesteps, split_by):
    recording = made_events(events, seed=events, duration=64)
    frames = event_frames(recording, timesteps, split_by, SHAPE, SHAPE)
    expected = counted_slowly(recording, timesteps, split_by, SHAPE)
    assert_array_equal(frames, expected)
    assert frames.sum() == events
    if split_by == "count":
        # Equal numbers, up to one.
        assert np.ptp(frames.sum(axis=(1, 2, 3))) <= 1


@pytest.mark.parametrize(
    "timestamps",
    [
        np.array([-(2**63), -(2**62), -1, 0, 5, 2**62, 2**63 - 1], "int64"),
        np.array([0, 2**32, 2**53 + 1, 2**63, 2**64 - 2, 2**64 - 1], "uint64"),
        np.arange(2**62, 2**62 + 7),
        np.array([-128, -100, -1, 0, 1, 100, 127], "int8"),
        np.array([9, 9, 9]),
    ],
)
@pytest.mark.parametrize("timesteps", [1, 7, 1000])
def test_frames_by_time_are_exact_for_extreme_timestamps(timestamps, timesteps):
    zeros = np.zeros(len(timestamps), int)
    exact = [int(timestamp) - int(timestamps[0]) for timestamp in timestamps]
    numbers = [elapsed * timesteps // (exact[-1] + 1) for elapsed in exact]
    events = Events(zeros, zeros, zeros, timestamps)
    frames = event_frames(events, timesteps, "time", (1, 1), (1, 1))[:, 0, 0, 0]
    expected = np.bincount(numbers, minlength=timesteps)
    assert_array_equal(frames, expected)


@pytest.mark.parametrize(
    ("old", "new"),
    [((8, 8), (3, 3)), ((8, 6), (4, 5)), ((5, 7), (5, 7)), ((3, 4), (7, 4))],
)
def test_frames_are_resized_as_by_a_slow_loop(old, new):
    events = made_events(500, seed=0)
    events = Events(
        events.x % old[1], events.y % old[0], events.polarity, events.timestamp
    )
    frames = event_frames(events, 2, "count", old, old)
    resized = event_frames(events, 2, "count", old, new)
    assert resized.dtype == np.float32
    assert_allclose(resized, resized_slowly(frames, new), rtol=1e-4)
    assert_allclose(resized.sum((1, 2)), frames.sum((1, 2)), rtol=1e-4)


def test_a_frame_shows_where_and_of_which_polarity_an_event_was():
    events = Events(
        x=np.array([0, 127]),
        y=np.array([127, 64]),
        polarity=np.array([0, 1]),
        timestamp=np.array([0, 9]),
    )
    frames = event_frames(events, 2, "time", SHAPE, (48, 48))
    # The rest of the frames is empty.
    assert np.argwhere(frames).tolist() == [[0, 47, 0, 0], [1, 24, 47, 1]]
    assert_allclose(frames[frames > 0], 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("sensor_shape", (-2, 2), ValueError),
        ("sensor_shape", (4, 4, 2), ValueError),
        ("sensor_shape", (2.5, 2), TypeError),
        ("frame_shape", (4,), ValueError),
        ("frame_shape", (True, 2), TypeError),
        ("frame_shape", "44", TypeError),
        ("frame_shape", None, TypeError),
    ],
)
def test_a_shape_that_is_not_two_sizes_is_an_error(name, value, kind):
    shapes = {"sensor_shape": SHAPE, "frame_shape": (48, 48), name: value}
    said = f"`{name}` must be two integers of 1 or more", f"{name}={value!r}"
    with expect_error(kind, *said):
        event_frames(made_events(9, seed=0), 2, "count", **shapes)
    for timesteps, error in ((0, ValueError), (2.0, TypeError)):
        with expect_error(error, "timesteps"):
            event_frames(made_events(9, seed=0), timesteps, "count", SHAPE, SHAPE)


def test_shapes_may_be_lists_and_arrays():
    events = made_events(9, seed=0)
    expected = event_frames(events, 2, "count", SHAPE, (48, 48))
    assert_array_equal(
        event_frames(events, 2, "count", list(SHAPE), np.array([48, 48])),
        expected,
    )


def test_lists_of_events_are_an_error_that_names_the_field():
    with expect_error(
        TypeError, "`y` must be an array of integers", "y=[1] of type list"
    ):
        Events(np.ones(1, int), [1], np.ones(1, int), np.ones(1, int))
