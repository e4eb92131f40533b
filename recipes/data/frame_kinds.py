"""The kinds of frames that recordings of event cameras become, all of two channels, OFF and ON.

A kind is a function `(events, timesteps, sensor_shape, frame_shape)` that returns an array of float32
`(timesteps, *frame_shape, 2)`.
"""

import functools

import numpy as np

from keras_ratesnn.events import event_frames, time_surfaces, voxel_grid
from keras_ratesnn.events.frames import resize


def _counts(split_by, events, timesteps, sensor_shape, frame_shape):
    return event_frames(events, timesteps, split_by, sensor_shape, frame_shape)


def _voxels(events, timesteps, sensor_shape, frame_shape):
    """A voxel grid, its negative and its positive part in a channel each."""
    grid = voxel_grid(events, timesteps, sensor_shape)
    return resize(np.stack([np.maximum(-grid, 0), np.maximum(grid, 0)], axis=-1), frame_shape)


def _surfaces(events, timesteps, sensor_shape, frame_shape):
    """Time surfaces that decay to 1/e within a frame; resized to means, where counts are summed."""
    duration = int(events.timestamp[-1]) - int(events.timestamp[0]) + 1
    surfaces = time_surfaces(events, timesteps, duration / timesteps, sensor_shape)
    return resize(surfaces, frame_shape) * np.float32(np.prod(frame_shape) / np.prod(sensor_shape))


KINDS = {
    "count": functools.partial(_counts, "count"),
    "time": functools.partial(_counts, "time"),
    "voxels": _voxels,
    "surfaces": _surfaces,
}
"""Counts of events in frames with equal numbers of events, or of equal duration; voxel grids; time surfaces."""
