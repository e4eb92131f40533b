"""Recipes for N-MNIST, DVS128 Gesture, SHD and SSC, on small data sets that the tests
write byte by byte."""

import re

import keras
import numpy as np
import pytest
from made_event_files import (
    write_gestures,
    write_heidelberg,
    write_nmnist,
    write_spoken,
)

from keras_ratesnn.events import read_gestures, read_nmnist
from recipes.data import dvs_gesture, nmnist, spoken_words
from tests.recipes.recipe_runs import trained

pytestmark = pytest.mark.runs_once

TINY = ("width=0.0625", "timesteps=2", "epochs=1", "batch_size=16")
if keras.backend.backend() == "torch":
    # Compiling the time loops of large images takes most of the time.
    TINY += ("jit_compile=False",)

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
    record = trained(
        folder / "run",
        name,
        "--data-dir",
        str(folder / "data"),
        "--set",
        *TINY,
        *AUGMENTED.get(name, ()),
    )
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
    data = nmnist.load(write_nmnist(tmp_path / "nmnist"), 4)
    assert data.train_images.shape == (30, 4, 34, 34, 2)
    for images, labels in (
        (data.train_images, data.train_labels),
        (data.test_images, data.test_labels),
    ):
        assert sorted(labels.tolist()) == sorted(list(range(10)) * (len(labels) // 10))
        # The column of the events shows the digit.
        columns = [np.flatnonzero(image.sum((0, 1, 3))) for image in images]
        np.testing.assert_array_equal([found[0] // 3 for found in columns], labels)
        assert (images.sum((2, 3, 4)) == 15).all()
    assert len(set(data.train_labels[:8].tolist())) > 3


def test_gestures_keep_their_labels_and_the_lists_their_parts(tmp_path):
    data = dvs_gesture.load(write_gestures(tmp_path / "gestures"), 4)
    assert data.train_images.shape == (22, 4, 128, 128, 2)
    assert data.classes == 11
    for images, labels in (
        (data.train_images, data.train_labels),
        (data.test_images, data.test_labels),
    ):
        columns = [int(np.flatnonzero(image.sum((0, 1, 3)))[0]) for image in images]
        np.testing.assert_array_equal(columns, 10 * (labels + 1))
        assert (images.sum((2, 3, 4)) == 5).all()


def test_spoken_words_are_counted_in_steps_of_ten_milliseconds(tmp_path):
    write_spoken(tmp_path / "shd", "shd", ("train", "test"), 20)
    times, units = [[0.0, 0.00999, 0.02, 0.5]], [[0, 4, 5, 699]]
    write_heidelberg(tmp_path / "shd" / "shd_test.h5", times, units, [3], ["word"] * 20)
    data = spoken_words.SHD.load(tmp_path / "shd", 100)
    assert data.train_images.shape == (40, 100, 140)
    assert np.argwhere(data.test_images[0]).tolist() == [[0, 0], [2, 1], [50, 139]]
    assert data.test_images[0, 0, 0] == 2
    assert data.test_labels.tolist() == [3]
    # The channels show the class; what is after the last step is left out.
    places = [np.flatnonzero(image.sum(0)) for image in data.train_images]
    np.testing.assert_array_equal(
        [found.max() // 4 for found in places], data.train_labels
    )
    assert (
        spoken_words.SHD.load(tmp_path / "shd", 50).train_images.sum()
        < data.train_images.sum()
    )
    assert len(set(data.train_labels[:20].tolist())) > 8


LOADERS = {
    "nmnist": nmnist.load,
    "dvs_gesture": dvs_gesture.load,
    "shd": spoken_words.SHD.load,
}


@pytest.mark.parametrize("name", LOADERS)
def test_frames_are_computed_once_and_again_if_the_files_change(name, tmp_path, capsys):
    load, folder = LOADERS[name], tmp_path / "data"
    WRITE[name](folder)
    first = np.array(load(folder, 2).train_images)
    assert "counting the events of" in capsys.readouterr().out
    np.testing.assert_array_equal(load(folder, 2).train_images, first)
    assert capsys.readouterr().out == ""
    changed = next(
        path
        for path in sorted(folder.rglob("*.*"))
        if path.suffix in (".bin", ".csv", ".h5")
    )
    changed.touch()
    load(folder, 2)
    assert "counting the events of" in capsys.readouterr().out


@pytest.mark.parametrize("name", LOADERS)
def test_missing_data_is_an_error_that_says_where_it_is(name, tmp_path):
    load = LOADERS[name]
    with pytest.raises(ValueError, match=r"cannot be downloaded from here.*--data-dir"):
        load(None, 2)
    for folder in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(FileNotFoundError, match="--data-dir"):
            load(folder, 2)
    with pytest.raises(ValueError, match="`timesteps` must be 1 or more"):
        load(tmp_path, 0)


@pytest.mark.parametrize("name", LOADERS)
def test_a_damaged_file_is_an_error_that_names_it(name, tmp_path):
    load, folder = LOADERS[name], tmp_path / "data"
    WRITE[name](folder)
    damaged = next(
        path
        for path in sorted(folder.rglob("*.*"))
        if path.suffix in (".bin", ".aedat", ".h5")
    )
    damaged.write_bytes(damaged.read_bytes()[:-3])
    with pytest.raises(ValueError, match=re.escape(str(damaged))):
        load(folder, 2)
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
        dvs_gesture.load(folder, 2)


def test_the_labels_of_another_data_set_are_an_error(tmp_path):
    write_spoken(tmp_path / "shd", "shd", ("train", "test"), 35)
    with pytest.raises(ValueError, match=r"must have 20 classes\. It has the label 34"):
        spoken_words.SHD.load(tmp_path / "shd", 2)


def test_the_small_data_sets_are_of_the_formats(tmp_path):
    digits, gestures = (
        write_nmnist(tmp_path / "nmnist"),
        write_gestures(tmp_path / "gestures"),
    )
    assert len(read_nmnist(digits / "Train" / "7" / "00000.bin").x) == 60
    assert [kind for kind, _ in read_gestures(gestures / "user01_led.aedat")] == list(
        range(1, 12)
    )
