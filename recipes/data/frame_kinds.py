"""The kinds of frames that recordings of event cameras become, all of two channels, OFF
and ON.

A kind is a function `(events, timesteps, sensor_shape, frame_shape)` that returns an
array of float32 `(timesteps, *frame_shape, 2)`.
"""

import dataclasses
import functools

import numpy as np

from keras_ratesnn.events import event_frames, time_surfaces, voxel_grid
from keras_ratesnn.events.frames import resize
from recipes import checks
from recipes.data import stored_frames


def _counts(split_by, events, timesteps, sensor_shape, frame_shape):
    return event_frames(events, timesteps, split_by, sensor_shape, frame_shape)


def _voxels(events, timesteps, sensor_shape, frame_shape):
    """A voxel grid, its negative and its positive part in a channel each."""
    grid = voxel_grid(events, timesteps, sensor_shape)
    return resize(
        np.stack([np.maximum(-grid, 0), np.maximum(grid, 0)], axis=-1), frame_shape
    )


def _surfaces(events, timesteps, sensor_shape, frame_shape):
    """Time surfaces that decay to 1/e within a frame; resized to means, where counts
    are summed."""
    duration = int(events.timestamp[-1]) - int(events.timestamp[0]) + 1
    surfaces = time_surfaces(events, timesteps, duration / timesteps, sensor_shape)
    return resize(surfaces, frame_shape) * np.float32(
        np.prod(frame_shape) / np.prod(sensor_shape)
    )


KINDS = {
    "count": functools.partial(_counts, "count"),
    "time": functools.partial(_counts, "time"),
    "voxels": _voxels,
    "surfaces": _surfaces,
}
"""Counts of events in frames with equal numbers of events, or of equal duration; voxel
grids; time surfaces."""


@dataclasses.dataclass(frozen=True)
class Frames:
    """How the recordings of a data set become frames.

    Attributes:
        name: String, the name of the data set.
        kind: A name of `KINDS`.
        timesteps: Integer, the number of frames of a recording.
        sensor_shape: `(height, width)` of the camera.
        frame_shape: `(height, width)` of a frame. Defaults to `None`, that of the
            camera.

    Raises:
        ValueError: If there is no such kind.
    """

    name: str
    kind: str
    timesteps: int
    sensor_shape: tuple[int, int]
    frame_shape: tuple[int, int] | None = None

    def __post_init__(self):
        checks.one_of("frame_kind", self.kind, KINDS)

    def of(self, read, path):
        """The frames of the events that `read` finds in a file; of pairs of a class and
        events a list of frames."""
        found = stored_frames.read(read, path)
        try:
            return (
                [self._made(events) for _, events in found]
                if isinstance(found, list)
                else self._made(found)
            )
        except ValueError as error:
            raise ValueError(
                f"{path} is not a recording of {self.name}. {error}"
            ) from error

    def _made(self, events):
        return KINDS[self.kind](
            events,
            self.timesteps,
            self.sensor_shape,
            self.frame_shape or self.sensor_shape,
        )

    def stored(self, folder, sources, count, frames):
        """Those of `count` recordings, stored in their folder; for the other arguments
        see `stored_frames.stored`."""
        shape = count, self.timesteps, *(self.frame_shape or self.sensor_shape), 2
        return stored_frames.stored(
            folder / f"frames_{self.timesteps}_by_{self.kind}.npy",
            sources,
            shape,
            frames,
        )
