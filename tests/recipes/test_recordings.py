"""Recordings of event cameras as a data set: a small CIFAR10-DVS."""

import json
import os

import numpy as np
import pytest
from made_recordings import (
    RECORDINGS,
    arrays_of,
    expect_error,
    made_events,
    write_aedat,
    write_data_set,
)

from keras_ratesnn.events import event_frames, read_aedat
from keras_ratesnn.events.aedat import SENSOR_SHAPE
from keras_ratesnn.events.recording import FIELDS
from recipes.data import cifar10_dvs, frame_kinds, recordings, stored_frames

pytestmark = pytest.mark.runs_once


def events_of(images):
    """The number of events of each recording."""
    return np.rint(images.sum((1, 2, 3, 4))).astype(int)


@pytest.fixture
def data_set(tmp_path):
    return write_data_set(tmp_path / "dvs", cifar10_dvs.CLASS_NAMES)


@pytest.mark.parametrize("split_by", ["count", "time"])
def test_the_data_set_has_the_frames_and_the_class_of_every_recording(
    data_set, split_by
):
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
        np.testing.assert_array_equal(
            image, event_frames(events, 3, split_by, SENSOR_SHAPE, (48, 48))
        )


def test_the_split_is_stratified_and_the_same_everywhere(data_set, tmp_path):
    data = cifar10_dvs.load(data_set, 1)
    assert np.bincount(data.test_labels).tolist() == [1] * 10
    np.random.seed(7)
    other = cifar10_dvs.load(
        write_data_set(tmp_path / "other", cifar10_dvs.CLASS_NAMES), 1
    )
    np.testing.assert_array_equal(
        events_of(other.test_images), events_of(data.test_images)
    )


def test_the_whole_data_set_is_split_into_9000_and_1000(tmp_path):
    names = {
        f"{name}/cifar10_{name}_{number}": None
        for name in cifar10_dvs.CLASS_NAMES
        for number in range(1000)
    }
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
    path.write_text(
        "\r\n".join(
            f"{'test' if line.endswith('_5') else 'train'} {line.split()[1]}"
            for line in lines
        )
    )
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
        (
            lambda lines: [*lines[:4], "validate bird/cifar10_bird_0", *lines[5:]],
            "Line 5 of",
        ),
        (lambda lines: [*lines, lines[0]], "Line 101 of"),
        (lambda lines: [*lines, ""], "Line 101 of"),
        (
            lambda lines: [*lines, "test cat/another"],
            "not in the folder: 1, the first cat/another",
        ),
        (
            lambda lines: lines[1:],
            "does not contain all recordings of the folder: 1, the first "
            "airplane/cifar10_airplane_0",
        ),
        (
            lambda lines: [line.replace("test", "train") for line in lines],
            "has no test recordings",
        ),
        (
            lambda lines: [f"test {line.split()[1]}" for line in lines],
            "has no train recordings",
        ),
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
@pytest.mark.parametrize(
    "damage",
    [cut, flip_a_bit, lambda path: path.write_bytes(b""), lambda path: path.unlink()],
)
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
    expected = event_frames(
        made_events(999, seed=1), 2, "count", SENSOR_SHAPE, (48, 48)
    )
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
        patch.setitem(frame_kinds.KINDS, "count", stop)
        with pytest.raises(KeyboardInterrupt):
            cifar10_dvs.load(data_set, 1)
    assert {path.name for path in data_set.iterdir()} == {
        *cifar10_dvs.CLASS_NAMES,
        "split.txt",
    }
    # One that is killed outright cannot clear up: what it had written has another name.
    (data_set / "frames_1_by_count.npy.123.part").write_bytes(b"half")
    assert len(cifar10_dvs.load(data_set, 1).train_images) == 90
    assert (
        json.loads((data_set / "frames_1_by_count.json").read_text())["version"]
        == stored_frames.FRAMES_VERSION
    )


# Mistakes


@pytest.mark.parametrize(("timesteps", "kind"), [(0, ValueError), (2.0, TypeError)])
def test_a_wrong_number_of_frames_is_an_error(timesteps, kind, data_set):
    with expect_error(kind, "timesteps"):
        cifar10_dvs.load(data_set, timesteps)


def test_without_a_folder_the_error_says_where_the_data_is():
    with expect_error(
        ValueError,
        "figshare.com",
        "4724671",
        "pip install tonic",
        "GPL-3.0",
        "--data-dir",
    ):
        cifar10_dvs.load(None, 10)


def test_an_unknown_kind_of_frames_is_an_error(data_set):
    with expect_error(ValueError, "frame_kind", "'count', 'time'", "'number'"):
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
    with expect_error(
        ValueError,
        dogs,
        "It has 0",
        "among 10 files, such as cifar10_dog_0.aedat4",
        "--data-dir",
    ):
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


@pytest.mark.parametrize(
    "name", ["split.txt", "frames_2_by_count.npy", "frames_2_by_count.json"]
)
def test_the_error_names_a_folder_that_is_not_writable(data_set, monkeypatch, name):
    replace = os.replace

    def denied(path, target):
        if target.name == name:
            raise PermissionError(13, "Permission denied")
        return replace(path, target)

    # Rights would not stop a test that runs as the superuser.
    monkeypatch.setattr(os, "replace", denied)
    with expect_error(OSError, data_set / name, "Permission denied", "--data-dir"):
        cifar10_dvs.load(data_set, 2)
    assert not list(data_set.glob("*.part"))
