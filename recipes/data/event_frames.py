"""Events of an event camera, and the frames they are counted into.

An event camera has no frames: each pixel reports by itself that its light changed. A network that runs for T time steps takes T
frames, and each frame counts, pixel by pixel and polarity by polarity, the events of one slice of the recording.
"""

import dataclasses
import pathlib

import numpy as np

from keras_ratesnn._core import checks

FIELDS = ("x", "y", "polarity", "timestamp")

LARGEST_RECORDING = 2**28
"""Bytes of a recording, unpacked. One of CIFAR10-DVS has some 200,000 events of up to 32 bytes. A compressed archive can
hold more than a thousand times its own size."""


@dataclasses.dataclass(frozen=True, eq=False)
class Events:
    """One recording, an array entry an event, in the order of time.

    Attributes:
        x: Integers >= 0, the column, from the left of the picture.
        y: Integers >= 0, the row, from the top of the picture.
        polarity: 1 (or True) where a pixel became brighter (ON), 0 where it became darker (OFF).
        timestamp: Integers that never run backwards, microseconds.

    Raises:
        TypeError: If an array holds other than integers.
        ValueError: If there are no events, or the arrays differ in length or hold what is no event.
    """

    x: np.ndarray
    y: np.ndarray
    polarity: np.ndarray
    timestamp: np.ndarray

    def __post_init__(self):
        shapes = {name: getattr(self, name).shape for name in FIELDS}
        if len(set(shapes.values())) != 1 or self.x.ndim != 1:
            raise ValueError(f"The arrays of a recording must be of one dimension and of the same length. Received: {shapes}.")
        if not len(self.x):
            raise ValueError("A recording must have events. Received: none.")
        for name in FIELDS:
            dtype = getattr(self, name).dtype
            if dtype.kind not in "biu":
                raise TypeError(f"`{name}` must hold integers. Received: an array of {dtype}.")
        for name, values in (("x", self.x), ("y", self.y)):
            if values.min() < 0:
                raise ValueError(f"`{name}` must hold pixels from 0 on. Its smallest is {values.min()}.")
        if self.polarity.min() < 0 or self.polarity.max() > 1:
            raise ValueError(
                f"`polarity` must be 0 (OFF) or 1 (ON). It goes from {self.polarity.min()} to {self.polarity.max()}."
            )
        backwards = np.flatnonzero(self.timestamp[1:] < self.timestamp[:-1])
        if len(backwards):
            event = backwards[0] + 1
            raise ValueError(
                f"`timestamp` must not run backwards. Event {event} is at {self.timestamp[event]}, "
                f"the one before it at {self.timestamp[event - 1]}. Sort the events by time."
            )


def read_arrays(path):
    """The events in a NumPy file.

    Args:
        path: A `.npz` file of four arrays, or a `.npy` file of one structured array with four fields: x, y, polarity and
            timestamp, each as `Events` says.

    Returns:
        `Events`.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If the file is damaged, holds something else or is too large.
    """
    wanted = f"It must hold {', '.join(FIELDS)}: four arrays in a .npz file, four fields of one array in a .npy file."
    check_size(path, pathlib.Path(path).stat().st_size)
    with open(path, "rb") as file:
        try:
            # A .npz file answers by name, and so does a structured array.
            content = np.load(file, allow_pickle=False)
            if isinstance(content, np.lib.npyio.NpzFile):
                check_size(path, sum(content.zip.getinfo(f"{name}.npy").file_size for name in FIELDS if name in content.files))
            names = content.files if isinstance(content, np.lib.npyio.NpzFile) else content.dtype.names or ()
            missing = [name for name in FIELDS if name not in names]
            arrays = None if missing else {name: content[name] for name in FIELDS}
        except TooLargeError:
            raise
        # A damaged file fails in zipfile, in zlib or in NumPy, each with errors of its own.
        except Exception as error:
            raise ValueError(f"NumPy cannot read {path} ({type(error).__name__}: {error}). {wanted}") from error
    if missing:
        raise ValueError(
            f"{path} has no {', '.join(missing)}. {wanted} It holds: {', '.join(names) or 'an array without fields'}."
        )
    try:
        return Events(**arrays)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} does not hold a recording. {error}") from error


class TooLargeError(ValueError):
    """A recording that would take too much memory."""


def check_size(path, size):
    """Refuses a recording of more than `LARGEST_RECORDING` bytes, before it is read."""
    if size > LARGEST_RECORDING:
        raise TooLargeError(
            f"{path} must hold a recording of {LARGEST_RECORDING / 2**20:,.0f} MiB at most. It holds {size / 2**20:,.0f} MiB, "
            "unpacked. Cut it into shorter recordings, or leave it out."
        )


def frame_numbers_by_count(events, timesteps):
    """The frame of each event, from 0 to `timesteps - 1`: every frame gets as many events as every other, within one."""
    return np.arange(len(events.x)) * timesteps // len(events.x)


def frame_numbers_by_time(events, timesteps):
    """The frame of each event, from 0 to `timesteps - 1`: every frame lasts as long as every other.

    The recording lasts from the start of the microsecond of its first event to the end of that of its last.
    """
    # Differences of 64-bit integers are exact modulo 2**64, in which all of them fit; products with T are not.
    timestamps = events.timestamp.astype("uint64")
    elapsed = timestamps - timestamps[0]
    duration = int(elapsed[-1]) + 1
    starts = [-(-frame * duration // timesteps) for frame in range(1, timesteps)]
    return np.searchsorted(np.array(starts, "uint64"), elapsed, side="right")


FRAME_NUMBERS_BY = {"count": frame_numbers_by_count, "time": frame_numbers_by_time}


def count_events(events, frame_numbers, timesteps, sensor_shape):
    """How many events each pixel had in each frame.

    Args:
        events: `Events`.
        frame_numbers: The frame of each event.
        timesteps: The number of frames.
        sensor_shape: `(height, width)` in pixels.

    Returns:
        Integers `(timesteps, height, width, 2)`; the last axis is OFF, then ON.

    Raises:
        ValueError: If an event is outside of the sensor.
    """
    height, width = sensor_shape
    for name, values, size in (("y", events.y, height), ("x", events.x, width)):
        if values.max() >= size:
            raise ValueError(f"`{name}` must be less than {size}, the sensor's size. Its largest is {values.max()}.")
    shape = (timesteps, height, width, 2)
    cells = np.ravel_multi_index(
        (frame_numbers, *(getattr(events, name).astype("int64") for name in ("y", "x", "polarity"))), shape
    )
    return np.bincount(cells, minlength=np.prod(shape)).reshape(shape)


def resize(frames, frame_shape):
    """Frames on a grid of other pixels. A count is shared among the new pixels by the area that its old pixel has in each.

    No event is lost, and a scene of even activity stays even. (If each event's place were rounded to the new grid instead, from
    128 to 48 some new pixels would collect from 2x2 old ones and others from 3x3.)

    Args:
        frames: Array `(timesteps, height, width, channels)`.
        frame_shape: The new `(height, width)`.

    Returns:
        Array of float32 `(timesteps, *frame_shape, channels)` with the same sum.
    """
    rows, columns = (_shares(old, new) for old, new in zip(frames.shape[1:3], frame_shape, strict=True))
    return np.einsum("ah,bw,thwc->tabc", rows, columns, frames.astype("float32"), optimize=True)


def _shares(old, new):
    """Matrix `(new, old)`: which part of each of `old` pixels in a row lies in each of `new` pixels, as long together."""
    edges = np.arange(new + 1)[:, np.newaxis] * (old / new)
    pixels = np.arange(old)
    overlap = np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels)
    return np.maximum(overlap, 0).astype("float32")


def event_frames(events, timesteps, split_by, sensor_shape, frame_shape):
    """One recording as the frames that a network sees.

    Args:
        events: `Events`.
        timesteps: Integer >= 1, the number of frames.
        split_by: "count" for frames of equally many events, "time" for frames of equal duration.
        sensor_shape: `(height, width)` of the camera in pixels.
        frame_shape: `(height, width)` of a frame.

    Returns:
        Array of float32 `(timesteps, *frame_shape, 2)`: numbers of events, OFF and then ON, whose sum is the number of events.

    Raises:
        TypeError: If `timesteps` is not an integer.
        ValueError: If `timesteps` or `split_by` is not one of those said, or an event is outside of the sensor.
    """
    timesteps = checks.positive_integer("timesteps", timesteps, advice="It is the number of frames.")
    frame_numbers = FRAME_NUMBERS_BY[checks.one_of("split_by", split_by, FRAME_NUMBERS_BY)](events, timesteps)
    return resize(count_events(events, frame_numbers, timesteps, sensor_shape), frame_shape)
