"""Events of an event camera, and their conversion to frames.

An event camera has no frames: each pixel independently reports changes of its brightness. A network that runs for T time steps
needs T frames. Each frame counts the events of one slice of the recording, for each pixel and polarity.
"""

import dataclasses
import pathlib

import numpy as np

from keras_ratesnn._core import checks

FIELDS = ("x", "y", "polarity", "timestamp")

LARGEST_RECORDING = 2**28
"""Uncompressed bytes of a recording. Recordings of CIFAR10-DVS have about 200,000 events of up to 32 bytes. A compressed
archive can contain more than a thousand times its own size."""


@dataclasses.dataclass(frozen=True, eq=False)
class Events:
    """One recording: arrays with one entry per event, in temporal order.

    Attributes:
        x: Integers >= 0, the column, from the left of the image.
        y: Integers >= 0, the row, from the top of the image.
        polarity: 1 (or True) if the pixel became brighter (ON), 0 if it became darker (OFF).
        timestamp: Non-decreasing integers, in microseconds.

    Raises:
        TypeError: If an array does not contain integers.
        ValueError: If there are no events, the arrays differ in length, or they contain invalid values.
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
    """Reads events from a NumPy file.

    Args:
        path: A `.npz` file of four arrays, or a `.npy` file of one structured array with four fields: x, y, polarity and
            timestamp, as in `Events`.

    Returns:
        `Events`.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If the file is damaged, has the wrong content or is too large.
    """
    wanted = f"It must hold {', '.join(FIELDS)}: four arrays in a .npz file, four fields of one array in a .npy file."
    check_size(path, pathlib.Path(path).stat().st_size)
    with open(path, "rb") as file:
        try:
            # Both a .npz file and a structured array are indexed by name.
            content = np.load(file, allow_pickle=False)
            if isinstance(content, np.lib.npyio.NpzFile):
                check_size(path, sum(content.zip.getinfo(f"{name}.npy").file_size for name in FIELDS if name in content.files))
            names = content.files if isinstance(content, np.lib.npyio.NpzFile) else content.dtype.names or ()
            missing = [name for name in FIELDS if name not in names]
            arrays = None if missing else {name: content[name] for name in FIELDS}
        except TooLargeError:
            raise
        # A damaged file fails in zipfile, zlib or NumPy, each with different errors.
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
    """Raises an error for a recording of more than `LARGEST_RECORDING` bytes, before it is read."""
    if size > LARGEST_RECORDING:
        raise TooLargeError(
            f"{path} must hold a recording of {LARGEST_RECORDING / 2**20:,.0f} MiB at most. It holds {size / 2**20:,.0f} MiB, "
            "unpacked. Cut it into shorter recordings, or leave it out."
        )


def frame_numbers_by_count(events, timesteps):
    """The frame of each event, from 0 to `timesteps - 1`, such that frames have equal numbers of events, up to one."""
    return np.arange(len(events.x)) * timesteps // len(events.x)


def frame_numbers_by_time(events, timesteps):
    """The frame of each event, from 0 to `timesteps - 1`, such that all frames have the same duration.

    The recording lasts from the start of the microsecond of its first event to the end of the microsecond of its last event.
    """
    # Differences of 64-bit integers are exact modulo 2**64, and all of them fit. Products with T might overflow.
    timestamps = events.timestamp.astype("uint64")
    elapsed = timestamps - timestamps[0]
    duration = int(elapsed[-1]) + 1
    starts = [-(-frame * duration // timesteps) for frame in range(1, timesteps)]
    return np.searchsorted(np.array(starts, "uint64"), elapsed, side="right")


FRAME_NUMBERS_BY = {"count": frame_numbers_by_count, "time": frame_numbers_by_time}


def count_events(events, frame_numbers, timesteps, sensor_shape):
    """Counts the events of each pixel in each frame.

    Args:
        events: `Events`.
        frame_numbers: The frame of each event.
        timesteps: The number of frames.
        sensor_shape: `(height, width)` in pixels.

    Returns:
        Integers `(timesteps, height, width, 2)`; the last axis is OFF, then ON.

    Raises:
        ValueError: If an event is outside the sensor.
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
    """Resizes frames. The count of an old pixel is distributed to new pixels in proportion to the overlapping area.

    No event is lost, and a scene of uniform activity stays uniform. (If event positions were rounded to the new grid instead,
    from 128 to 48 pixels, some new pixels would collect 2x2 old ones and others 3x3.)

    Args:
        frames: Array `(timesteps, height, width, channels)`.
        frame_shape: The new `(height, width)`.

    Returns:
        Array of float32 `(timesteps, *frame_shape, channels)` with the same sum.
    """
    rows, columns = (_shares(old, new) for old, new in zip(frames.shape[1:3], frame_shape, strict=True))
    return np.einsum("ah,bw,thwc->tabc", rows, columns, frames.astype("float32"), optimize=True)


def _shares(old, new):
    """Matrix `(new, old)`: the fraction of each of `old` pixels that lies in each of `new` pixels of the same total length."""
    edges = np.arange(new + 1)[:, np.newaxis] * (old / new)
    pixels = np.arange(old)
    overlap = np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels)
    return np.maximum(overlap, 0).astype("float32")


def event_frames(events, timesteps, split_by, sensor_shape, frame_shape):
    """Converts a recording to the frames that a network sees.

    Args:
        events: `Events`.
        timesteps: Integer >= 1, the number of frames.
        split_by: "count" for frames with equal numbers of events, "time" for frames of equal duration.
        sensor_shape: `(height, width)` of the camera in pixels.
        frame_shape: `(height, width)` of a frame.

    Returns:
        Array of float32 `(timesteps, *frame_shape, 2)`: event counts, OFF then ON; their sum is the number of events.

    Raises:
        TypeError: If `timesteps` is not an integer.
        ValueError: If `timesteps` or `split_by` is invalid, or an event is outside the sensor.
    """
    timesteps = checks.positive_integer("timesteps", timesteps, advice="It is the number of frames.")
    frame_numbers = FRAME_NUMBERS_BY[checks.one_of("split_by", split_by, FRAME_NUMBERS_BY)](events, timesteps)
    return resize(count_events(events, frame_numbers, timesteps, sensor_shape), frame_shape)
