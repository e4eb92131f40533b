"""Recordings of event cameras, spoken words and made recordings as data sets, written
by the tests byte by byte; and the recipes that read them."""

import functools

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
from numpy.testing import assert_allclose, assert_array_equal

from keras_ratesnn.events import event_frames, read_aedat
from keras_ratesnn.events.aedat import SENSOR_SHAPE
from keras_ratesnn.events.recording import FIELDS
from recipes import make_recordings
from recipes.data import events, fashion_mnist_events, saccades
from tests.recipes.made_clothes import write_clothes
from tests.recipes.recipe_runs import error_of, trained

pytestmark = pytest.mark.runs_once

DVS = events.CIFAR10_DVS
SPLIT = "split.txt"


def parts_of(data):
    """The images and labels of training and of tests."""
    yield data.train_images, data.train_labels
    yield data.test_images, data.test_labels


@pytest.fixture
def data_set(tmp_path):
    return write_data_set(tmp_path / "dvs", DVS.class_names)


def numbers_of(images):
    """The number of each recording, which its events tell."""
    return np.rint(images.sum((1, 2, 3, 4))).astype(int) - 50


def was_counted(capsys):
    return "counting the events of" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["count", "time"])
def test_the_data_set_has_the_frames_and_the_class_of_every_recording(data_set, kind):
    data = DVS.load(data_set, 3, kind)
    assert (data.train_size, data.test_size) == (90, 10)
    seen = []
    for images, labels in parts_of(data):
        assert (images.shape[1:], images.dtype) == ((3, 48, 48, 2), np.float32)
        numbers = numbers_of(images)
        seen += numbers.tolist()
        assert_array_equal(labels, numbers // RECORDINGS)
        for image, number in zip(images[::10], numbers[::10], strict=True):
            recording = made_events(50 + number, seed=number % RECORDINGS)
            wanted = event_frames(recording, 3, kind, SENSOR_SHAPE, (48, 48))
            assert_array_equal(image, wanted)
    assert sorted(seen) == list(range(100))


def test_a_split_depends_on_names_alone_and_one_that_is_there_is_used(
    data_set, tmp_path
):
    first = DVS.load(data_set, 1)
    lines = (data_set / SPLIT).read_text().splitlines()
    # This very split, so that results of years compare.
    drawn = "".join(line[-1] for line in lines if line.startswith("test"))
    assert (len(lines), drawn) == (100, "8496804051")
    # Neither on the format of the files nor on where they are.
    path = data_set / "cat" / "cifar10_cat_0.aedat"
    np.savez(path.with_suffix(".npz"), **arrays_of(read_aedat(path)))
    path.unlink()
    own = tmp_path / "own"
    own.mkdir()
    for name in DVS.class_names:
        (own / name).symlink_to(data_set / name)
    assert_array_equal(DVS.load(own, 1).test_images, first.test_images)
    assert (own / SPLIT).read_text().splitlines() == lines
    # Recordings of number 5 are for testing.
    changed = [
        f"{'test' if line.endswith('_5') else 'train'} {line.split()[1]}"
        for line in lines
    ]
    (own / SPLIT).write_text("\r\n".join(changed))
    numbers = numbers_of(DVS.load(own, 1).test_images)
    assert sorted(numbers) == list(range(5, 100, 10))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace("train bird", "validate bird", 1), "must be train"),
        (lambda text: text + "test cat/another", "differ: 1 ['cat/another']"),
        (lambda text: text + text.replace("test", "train"), "one for each"),
        (lambda text: text.replace("test", "train"), "some of both"),
    ],
)
def test_the_error_names_a_wrong_split_file(data_set, change, said):
    DVS.load(data_set, 1)
    path = data_set / SPLIT
    path.write_text(change(path.read_text()))
    with expect_error(ValueError, said, path):
        DVS.load(data_set, 1)


# Other data sets


SPOKEN = ("train", "test")
WRITE = {
    "nmnist": write_nmnist,
    "dvs_gesture": write_gestures,
    "shd": lambda folder: write_spoken(folder, "shd", SPOKEN, 20),
}
SIZES = {"nmnist": (30, 20), "dvs_gesture": (22, 11), "shd": (40, 40)}
everywhere = pytest.mark.on_each_backend


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("nmnist", marks=everywhere),
        pytest.param("shd", marks=everywhere),
        "dvs_gesture",
    ],
)
def test_recipes_of_recordings_train(name, tmp_path):
    WRITE[name](tmp_path / "data")
    data = ("--data-dir", str(tmp_path / "data"))
    tiny = ("width=0.0625", "timesteps=2", "epochs=1", "batch_size=16")
    record = trained(tmp_path / "run", name, *data, "--set", *tiny)
    assert (record["train_images"], record["test_images"]) == SIZES[name]
    assert np.isfinite(record["curve"]["loss"]).all()


def test_digits_and_gestures_before_a_camera_keep_their_labels_and_parts(tmp_path):
    digits = events.load_nmnist(write_nmnist(tmp_path / "nmnist"), 4)
    gestures = events.load_gestures(write_gestures(tmp_path / "gestures"), 4)
    assert digits.train_images.shape == (30, 4, 34, 34, 2)
    assert gestures.train_images.shape == (22, 4, 128, 128, 2)
    assert gestures.classes == 11
    for data, count in ((digits, 15), (gestures, 5)):
        for images, labels in parts_of(data):
            assert (images.sum((2, 3, 4)) == count).all()
            # The column of the events shows the class.
            columns = images.sum((1, 2, 4)).astype(bool).argmax(axis=1)
            shown = columns // 3 if data is digits else columns // 10 - 1
            assert_array_equal(shown, labels)
    assert (np.bincount(digits.train_labels) == 3).all()
    assert len(set(digits.train_labels[:8].tolist())) > 3


def test_spoken_words_are_counted_in_steps_of_ten_milliseconds(tmp_path):
    folder = tmp_path / "shd"
    WRITE["shd"](folder)
    times, units = [[0.0, 0.00999, 0.02, 0.5]], [[0, 4, 5, 699]]
    write_heidelberg(folder / "shd_test.h5", times, units, [3], ["word"] * 20)
    data = events.load_words("shd", 20, folder, 100)
    images, labels = data.train_images, data.train_labels
    assert images.shape == (40, 100, 140)
    assert np.argwhere(data.test_images[0]).tolist() == [[0, 0], [2, 1], [50, 139]]
    assert data.test_images[0, 0, 0] == 2
    assert data.test_labels.tolist() == [3]
    # The channels show the class; what is after the last step is left out.
    channels = [np.flatnonzero(image.sum(0)).max() // 4 for image in images]
    assert_array_equal(channels, labels)
    shorter = events.load_words("shd", 20, folder, 50)
    assert shorter.train_images.sum() < images.sum()
    assert len(set(labels[:20].tolist())) > 8
    larger = tmp_path / "other"
    write_spoken(larger, "shd", SPOKEN, 35)
    with expect_error(ValueError, "must have 20 classes. It has the label 34"):
        events.load_words("shd", 20, larger, 2)


# Mistakes

LOADERS = {
    "nmnist": events.load_nmnist,
    "dvs_gesture": events.load_gestures,
    "shd": functools.partial(events.load_words, "shd", 20),
}


def cut(path):
    path.write_bytes(path.read_bytes()[:-3])


@pytest.mark.parametrize("name", LOADERS)
def test_files_that_change_are_counted_again_and_damaged_or_missing_ones_named(
    name, tmp_path, capsys
):
    load, folder = LOADERS[name], tmp_path / "data"

    def first_file(*suffixes):
        paths = sorted(folder.rglob("*.*"))
        return next(path for path in paths if path.suffix in suffixes)

    with expect_error(ValueError, "cannot be downloaded from here", "--data-dir"):
        load(None, 2)
    for missing in (folder, tmp_path):
        with pytest.raises(FileNotFoundError, match="--data-dir"):
            load(missing, 2)
    WRITE[name](folder)
    images = load(folder, 2).train_images
    assert was_counted(capsys)
    first = images.copy()
    # This stays in memory.
    images[:] = -1

    def load_again(is_counted):
        assert_array_equal(load(folder, 2).train_images, first)
        assert was_counted(capsys) == is_counted

    load_again(is_counted=False)
    arrays = list(folder.rglob("*.npy"))
    assert arrays
    for path in [*arrays, *(array.with_suffix(".json") for array in arrays)]:
        whole = path.read_bytes()
        path.unlink()
        load_again(is_counted=True)
        assert path.read_bytes() == whole
    first_file(".bin", ".csv", ".h5").touch()
    load_again(is_counted=True)
    damaged = first_file(".bin", ".aedat", ".h5")
    cut(damaged)
    with expect_error(ValueError, damaged):
        load(folder, 2)
    assert not list(folder.rglob("*.part"))


def directory(path):
    path.unlink()
    path.mkdir()


def outside(path):
    path.unlink()
    arrays = {**dict.fromkeys(FIELDS, np.zeros(3, int)), "x": np.array([1, 2, 240])}
    np.savez(path.with_suffix(".npz"), **arrays)


def empty(folder):
    for path in folder.iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        ("frog/cifar10_frog_2.aedat", cut, "at byte"),
        ("frog/cifar10_frog_2.aedat", directory, "cannot be read"),
        ("frog/cifar10_frog_2.aedat", outside, "240"),
        ("dog", empty, "It has 0"),
        ("deer/cifar10_deer_0.npz", lambda path: path.touch(), "the same name"),
    ],
)
def test_the_error_names_damaged_recordings(name, damage, said, data_set):
    damage(data_set / name)
    with expect_error(ValueError, data_set / name.removesuffix(".aedat"), said):
        DVS.load(data_set, 2)


def test_the_error_says_where_the_data_is_and_names_a_missing_folder(tmp_path):
    with expect_error(ValueError, "4724671", "pip install tonic", "GPL-3", "--data"):
        DVS.load(None, 10)
    with expect_error(FileNotFoundError, tmp_path / "nowhere", "--data-dir"):
        DVS.load(tmp_path / "nowhere", 10)
    (tmp_path / "file").touch()
    with expect_error(NotADirectoryError, tmp_path / "file", "--data-dir"):
        DVS.load(str(tmp_path / "file"), 10)


def test_a_list_that_names_what_is_not_there_is_an_error(tmp_path):
    folder = write_gestures(tmp_path / "gestures")
    (folder / "trials_to_train.txt").write_text("user99_led.aedat")
    with expect_error(FileNotFoundError, "user99_led.aedat", "trials_to_train.txt"):
        events.load_gestures(folder, 2)
    test_list = (folder / "trials_to_test.txt").read_text()
    (folder / "trials_to_train.txt").write_text(test_list)
    with expect_error(ValueError, "trials_to_train.txt", "each of them once"):
        events.load_gestures(folder, 2)


# Made recordings


def test_made_recordings_are_the_same_for_everyone():
    image = np.random.default_rng(0).integers(0, 256, (28, 28), "uint8")
    made = saccades.record(image, np.random.default_rng(5))
    means = [getattr(made, name).astype("float64").mean() for name in FIELDS]
    # As they were when each pixel by itself had the same events.
    assert len(made.x) == 72_942
    assert_allclose(means, (73.763867, 70.721752, 0.499438, 144091.55), rtol=1e-6)
    assert (np.diff(made.timestamp) >= 0).all()


def test_made_recordings_are_read_by_the_path_of_real_ones(tmp_path, capsys):
    write_clothes(tmp_path)

    def command(folder, train=2, test=1):
        counts = f"--train {train} --test {test} --data-dir {tmp_path}"
        return [str(tmp_path / folder), *counts.split()]

    # Of few recordings some classes have none.
    for train, test in ((20, 10), (2, 1)):
        folder = f"of_{train}"
        assert make_recordings.main(command(folder, train, test)) == 0
        data = fashion_mnist_events.load(tmp_path / folder, 4)
        assert data.train_images.shape == (train, 4, 48, 48, 2)
        assert data.test_size == test
        assert (data.train_images.sum((1, 2, 3, 4)) > 100).all()
    capsys.readouterr()
    assert "is not empty" in error_of(command(""), capsys, make_recordings.main)
    # Recordings whose making was interrupted are not split otherwise, nor those that
    # are not all there.
    folder = tmp_path / "of_20"
    split = (folder / SPLIT).read_text()
    (folder / SPLIT).unlink()
    output = ["--data-dir", folder, "--output", tmp_path / "run"]
    error = error_of(["fashion_mnist_events", *output], capsys)
    assert f"There is no {folder / SPLIT}" in error
    assert "python -m recipes.make_recordings" in error
    assert not (folder / SPLIT).exists()
    (folder / SPLIT).write_text(split.partition("\n")[2])
    said = "Recordings that differ: 1", "Get the recordings again, with their"
    with expect_error(ValueError, *said):
        fashion_mnist_events.load(folder, 4)
