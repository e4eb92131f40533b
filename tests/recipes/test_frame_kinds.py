"""Recordings become counts, voxel grids or time surfaces, all as frames of two
channels."""

import numpy as np
import pytest
from made_recordings import made_events, write_data_set

from keras_ratesnn.events import event_frames, time_surfaces, voxel_grid
from keras_ratesnn.events.aedat import SENSOR_SHAPE
from recipes import catalogue
from recipes.data import cifar10_dvs
from recipes.data.frame_kinds import KINDS

pytestmark = pytest.mark.runs_once

SMALLER = (64, 64)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_frames_of_two_channels_of_any_size(kind):
    events = made_events(60, seed=0)
    for shape in (SENSOR_SHAPE, SMALLER):
        frames = KINDS[kind](events, 3, SENSOR_SHAPE, shape)
        assert (frames.shape, frames.dtype) == ((3, *shape, 2), np.float32)
        assert frames.min() >= 0
        assert frames.max() > 0


def test_counts_are_those_of_event_frames():
    for kind in ("count", "time"):
        expected = event_frames(made_events(60, seed=0), 3, kind, SENSOR_SHAPE, SMALLER)
        np.testing.assert_array_equal(
            KINDS[kind](made_events(60, seed=0), 3, SENSOR_SHAPE, SMALLER), expected
        )


def test_the_channels_of_voxels_are_the_parts_of_the_grid():
    frames = KINDS["voxels"](made_events(60, seed=0), 3, SENSOR_SHAPE, SENSOR_SHAPE)
    assert (frames.min(axis=-1) == 0).all()
    np.testing.assert_allclose(
        frames[..., 1] - frames[..., 0],
        voxel_grid(made_events(60, seed=0), 3, SENSOR_SHAPE),
        atol=1e-6,
    )


def test_surfaces_decay_within_a_frame_and_are_averaged_over_pixels():
    events = made_events(60, seed=0)
    tau = (int(events.timestamp[-1]) - int(events.timestamp[0]) + 1) / 3
    expected = time_surfaces(events, 3, tau, SENSOR_SHAPE)
    np.testing.assert_allclose(
        KINDS["surfaces"](events, 3, SENSOR_SHAPE, SENSOR_SHAPE), expected, atol=1e-6
    )
    height, width = SMALLER
    means = expected.reshape(3, height, 2, width, 2, 2).mean(axis=(2, 4))
    np.testing.assert_allclose(
        KINDS["surfaces"](events, 3, SENSOR_SHAPE, SMALLER), means, atol=1e-6
    )


def test_a_data_set_is_loaded_as_any_kind(tmp_path):
    write_data_set(tmp_path, cifar10_dvs.CLASS_NAMES)
    surfaces, counts = (
        cifar10_dvs.load(tmp_path, 2, kind).train_images
        for kind in ("surfaces", "count")
    )
    assert surfaces.shape == counts.shape
    assert surfaces.max() <= 1 < counts.max()


def test_the_setting_frame_kind_chooses_the_frames_of_a_recipe_that_reads_recordings(
    tmp_path,
):
    write_data_set(tmp_path, cifar10_dvs.CLASS_NAMES)
    recipe = catalogue.find("cifar10_dvs_vggsnn").with_settings(
        ["frame_kind=surfaces", "timesteps=2"]
    )
    np.testing.assert_array_equal(
        recipe.load(tmp_path).train_images,
        cifar10_dvs.load(tmp_path, 2, "surfaces").train_images,
    )


@pytest.mark.parametrize(
    ("name", "setting", "said"),
    [
        (
            "digits",
            "frame_kind=time",
            "`frame_kind` must be None in recipe 'digits', which does not read "
            "recordings",
        ),
        (
            "nmnist",
            "frame_kind=number",
            "`frame_kind` must be one of None, 'count', 'time', 'voxels', 'surfaces'",
        ),
    ],
)
def test_a_wrong_setting_frame_kind_is_an_error(name, setting, said):
    with pytest.raises(ValueError, match=said):
        catalogue.find(name).with_settings([setting])
