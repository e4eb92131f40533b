"""Recordings that are made from images, and their files."""

import itertools

import numpy as np
import pytest
from made_recordings import made_events

from keras_ratesnn.events import Events, read_aedat, write_aedat
from recipes import make_recordings, train
from recipes.data import fashion_mnist_events, saccades
from tests.recipes.made_clothes import write_clothes
from tests.recipes.recipe_runs import error_of

pytestmark = pytest.mark.runs_once


def assert_equal_events(one, other):
    for name in ("x", "y", "polarity", "timestamp"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_a_recording_is_read_as_it_was_written(tmp_path):
    events = made_events(500, seed=1)
    write_aedat(tmp_path / "recording.aedat", events)
    assert_equal_events(read_aedat(tmp_path / "recording.aedat"), events)


@pytest.mark.parametrize(
    ("events", "message"),
    [
        (
            Events(*np.array([[128], [0], [1], [0]])),
            "must be of a sensor of 128x128 pixels. Received: the coordinate 128",
        ),
        (Events(*np.array([[0, 0], [0, 0], [1, 1], [0, 2**31]])), "must not pause"),
    ],
)
def test_a_recording_that_the_file_cannot_hold_is_an_error(events, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        write_aedat(tmp_path / "recording.aedat", events)
    assert not any(tmp_path.iterdir())


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
    events = saccades.record(image, np.random.default_rng(5), deviation=0.0, **settings)
    room = 128 - 6 - 3 - 1
    corner = np.random.default_rng(5).integers(0, np.array([room, room]) + 1)
    found = set(
        zip(
            *(
                getattr(events, name).tolist()
                for name in ("x", "y", "polarity", "timestamp")
            ),
            strict=True,
        )
    )
    wanted = naive_events(image, corner=corner.tolist(), **settings)
    assert len(wanted) > 20
    # A time may be rounded to the next microsecond.
    assert {event[:3] for event in found} == {event[:3] for event in wanted}
    assert len(found) == len(wanted)
    times = [sorted(event[3] for event in events) for events in (found, wanted)]
    np.testing.assert_allclose(*times, atol=1)
    assert (np.diff(events.timestamp) >= 0).all()


def test_what_makes_no_recording_is_an_error():
    generator = np.random.default_rng(0)
    with pytest.raises(ValueError, match="contrast is below the threshold"):
        saccades.record(np.zeros((4, 4), "uint8"), generator)
    with pytest.raises(ValueError, match="Choose a smaller `enlargement`"):
        saccades.record(np.zeros((28, 28), "uint8"), generator, enlargement=5)


OPTIONS = ["--train", "20", "--test", "10", "--data-dir"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    write_clothes(folder)
    assert (
        make_recordings.main([str(folder / "recordings"), *OPTIONS, str(folder)]) == 0
    )
    return folder / "recordings"


def test_recordings_are_not_made_into_a_folder_that_has_some(tmp_path, capsys):
    write_clothes(tmp_path)
    assert make_recordings.main([str(tmp_path), *OPTIONS, str(tmp_path)]) == 2
    assert "is not empty" in capsys.readouterr().err


def test_a_negative_seed_is_refused_before_the_folder_is_made(tmp_path, capsys):
    write_clothes(tmp_path)
    arguments = [tmp_path / "recordings", *OPTIONS, tmp_path, "--seed", "-1"]
    assert "`seed` must be 0 or more. Received: seed=-1." in error_of(
        arguments, capsys, make_recordings.main
    )
    assert not (tmp_path / "recordings").exists()


def test_recordings_whose_making_was_interrupted_are_not_split_otherwise(
    tmp_path, capsys
):
    folder = tmp_path / "recordings"
    for name in fashion_mnist_events.CLASS_NAMES:
        (folder / name).mkdir(parents=True)
        for number in range(2):
            write_aedat(
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


def test_made_recordings_are_read_by_the_path_of_real_ones(folder):
    data = fashion_mnist_events.load(folder, 4)
    assert data.train_images.shape == (20, 4, 48, 48, 2)
    assert data.test_images.shape == (10, 4, 48, 48, 2)
    assert (data.train_images.sum((1, 2, 3, 4)) > 100).all()


def test_few_made_recordings_are_read_even_if_classes_have_none(tmp_path):
    write_clothes(tmp_path)
    options = ["--train", "2", "--test", "1", "--data-dir", str(tmp_path)]
    assert make_recordings.main([str(tmp_path / "recordings"), *options]) == 0
    data = fashion_mnist_events.load(tmp_path / "recordings", 4)
    assert (len(data.train_images), len(data.test_images)) == (2, 1)


@pytest.mark.slow
def test_the_recipe_trains_on_made_recordings(folder, tmp_path):
    options = ["--data-dir", str(folder), "--output", str(tmp_path / "run"), "--set"]
    settings = [
        "timesteps=4",
        "epochs=1",
        "batch_size=8",
        "width=0.0625",
        "augment=none",
    ]
    assert train.main(["fashion_mnist_events", *options, *settings]) == 0
