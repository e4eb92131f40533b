"""Event-camera data: AEDAT files written by the tests, event frames against slow loops, and a small CIFAR10-DVS."""

import json
import os
import re
import tracemalloc

import numpy as np
import pytest
from made_recordings import HEADER, RECORDINGS, START, address, aedat_bytes, arrays_of, made_events, write_aedat, write_data_set

from keras_ratesnn.events import Events, event_frames, read_aedat, read_arrays
from keras_ratesnn.events import recording as recording_module
from keras_ratesnn.events.aedat import SENSOR_SHAPE
from keras_ratesnn.events.frames import count_events, frame_numbers_by_count, frame_numbers_by_time, resize
from keras_ratesnn.events.recording import FIELDS
from recipes.data import cifar10_dvs, recordings, stored_frames

pytestmark = pytest.mark.runs_once


def events_of(images):
    """The number of events of each recording."""
    return np.rint(images.sum((1, 2, 3, 4))).astype(int)


def expect_error(kind, *said):
    """pytest.raises with a message that contains all of `said` in order."""
    return pytest.raises(kind, match="(?s)" + ".*".join(re.escape(str(part)) for part in said))


@pytest.fixture
def data_set(tmp_path):
    return write_data_set(tmp_path / "dvs")


# AEDAT files


@pytest.mark.parametrize("header", [HEADER, b"#!AER-DAT2.0\n", b"#!AER-DAT2.0\r\n#\r\n"])
def test_aedat_files_are_read_correctly(tmp_path, header):
    path = tmp_path / "recording.aedat"
    path.write_bytes(header + aedat_bytes((address(3, 100, 0), 17), (address(0, 0, 1), 17), (address(127, 5, 0), 2000)))
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
        np.testing.assert_array_equal(values, getattr(events, name), err_msg=name)


def test_special_events_are_left_out(tmp_path):
    path = tmp_path / "recording.aedat"
    # The last is a 16-bit address with bit 15 as programs write it that take it as signed.
    specials = [(0x8000, 1), (0x8000 | address(9, 9, 1), 2), (0x80000000, 3), (0xFFFF8000, 4)]
    path.write_bytes(HEADER + aedat_bytes(specials[0], (address(1, 2, 0), 2), *specials[1:], (address(3, 4, 0), 6)))
    events = read_aedat(path)
    assert events.timestamp.tolist() == [2, 6]
    assert events.x.tolist() == [125, 123]


@pytest.mark.parametrize("wrap", [2**31, 2**32])
def test_timestamps_are_unwrapped(tmp_path, wrap):
    path = tmp_path / "recording.aedat"
    timestamps = [wrap - 10, wrap - 1, wrap, wrap + 5]
    path.write_bytes(HEADER + aedat_bytes(*((address(1, 1, 1), timestamp) for timestamp in timestamps)))
    assert read_aedat(path).timestamp.tolist() == timestamps


PIXEL = address(1, 1, 1)


@pytest.mark.parametrize(
    ("content", "byte", "said"),
    [
        (b"", 0, "first line must be #!AER-DAT2.0"),
        (aedat_bytes((PIXEL, 1)), 0, "first line must be #!AER-DAT2.0"),
        (b"#!AER-DAT3.1\r\n#!END-HEADER\r\n" + aedat_bytes((PIXEL, 1)), 0, "#!AER-DAT3.1"),
        (b"# a comment\r\n" + aedat_bytes((PIXEL, 1)), 0, "# a comment"),
        (HEADER + b"# cut off in the hea", START, "does not end"),
        (HEADER, START, "none of the 0 events"),
        (HEADER + aedat_bytes((0x8000, 1), (0x8000, 2)), START, "none of the 2 events"),
        (HEADER + aedat_bytes((PIXEL, 1), (PIXEL, 2))[:-1], START + 8, "the file ends after 7"),
        (HEADER + aedat_bytes((PIXEL, 1)) + b"\0", START + 8, "the file ends after 1"),
        (HEADER + aedat_bytes((PIXEL, 5), (0x8000, 6), (PIXEL, 4)), START + 20, "4 runs backwards from 5"),
        (HEADER + aedat_bytes((PIXEL, 5), (PIXEL, 2**31 + 5)), START + 12, "runs backwards from 5"),
        (HEADER + aedat_bytes((0x8000, 1), (PIXEL, 1), (0x00400801, 2)), START + 16, "0x00400801"),
    ],
)
def test_the_error_names_a_damaged_aedat_file_and_the_byte(tmp_path, content, byte, said):
    path = tmp_path / "recording.aedat"
    path.write_bytes(content)
    with expect_error(ValueError, path, f"at byte {byte}:", said):
        read_aedat(path)


# Arrays of events


def test_arrays_of_events_are_read_from_both_kinds_of_file(tmp_path):
    events = made_events(100, seed=1)
    np.savez_compressed(tmp_path / "events.npz", **arrays_of(events), other=np.zeros(3))
    structured = np.zeros(100, [("timestamp", "u4"), ("x", "u1"), ("y", "u1"), ("polarity", "?")])
    for name, values in arrays_of(events).items():
        structured[name] = values
    np.save(tmp_path / "events.npy", structured)
    for name in ("events.npz", "events.npy"):
        frames = event_frames(read_arrays(tmp_path / name), 4, "time", SENSOR_SHAPE, (48, 48))
        np.testing.assert_array_equal(frames, event_frames(events, 4, "time", SENSOR_SHAPE, (48, 48)))


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
    with expect_error(ValueError, path, "has no polarity, timestamp", "It holds: x, y, t"):
        read_arrays(path)
    np.save(tmp_path / "events.npy", np.zeros((4, 3)))
    with expect_error(ValueError, tmp_path / "events.npy", "has no x, y, polarity, timestamp"):
        read_arrays(tmp_path / "events.npy")

    np.savez(path, **arrays_of(made_events(100, seed=0)))
    whole = path.read_bytes()
    for content in (b"", b"text", whole[:-100], whole[:300] + bytes(200) + whole[500:]):
        path.write_bytes(content)
        with expect_error(ValueError, "NumPy cannot read", path):
            read_arrays(path)


def test_a_recording_that_is_too_large_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    # 40 million events of a byte a field: 160 MB of zeros in a small archive.
    zeros = np.zeros(40 * 2**20, "bool")
    np.savez_compressed(tmp_path / "events.npz", **dict.fromkeys(FIELDS, zeros))
    np.save(tmp_path / "events.npy", np.zeros(1, [(name, "u1") for name in FIELDS]))
    (tmp_path / "recording.aedat").write_bytes(HEADER + aedat_bytes((PIXEL, 1)))
    monkeypatch.setattr(recording_module, "LARGEST_RECORDING", 2**20)
    tracemalloc.start()
    with expect_error(ValueError, tmp_path / "events.npz", "1 MiB at most", "It holds 160 MiB"):
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
        for frame in range(timesteps):
            if split_by == "count":
                inside = frame / timesteps <= event / len(events.x) < (frame + 1) / timesteps
            else:
                inside = frame / timesteps <= (int(events.timestamp[event]) - first) / (end - first) < (frame + 1) / timesteps
            if inside:
                frames[frame, events.y[event], events.x[event], int(events.polarity[event])] += 1
    return frames


def resized_slowly(frames, frame_shape):
    """On a grid so fine that both kinds of pixel consist of whole cells."""
    timesteps, old_height, old_width, channels = frames.shape
    new_height, new_width = frame_shape
    resized = np.zeros((timesteps, *frame_shape, channels))
    for row in range(old_height * new_height):
        for column in range(old_width * new_width):
            count = frames[:, row // new_height, column // new_width] / (new_height * new_width)
            resized[:, row // old_height, column // old_width] += count
    return resized


@pytest.mark.parametrize("split_by", ["count", "time"])
@pytest.mark.parametrize(("events", "timesteps"), [(1, 1), (1, 4), (3, 7), (10, 3), (200, 1), (200, 8), (203, 10)])
def test_events_are_counted_as_by_a_slow_loop(events, timesteps, split_by):
    recording = made_events(events, seed=events, duration=64)
    numbers = {"count": frame_numbers_by_count, "time": frame_numbers_by_time}[split_by](recording, timesteps)
    frames = count_events(recording, numbers, timesteps, SENSOR_SHAPE)
    np.testing.assert_array_equal(frames, counted_slowly(recording, timesteps, split_by, SENSOR_SHAPE))
    assert frames.sum() == events


@pytest.mark.parametrize("timesteps", [1, 3, 10])
def test_frames_by_count_have_equal_numbers_of_events_up_to_one(timesteps):
    for events in (timesteps, 100, 101, 109):
        sizes = np.bincount(frame_numbers_by_count(made_events(events, seed=0), timesteps), minlength=timesteps)
        assert sizes.sum() == events
        assert sizes.max() - sizes.min() <= 1


def test_frames_by_time_have_equal_durations():
    # Twelve microseconds, 100 to 111, in frames of three.
    timestamps = np.array([100, 102, 103, 103, 108, 109, 111], "uint32")
    zeros = np.zeros(len(timestamps), int)
    assert frame_numbers_by_time(Events(zeros, zeros, zeros, timestamps), 4).tolist() == [0, 0, 1, 1, 2, 3, 3]


@pytest.mark.parametrize(
    "timestamps",
    [
        np.array([-(2**63), -(2**62), -1, 0, 5, 2**62, 2**63 - 1], "int64"),
        np.array([0, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 2, 2**64 - 1], "uint64"),
        np.array([2**62, 2**62 + 1, 2**62 + 2, 2**62 + 3, 2**62 + 4, 2**62 + 5, 2**62 + 6], "int64"),
        np.array([-128, -100, -1, 0, 1, 100, 127], "int8"),
        np.array([0, 1, 2, 250, 251, 254, 255], "uint8"),
    ],
)
@pytest.mark.parametrize("timesteps", [1, 3, 7, 1000])
def test_frames_by_time_are_exact_for_extreme_timestamps(timestamps, timesteps):
    zeros = np.zeros(len(timestamps), int)
    exact = [int(timestamp) - int(timestamps[0]) for timestamp in timestamps]
    expected = [elapsed * timesteps // (exact[-1] + 1) for elapsed in exact]
    assert frame_numbers_by_time(Events(zeros, zeros, zeros, timestamps), timesteps).tolist() == expected


def test_events_of_one_moment_are_in_one_frame():
    zeros = np.zeros(5, int)
    assert frame_numbers_by_time(Events(zeros, zeros, zeros, zeros + 9), 4).tolist() == [0] * 5


@pytest.mark.parametrize(
    ("old", "new"), [((8, 8), (3, 3)), ((8, 6), (4, 5)), ((5, 7), (5, 7)), ((3, 4), (7, 4)), ((4, 4), (1, 1))]
)
def test_frames_are_resized_as_by_a_slow_loop(old, new):
    frames = np.random.default_rng(0).integers(0, 9, (2, *old, 2))
    resized = resize(frames, new)
    assert resized.dtype == np.float32
    np.testing.assert_allclose(resized, resized_slowly(frames, new), rtol=1e-5)
    np.testing.assert_allclose(resized.sum((1, 2)), frames.sum((1, 2)), rtol=1e-5)


def test_uniform_activity_stays_uniform():
    resized = resize(np.ones((1, *SENSOR_SHAPE, 2)), (48, 48))
    np.testing.assert_allclose(resized, (128 / 48) ** 2, rtol=1e-5)


def test_a_frame_shows_where_and_of_which_polarity_an_event_was():
    events = Events(x=np.array([0, 127]), y=np.array([127, 64]), polarity=np.array([0, 1]), timestamp=np.array([0, 9]))
    frames = event_frames(events, 2, "time", SENSOR_SHAPE, (48, 48))
    assert np.argwhere(frames).tolist() == [[0, 47, 0, 0], [1, 24, 47, 1]]
    np.testing.assert_allclose(frames[frames > 0], 1, rtol=1e-5)


def test_an_event_outside_the_sensor_is_an_error():
    events = Events(x=np.array([0, 130]), y=np.array([3, 4]), polarity=np.array([0, 1]), timestamp=np.array([0, 9]))
    with expect_error(ValueError, "`x` must be less than 128", "130"):
        event_frames(events, 2, "count", SENSOR_SHAPE, (48, 48))


@pytest.mark.parametrize(("timesteps", "kind"), [(0, ValueError), (-3, ValueError), (2.0, TypeError), ("4", TypeError)])
def test_a_wrong_number_of_frames_is_an_error(timesteps, kind, data_set):
    with expect_error(kind, "timesteps"):
        event_frames(made_events(9, seed=0), timesteps, "count", SENSOR_SHAPE, (48, 48))
    with expect_error(kind, "timesteps"):
        cifar10_dvs.load(data_set, timesteps)


@pytest.mark.parametrize("name", ["sensor_shape", "frame_shape"])
@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        ((-2, 2), ValueError),
        ((0, 4), ValueError),
        ((4,), ValueError),
        ((4, 4, 2), ValueError),
        ((2.5, 2), TypeError),
        ((True, 2), TypeError),
        ("44", TypeError),
        (4, TypeError),
        (None, TypeError),
    ],
)
def test_a_shape_that_is_not_two_sizes_is_an_error(name, shape, kind):
    shapes = {"sensor_shape": SENSOR_SHAPE, "frame_shape": (48, 48), name: shape}
    with expect_error(kind, f"`{name}` must be two integers of 1 or more", f"{name}={shape!r}"):
        event_frames(made_events(9, seed=0), 2, "count", **shapes)


def test_shapes_may_be_lists_and_arrays():
    events = made_events(9, seed=0)
    expected = event_frames(events, 2, "count", SENSOR_SHAPE, (48, 48))
    np.testing.assert_array_equal(event_frames(events, 2, "count", list(SENSOR_SHAPE), np.array([48, 48])), expected)


def test_lists_of_events_are_an_error_that_names_the_field():
    with expect_error(TypeError, "`y` must be an array of integers", "y=[1] of type list"):
        Events(np.ones(1, int), [1], np.ones(1, int), np.ones(1, int))


# CIFAR10-DVS


@pytest.mark.parametrize("split_by", ["count", "time"])
def test_the_data_set_has_the_frames_and_the_class_of_every_recording(data_set, split_by):
    data = cifar10_dvs.load(data_set, 3, split_by)
    assert (len(data.train_images), len(data.test_images)) == (90, 10)
    images, labels = (
        np.concatenate([data.train_images, data.test_images]),
        np.concatenate([data.train_labels, data.test_labels]),
    )
    assert images.shape == (100, 3, 48, 48, 2)
    assert images.dtype == np.float32
    of_recordings = events_of(images) - 50
    assert sorted(of_recordings) == list(range(100))
    np.testing.assert_array_equal(labels, of_recordings // RECORDINGS)
    for image, recording in zip(images[::10], of_recordings[::10], strict=True):
        events = made_events(50 + recording, seed=recording % RECORDINGS)
        np.testing.assert_array_equal(image, event_frames(events, 3, split_by, SENSOR_SHAPE, (48, 48)))


def test_the_split_is_stratified_and_the_same_everywhere(data_set, tmp_path):
    data = cifar10_dvs.load(data_set, 1)
    assert np.bincount(data.test_labels).tolist() == [1] * 10
    np.random.seed(7)
    other = cifar10_dvs.load(write_data_set(tmp_path / "other"), 1)
    np.testing.assert_array_equal(events_of(other.test_images), events_of(data.test_images))


def test_the_whole_data_set_is_split_into_9000_and_1000(tmp_path):
    names = {f"{name}/cifar10_{name}_{number}": None for name in cifar10_dvs.CLASS_NAMES for number in range(1000)}
    recordings._split(tmp_path / "split.txt", names)
    lines = (tmp_path / "split.txt").read_text().splitlines()
    assert sorted(line.split()[1] for line in lines) == sorted(names)
    for name in cifar10_dvs.CLASS_NAMES:
        assert sum(line.startswith(f"test {name}/") for line in lines) == 100
    # This very split, so that results of years compare.
    assert [line for line in lines if line.startswith("test")][:3] == [
        "test airplane/cifar10_airplane_110",
        "test airplane/cifar10_airplane_141",
        "test airplane/cifar10_airplane_144",
    ]


def test_the_first_training_images_are_of_all_classes(data_set):
    assert set(cifar10_dvs.load(data_set, 1).train_labels[:50]) == set(range(10))


def test_an_existing_split_is_used(data_set):
    cifar10_dvs.load(data_set, 1)
    path = data_set / "split.txt"
    lines = path.read_text().splitlines()
    assert len(lines) == 100
    path.write_text("\r\n".join(f"{'test' if line.endswith('_5') else 'train'} {line.split()[1]}" for line in lines))
    data = cifar10_dvs.load(data_set, 1)
    assert sorted(events_of(data.test_images) - 50) == list(range(5, 100, 10))
    assert len(data.train_images) == 90


def test_a_folder_of_links_to_the_classes_works(data_set, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    for name in cifar10_dvs.CLASS_NAMES:
        (own / name).symlink_to(data_set / name)
    assert len(cifar10_dvs.load(own, 1).train_images) == 90
    assert (own / "split.txt").exists()
    assert not (data_set / "split.txt").exists()


def test_the_split_does_not_depend_on_the_format_of_the_files(data_set):
    first = cifar10_dvs.load(data_set, 1)
    path = data_set / "cat" / "cifar10_cat_0.aedat"
    np.savez(path.with_suffix(".npz"), **arrays_of(read_aedat(path)))
    path.unlink()
    second = cifar10_dvs.load(data_set, 1)
    np.testing.assert_array_equal(first.test_images, second.test_images)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda lines: [*lines[:4], "validate bird/cifar10_bird_0", *lines[5:]], "Line 5 of"),
        (lambda lines: [*lines, lines[0]], "Line 101 of"),
        (lambda lines: [*lines, ""], "Line 101 of"),
        (lambda lines: [*lines, "test cat/another"], "not in the folder: 1, the first cat/another"),
        (lambda lines: lines[1:], "does not contain all recordings of the folder: 1, the first airplane/cifar10_airplane_0"),
        (lambda lines: [line.replace("test", "train") for line in lines], "has no test recordings"),
        (lambda lines: [f"test {line.split()[1]}" for line in lines], "has no train recordings"),
    ],
)
def test_the_error_names_a_wrong_split_file(data_set, change, said):
    cifar10_dvs.load(data_set, 1)
    path = data_set / "split.txt"
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")
    with expect_error(ValueError, said):
        cifar10_dvs.load(data_set, 1)
    with expect_error(ValueError, path):
        cifar10_dvs.load(data_set, 1)


def forbid_reading(monkeypatch):
    def read(path):
        raise AssertionError(f"{path} was read again")

    monkeypatch.setattr(recordings, "READERS", dict.fromkeys(recordings.READERS, read))


def test_frames_are_computed_once(data_set, monkeypatch, capsys):
    first = cifar10_dvs.load(data_set, 2)
    assert "counting the events of 100 recordings" in capsys.readouterr().out
    forbid_reading(monkeypatch)
    second = cifar10_dvs.load(data_set, 2)
    np.testing.assert_array_equal(first.train_images, second.train_images)
    assert capsys.readouterr().out == ""
    # Of other frames these tell nothing.
    for timesteps, split_by in ((3, "count"), (2, "time")):
        with pytest.raises(AssertionError, match="read again"):
            cifar10_dvs.load(data_set, timesteps, split_by)


def test_a_change_to_the_images_stays_in_memory(data_set):
    data = cifar10_dvs.load(data_set, 1)
    assert type(data.train_images) is np.ndarray
    kept = (data_set / "frames_1_by_count.npy").read_bytes()
    data.train_images[:] = -1
    assert (data_set / "frames_1_by_count.npy").read_bytes() == kept


def cut(path):
    path.write_bytes(path.read_bytes()[:-1000])


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["frames_2_by_count.npy", "frames_2_by_count.json"])
@pytest.mark.parametrize("damage", [cut, flip_a_bit, lambda path: path.write_bytes(b""), lambda path: path.unlink()])
def test_damaged_frames_are_computed_again(data_set, name, damage):
    first = np.array(cifar10_dvs.load(data_set, 2).train_images)
    whole = (data_set / name).read_bytes()
    damage(data_set / name)
    np.testing.assert_array_equal(cifar10_dvs.load(data_set, 2).train_images, first)
    assert (data_set / name).read_bytes() == whole


def test_frames_of_other_recordings_are_computed_again(data_set, monkeypatch):
    cifar10_dvs.load(data_set, 2)
    path = data_set / "ship" / "cifar10_ship_4.aedat"
    modified = path.stat().st_mtime_ns
    write_aedat(path, made_events(999, seed=0))
    os.utime(path, ns=(modified, modified))
    data = cifar10_dvs.load(data_set, 2)
    assert 999 in events_of(np.concatenate([data.train_images, data.test_images]))

    write_aedat(path, made_events(999, seed=1))
    os.utime(path, ns=(modified + 1000, modified + 1000))
    expected = event_frames(made_events(999, seed=1), 2, "count", SENSOR_SHAPE, (48, 48))
    data = cifar10_dvs.load(data_set, 2)
    images = np.concatenate([data.train_images, data.test_images])
    np.testing.assert_array_equal(images[events_of(images) == 999][0], expected)

    # Frames that an earlier way of making them left.
    monkeypatch.setattr(stored_frames, "FRAMES_VERSION", 2)
    forbid_reading(monkeypatch)
    with pytest.raises(AssertionError, match="read again"):
        cifar10_dvs.load(data_set, 2)


def test_a_killed_run_leaves_no_incomplete_frames(data_set, monkeypatch):
    def stop(events, *arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(recordings, "event_frames", stop)
        with pytest.raises(KeyboardInterrupt):
            cifar10_dvs.load(data_set, 1)
    assert {path.name for path in data_set.iterdir()} == {*cifar10_dvs.CLASS_NAMES, "split.txt"}
    # One that is killed outright cannot clear up: what it had written has another name.
    (data_set / "frames_1_by_count.npy.123.part").write_bytes(b"half")
    assert len(cifar10_dvs.load(data_set, 1).train_images) == 90
    assert json.loads((data_set / "frames_1_by_count.json").read_text())["version"] == stored_frames.FRAMES_VERSION


# Mistakes


def test_without_a_folder_the_error_says_where_the_data_is():
    with expect_error(ValueError, "figshare.com", "4724671", "pip install tonic", "GPL-3.0", "--data-dir"):
        cifar10_dvs.load(None, 10)


def test_an_unknown_way_to_split_is_an_error(data_set):
    with expect_error(ValueError, "split_by", "'count', 'time'", "'number'"):
        cifar10_dvs.load(data_set, 10, "number")


def test_the_error_names_a_missing_folder(tmp_path):
    with expect_error(FileNotFoundError, tmp_path / "nowhere", "--data-dir"):
        cifar10_dvs.load(tmp_path / "nowhere", 10)
    (tmp_path / "file").write_text("")
    with expect_error(NotADirectoryError, tmp_path / "file", "--data-dir"):
        cifar10_dvs.load(str(tmp_path / "file"), 10)


def test_the_error_names_a_missing_or_empty_class(data_set):
    dogs = data_set / "dog"
    for path in dogs.iterdir():
        path.rename(path.with_suffix(".aedat4"))
    with expect_error(ValueError, dogs, "It has 0", "among 10 files, such as cifar10_dog_0.aedat4", "--data-dir"):
        cifar10_dvs.load(data_set, 10)
    next(dogs.iterdir()).rename(dogs / "one.aedat")
    with expect_error(ValueError, dogs, "It has 1"):
        cifar10_dvs.load(data_set, 10)
    for path in dogs.iterdir():
        path.unlink()
    with expect_error(ValueError, dogs, "it is empty"):
        cifar10_dvs.load(data_set, 10)
    dogs.rmdir()
    with expect_error(FileNotFoundError, dogs, "--data-dir"):
        cifar10_dvs.load(data_set, 10)


def test_the_error_names_a_recording_in_two_files(data_set):
    (data_set / "deer" / "cifar10_deer_0.npz").write_bytes(b"")
    with expect_error(ValueError, "cifar10_deer_0.aedat", "cifar10_deer_0.npz"):
        cifar10_dvs.load(data_set, 10)


def test_the_error_names_a_damaged_recording(data_set):
    path = data_set / "frog" / "cifar10_frog_2.aedat"
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    with expect_error(ValueError, path, f"at byte {len(whole) - 8}"):
        cifar10_dvs.load(data_set, 2)
    path.unlink()
    outside = {**dict.fromkeys(FIELDS, np.zeros(3, int)), "x": np.array([1, 2, 240])}
    np.savez(path.with_suffix(".npz"), **outside)
    with expect_error(ValueError, path.with_suffix(".npz"), "128", "240"):
        cifar10_dvs.load(data_set, 2)
    path.with_suffix(".npz").unlink()
    path.mkdir()
    with expect_error(ValueError, path, "cannot be read"):
        cifar10_dvs.load(data_set, 2)


@pytest.mark.parametrize("name", ["split.txt", "frames_2_by_count.npy", "frames_2_by_count.json"])
def test_the_error_names_a_folder_that_is_not_writable(data_set, monkeypatch, name):
    replace = type(data_set).replace

    def denied(path, target):
        if target.name == name:
            raise PermissionError(13, "Permission denied")
        return replace(path, target)

    # Rights would not stop a test that runs as the superuser.
    monkeypatch.setattr(type(data_set), "replace", denied)
    with expect_error(OSError, data_set / name, "Permission denied", "--data-dir"):
        cifar10_dvs.load(data_set, 2)
    assert not list(data_set.glob("*.part"))
