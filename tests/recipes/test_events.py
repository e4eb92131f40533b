"""Recordings of event cameras, spoken words and made recordings as data sets, written
by the tests byte by byte; and the recipes that read them."""

import functools
import itertools
import os
import re

import numpy as np
import pytest
from made_event_files import (
    write_gestures,
    write_heidelberg,
    write_nmnist,
    write_spoken,
)
from made_recordings import (
    RECORDINGS,
    arrays_of,
    expect_error,
    made_events,
    write_data_set,
)

from keras_ratesnn.events import event_frames, read_aedat, time_surfaces, voxel_grid
from keras_ratesnn.events import write_aedat as write_aedat_of_library
from keras_ratesnn.events.aedat import SENSOR_SHAPE
from keras_ratesnn.events.recording import FIELDS
from recipes import make_recordings
from recipes.data import events, fashion_mnist_events, frames, saccades
from tests.recipes.made_clothes import write_clothes
from tests.recipes.recipe_runs import error_of, trained

pytestmark = pytest.mark.runs_once


def counts_of(images):
    """The number of events of each recording."""
    return np.rint(images.sum((1, 2, 3, 4))).astype(int)


FIELDS_OF_EVENTS = ("x", "y", "polarity", "timestamp")


def parts_of(data):
    """The images and labels of training and of tests."""
    yield data.train_images, data.train_labels
    yield data.test_images, data.test_labels


def first_columns(images):
    """The first column of each recording that has events."""
    return images.sum((1, 2, 4)).astype(bool).argmax(axis=1)


@pytest.fixture
def data_set(tmp_path):
    return write_data_set(tmp_path / "dvs", events.CIFAR10_DVS.class_names)


def load(folder, timesteps=1, *kind):
    return events.CIFAR10_DVS.load(folder, timesteps, *kind)


def test_the_data_set_has_the_frames_and_the_class_of_every_recording(data_set):
    data = load(data_set, 3, "count")
    assert (len(data.train_images), len(data.test_images)) == (90, 10)
    images = np.concatenate([data.train_images, data.test_images])
    labels = np.concatenate([data.train_labels, data.test_labels])
    assert (images.shape, images.dtype) == ((100, 3, 48, 48, 2), np.float32)
    numbers = counts_of(images) - 50
    assert sorted(numbers) == list(range(100))
    np.testing.assert_array_equal(labels, numbers // RECORDINGS)
    for image, number in zip(images[::10], numbers[::10], strict=True):
        recording = made_events(50 + number, seed=number % RECORDINGS)
        wanted = event_frames(recording, 3, "count", SENSOR_SHAPE, (48, 48))
        np.testing.assert_array_equal(image, wanted)


def test_the_whole_data_set_is_split_into_9000_and_1000(tmp_path):
    names = {
        f"{name}/cifar10_{name}_{number}": None
        for name in events.CIFAR10_DVS.class_names
        for number in range(1000)
    }
    split = events.CIFAR10_DVS._split(tmp_path / "split.txt", names)
    lines = (tmp_path / "split.txt").read_text().splitlines()
    assert sorted(line.split()[1] for line in lines) == sorted(names)
    for name in events.CIFAR10_DVS.class_names:
        assert sum(line.startswith(f"test {name}/") for line in lines) == 100
    # This very split, so that results of years compare.
    assert [line for line in lines if line.startswith("test")][:3] == [
        "test airplane/cifar10_airplane_110",
        "test airplane/cifar10_airplane_141",
        "test airplane/cifar10_airplane_144",
    ]
    assert events.CIFAR10_DVS._split(tmp_path / "split.txt", names) == split


def test_an_existing_split_is_used(data_set):
    load(data_set)
    path = data_set / "split.txt"
    names = [line.split()[1] for line in path.read_text().splitlines()]
    assert len(names) == 100
    parts = ["test" if name.endswith("_5") else "train" for name in names]
    lines = [f"{part} {name}" for part, name in zip(parts, names, strict=True)]
    path.write_text("\r\n".join(lines))
    data = load(data_set)
    assert sorted(counts_of(data.test_images) - 50) == list(range(5, 100, 10))
    assert len(data.train_images) == 90


def test_a_folder_of_links_to_the_classes_works(data_set, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    for name in events.CIFAR10_DVS.class_names:
        (own / name).symlink_to(data_set / name)
    assert len(load(own).train_images) == 90
    assert (own / "split.txt").exists()
    assert not (data_set / "split.txt").exists()


def test_the_split_does_not_depend_on_the_format_of_the_files(data_set):
    first = load(data_set)
    path = data_set / "cat" / "cifar10_cat_0.aedat"
    np.savez(path.with_suffix(".npz"), **arrays_of(read_aedat(path)))
    path.unlink()
    np.testing.assert_array_equal(first.test_images, load(data_set).test_images)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace("train bird", "validate bird", 1), "Line "),
        (lambda text: text + text.splitlines()[0], "Line 101 of"),
        (lambda text: text + "\n", "Line 101 of"),
        (lambda text: text + "test cat/another", "in the folder: 1, the first cat/ano"),
        (lambda text: text.partition("\n")[2], "all recordings of the folder: 1, the"),
        (lambda text: text.replace("test", "train"), "has no test recordings"),
        (lambda text: text.replace("train", "test"), "has no train recordings"),
    ],
)
def test_the_error_names_a_wrong_split_file(data_set, change, said):
    load(data_set)
    path = data_set / "split.txt"
    path.write_text(change(path.read_text()))
    with expect_error(ValueError, said, path):
        load(data_set)


def forbid_reading(monkeypatch):
    def read(path):
        raise AssertionError(f"{path} was read again")

    monkeypatch.setattr(events, "READERS", dict.fromkeys(events.READERS, read))


def test_frames_are_computed_once(data_set, monkeypatch, capsys):
    first = load(data_set, 2)
    assert "counting the events of 100 recordings" in capsys.readouterr().out
    forbid_reading(monkeypatch)
    np.testing.assert_array_equal(first.train_images, load(data_set, 2).train_images)
    assert capsys.readouterr().out == ""
    # Of other frames these tell nothing.
    for timesteps, split_by in ((3, "count"), (2, "time")):
        with pytest.raises(AssertionError, match="read again"):
            load(data_set, timesteps, split_by)


def test_a_change_to_the_images_stays_in_memory(data_set):
    data = load(data_set)
    assert type(data.train_images) is np.ndarray
    written = (data_set / "frames_1_by_count.npy").read_bytes()
    data.train_images[:] = -1
    assert (data_set / "frames_1_by_count.npy").read_bytes() == written


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage", [flip_a_bit, lambda path: path.write_bytes(b""), os.unlink]
)
def test_damaged_frames_are_computed_again(data_set, damage):
    first = np.array(load(data_set, 2).train_images)
    for name in ("frames_2_by_count.npy", "frames_2_by_count.json"):
        whole = (data_set / name).read_bytes()
        damage(data_set / name)
        np.testing.assert_array_equal(load(data_set, 2).train_images, first)
        assert (data_set / name).read_bytes() == whole


def test_a_killed_run_leaves_no_incomplete_frames(data_set, monkeypatch):
    def stop(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setitem(frames.KINDS, "count", stop)
        with pytest.raises(KeyboardInterrupt):
            load(data_set)
    names = {*events.CIFAR10_DVS.class_names, "split.txt"}
    assert {path.name for path in data_set.iterdir()} == names
    # One that is killed outright cannot clear up: what it had written has another name.
    (data_set / "frames_1_by_count.npy.123.part").write_bytes(b"half")
    assert len(load(data_set).train_images) == 90


# Kinds of frames


SMALLER = (64, 64)


def test_kinds_of_frames_are_those_of_the_library():
    recording, whole = made_events(60, seed=0), SENSOR_SHAPE

    def made(kind, shape=SMALLER):
        made = frames.KINDS[kind](recording, 3, whole, shape)
        assert (made.shape, made.dtype) == ((3, *shape, 2), np.float32)
        assert made.min() >= 0
        return made

    for kind in ("count", "time"):
        expected = event_frames(recording, 3, kind, whole, SMALLER)
        np.testing.assert_array_equal(made(kind), expected)
    voxels = made("voxels", whole)
    assert (voxels.min(axis=-1) == 0).all()
    grid = voxel_grid(recording, 3, whole)
    np.testing.assert_allclose(voxels[..., 1] - voxels[..., 0], grid, atol=1e-6)
    tau = (int(recording.timestamp[-1]) - int(recording.timestamp[0]) + 1) / 3
    expected = time_surfaces(recording, 3, tau, whole)
    np.testing.assert_allclose(made("surfaces", whole), expected, atol=1e-6)
    height, width = SMALLER
    means = expected.reshape(3, height, 2, width, 2, 2).mean(axis=(2, 4))
    np.testing.assert_allclose(made("surfaces"), means, atol=1e-6)


def test_a_data_set_is_loaded_as_any_kind(data_set):
    surfaces = load(data_set, 2, "surfaces").train_images
    counts = load(data_set, 2, "count").train_images
    assert surfaces.shape == counts.shape
    assert surfaces.max() <= 1 < counts.max()


# Other data sets


TINY = ("width=0.0625", "timesteps=2", "epochs=1", "batch_size=16")


WRITE = {
    "nmnist": write_nmnist,
    "dvs_gesture": write_gestures,
    "shd": lambda folder: write_spoken(folder, "shd", ("train", "test"), 20),
    "ssc": lambda folder: write_spoken(folder, "ssc", ("train", "test"), 35),
}


SIZES = {"nmnist": (30, 20), "dvs_gesture": (22, 11), "shd": (40, 40), "ssc": (70, 70)}


AUGMENTED = {
    "ssc": ("augment=spoken_words", "mix=cutmix_in_time"),
    "dvs_gesture": ("augment=event_drop",),
}


def check_training(name, folder):
    WRITE[name](folder / "data")
    settings = (*TINY, *AUGMENTED.get(name, ()))
    data = ("--data-dir", str(folder / "data"))
    record = trained(folder / "run", name, *data, "--set", *settings)
    assert (record["train_images"], record["test_images"]) == SIZES[name]
    assert np.isfinite(record["curve"]["loss"]).all()


@pytest.mark.parametrize("name", ["dvs_gesture", "ssc"])
def test_the_larger_recipe_of_a_kind_trains(name, tmp_path):
    check_training(name, tmp_path)


@pytest.mark.on_each_backend
@pytest.mark.parametrize("name", ["nmnist", "shd"])
def test_the_smaller_recipe_of_a_kind_trains_on_each_backend(name, tmp_path):
    check_training(name, tmp_path)


def test_digits_before_a_camera_keep_their_labels_and_parts(tmp_path):
    data = events.load_nmnist(write_nmnist(tmp_path / "nmnist"), 4)
    assert data.train_images.shape == (30, 4, 34, 34, 2)
    for images, labels in parts_of(data):
        assert (np.bincount(labels) == len(labels) // 10).all()
        # The column of the events shows the digit.
        np.testing.assert_array_equal(first_columns(images) // 3, labels)
        assert (images.sum((2, 3, 4)) == 15).all()
    assert len(set(data.train_labels[:8].tolist())) > 3


def test_gestures_keep_their_labels_and_the_lists_their_parts(tmp_path):
    data = events.load_gestures(write_gestures(tmp_path / "gestures"), 4)
    assert data.train_images.shape == (22, 4, 128, 128, 2)
    assert data.classes == 11
    for images, labels in parts_of(data):
        np.testing.assert_array_equal(first_columns(images), 10 * (labels + 1))
        assert (images.sum((2, 3, 4)) == 5).all()


def test_spoken_words_are_counted_in_steps_of_ten_milliseconds(tmp_path):
    folder = tmp_path / "shd"
    write_spoken(folder, "shd", ("train", "test"), 20)
    times, units = [[0.0, 0.00999, 0.02, 0.5]], [[0, 4, 5, 699]]
    write_heidelberg(folder / "shd_test.h5", times, units, [3], ["word"] * 20)
    data = events.load_words("shd", 20, folder, 100)
    images, labels = data.train_images, data.train_labels
    assert images.shape == (40, 100, 140)
    assert np.argwhere(data.test_images[0]).tolist() == [[0, 0], [2, 1], [50, 139]]
    assert data.test_images[0, 0, 0] == 2
    assert data.test_labels.tolist() == [3]
    # The channels show the class; what is after the last step is left out.
    channels = [np.flatnonzero(image.sum(0)).max() for image in images]
    np.testing.assert_array_equal(np.array(channels) // 4, labels)
    shorter = events.load_words("shd", 20, folder, 50)
    assert shorter.train_images.sum() < images.sum()
    assert len(set(labels[:20].tolist())) > 8


LOADERS = {
    "nmnist": events.load_nmnist,
    "dvs_gesture": events.load_gestures,
    "shd": functools.partial(events.load_words, "shd", 20),
}


def first_file(folder, *suffixes):
    paths = sorted(folder.rglob("*.*"))
    return next(path for path in paths if path.suffix in suffixes)


@pytest.mark.parametrize("name", LOADERS)
def test_frames_are_computed_again_if_the_files_change(name, tmp_path, capsys):
    load_frames, folder = LOADERS[name], tmp_path / "data"
    WRITE[name](folder)
    first = np.array(load_frames(folder, 2).train_images)
    assert "counting the events of" in capsys.readouterr().out
    np.testing.assert_array_equal(load_frames(folder, 2).train_images, first)
    assert capsys.readouterr().out == ""
    first_file(folder, ".bin", ".csv", ".h5").touch()
    load_frames(folder, 2)
    assert "counting the events of" in capsys.readouterr().out


# Mistakes


def _cut(path):
    path.write_bytes(path.read_bytes()[:-3])


def _directory(path):
    path.unlink()
    path.mkdir()


def _outside(path):
    path.unlink()
    arrays = {**dict.fromkeys(FIELDS, np.zeros(3, int)), "x": np.array([1, 2, 240])}
    np.savez(path.with_suffix(".npz"), **arrays)


def _empty(folder):
    for path in folder.iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        ("frog/cifar10_frog_2.aedat", _cut, "at byte"),
        ("frog/cifar10_frog_2.aedat", _directory, "cannot be read"),
        ("frog/cifar10_frog_2.aedat", _outside, "240"),
        ("dog", _empty, "it is empty"),
        (
            "deer/cifar10_deer_0.npz",
            lambda path: path.write_bytes(b""),
            "the same name",
        ),
    ],
)
def test_the_error_names_damaged_recordings(name, damage, said, data_set):
    damage(data_set / name)
    with expect_error(ValueError, data_set / name.removesuffix(".aedat"), said):
        events.CIFAR10_DVS.load(data_set, 2)


def test_without_a_folder_the_error_says_where_the_data_is():
    with expect_error(
        ValueError,
        "figshare.com",
        "4724671",
        "pip install tonic",
        "GPL-3.0",
        "--data-dir",
    ):
        events.CIFAR10_DVS.load(None, 10)


def test_the_error_names_a_missing_folder(tmp_path):
    with expect_error(FileNotFoundError, tmp_path / "nowhere", "--data-dir"):
        events.CIFAR10_DVS.load(tmp_path / "nowhere", 10)
    (tmp_path / "file").write_text("")
    with expect_error(NotADirectoryError, tmp_path / "file", "--data-dir"):
        events.CIFAR10_DVS.load(str(tmp_path / "file"), 10)


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
        events.CIFAR10_DVS.load(data_set, 2)
    assert not list(data_set.glob("*.part"))


@pytest.mark.parametrize("name", LOADERS)
def test_a_damaged_file_is_an_error_that_names_it(name, tmp_path):
    folder = tmp_path / "data"
    WRITE[name](folder)
    damaged = first_file(folder, ".bin", ".aedat", ".h5")
    _cut(damaged)
    with pytest.raises(ValueError, match=re.escape(str(damaged))):
        LOADERS[name](folder, 2)
    assert not list(folder.rglob("*.part"))


@pytest.mark.parametrize(
    ("names", "kind", "said"),
    [
        ("", ValueError, "must list recordings"),
        ("../user01_led.aedat", ValueError, "must list names of .aedat files"),
        ("user01_led.aedat user01_led.aedat", ValueError, "each once"),
        ("user01_led.txt", ValueError, "must list names of .aedat files"),
        (
            "user99_led.aedat",
            FileNotFoundError,
            "user99_led.aedat, which trials_to_train.txt asks for",
        ),
        ("user03_led.aedat", ValueError, "Both list user03_led.aedat"),
    ],
)
def test_a_wrong_list_of_gestures_is_an_error(names, kind, said, tmp_path):
    folder = write_gestures(tmp_path / "gestures")
    (folder / "trials_to_train.txt").write_text(names)
    with pytest.raises(kind, match=re.escape(said)):
        events.load_gestures(folder, 2)


def test_the_labels_of_another_data_set_are_an_error(tmp_path):
    write_spoken(tmp_path / "shd", "shd", ("train", "test"), 35)
    with pytest.raises(ValueError, match=r"must have 20 classes\. It has the label 34"):
        events.load_words("shd", 20, tmp_path / "shd", 2)


@pytest.mark.parametrize("name", LOADERS)
def test_missing_data_is_an_error_that_says_where_it_is(name, tmp_path):
    with pytest.raises(ValueError, match=r"cannot be downloaded from here.*--data-dir"):
        LOADERS[name](None, 2)
    for folder in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(FileNotFoundError, match="--data-dir"):
            LOADERS[name](folder, 2)


# Made recordings


def naive_events(image, enlargement, corner, path_length, threshold, steps):
    """Every pixel by itself, in loops: a set of `(x, y, polarity, timestamp)`."""
    size = len(image) * enlargement

    def brightness(y, x, place):
        value = 0.0
        top, left = (corner[axis] + place[axis] * path_length for axis in (0, 1))
        for row in range(size):
            for column in range(size):
                share = max(0.0, 1 - abs(y - top - row)) * max(
                    0.0, 1 - abs(x - left - column)
                )
                value += share * image[row // enlargement, column // enlargement] / 255
        return np.log(value + saccades.DARKEST)

    found = set()
    reach = size + int(path_length) + 2
    places = [
        tuple(a + (b - a) * step / steps for a, b in zip(start, end, strict=True))
        for start, end in itertools.pairwise(saccades.CORNERS)
        for step in range(1, steps + 1)
    ]
    for y in range(corner[0], corner[0] + reach):
        for x in range(corner[1], corner[1] + reach):
            remembered = before = brightness(y, x, saccades.CORNERS[0])
            for number, place in enumerate(places):
                now = brightness(y, x, place)
                while abs(now - remembered) >= threshold:
                    sign = 1 if now > remembered else -1
                    remembered += sign * threshold
                    passed = (remembered - before) / (now - before)
                    time = (
                        (number + min(max(passed, 0), 1))
                        * saccades.MICROSECONDS
                        / steps
                    )
                    found.add((x, y, int(sign > 0), int(time)))
                before = now
    return found


def test_events_are_those_of_each_pixel_by_itself():
    image = np.random.default_rng(0).integers(0, 256, (3, 3), "uint8")
    settings = {"enlargement": 2, "path_length": 3.0, "threshold": 0.4, "steps": 3}
    made = saccades.record(image, np.random.default_rng(5), deviation=0.0, **settings)
    room = 128 - 6 - 3 - 1
    corner = np.random.default_rng(5).integers(0, np.array([room, room]) + 1)
    fields = [getattr(made, name).tolist() for name in FIELDS_OF_EVENTS]
    seen = set(zip(*fields, strict=True))
    wanted = naive_events(image, corner=corner.tolist(), **settings)
    assert len(wanted) > 20
    # A time may be rounded to the next microsecond.
    assert {event[:3] for event in seen} == {event[:3] for event in wanted}
    assert len(seen) == len(wanted)
    times = [sorted(event[3] for event in events) for events in (seen, wanted)]
    np.testing.assert_allclose(*times, atol=1)
    assert (np.diff(made.timestamp) >= 0).all()


OPTIONS = ["--train", "20", "--test", "10", "--data-dir"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    write_clothes(folder)
    assert (
        make_recordings.main([str(folder / "recordings"), *OPTIONS, str(folder)]) == 0
    )
    return folder / "recordings"


def test_made_recordings_are_read_by_the_path_of_real_ones(folder):
    data = fashion_mnist_events.load(folder, 4)
    assert data.train_images.shape == (20, 4, 48, 48, 2)
    assert data.test_images.shape == (10, 4, 48, 48, 2)
    assert (data.train_images.sum((1, 2, 3, 4)) > 100).all()


def test_what_makes_no_recordings_is_an_error(tmp_path, capsys):
    generator = np.random.default_rng(0)
    with pytest.raises(ValueError, match="contrast is below the threshold"):
        saccades.record(np.zeros((4, 4), "uint8"), generator)
    with pytest.raises(ValueError, match="Choose a smaller `enlargement`"):
        saccades.record(np.zeros((28, 28), "uint8"), generator, enlargement=5)
    write_clothes(tmp_path)
    for arguments, said in (
        ([tmp_path], "is not empty"),
        ([tmp_path / "new", "--seed", "-1"], "`seed` must be 0 or more"),
    ):
        command = [*arguments, *OPTIONS, tmp_path]
        assert said in error_of(command, capsys, make_recordings.main)
    assert not (tmp_path / "new").exists()


def test_recordings_whose_making_was_interrupted_are_not_split_otherwise(
    tmp_path, capsys
):
    folder = tmp_path / "recordings"
    for name in fashion_mnist_events.CLASS_NAMES:
        (folder / name).mkdir(parents=True)
        for number in range(2):
            write_aedat_of_library(
                folder / name / f"train_{number:05d}.aedat",
                made_events(10, seed=number),
            )
    error = error_of(
        ["fashion_mnist_events", "--data-dir", folder, "--output", tmp_path / "run"],
        capsys,
    )
    assert f"There is no {folder / 'split.txt'}" in error
    assert "python -m recipes.make_recordings" in error
    assert not (folder / "split.txt").exists()
    # One that lacks recordings is not to be drawn again either.
    (folder / "split.txt").write_text("train bag/train_00000\ntest bag/train_00001\n")
    with pytest.raises(
        ValueError,
        match=r"does not contain all recordings.*Get the recordings again, with their "
        r"split",
    ):
        fashion_mnist_events.load(folder, 4)


def test_few_made_recordings_are_read_even_if_classes_have_none(tmp_path):
    write_clothes(tmp_path)
    options = f"{tmp_path}/recordings --train 2 --test 1 --data-dir {tmp_path}"
    assert make_recordings.main(options.split()) == 0
    data = fashion_mnist_events.load(tmp_path / "recordings", 4)
    assert (len(data.train_images), len(data.test_images)) == (2, 1)
