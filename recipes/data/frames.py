"""Frames of recordings, which are computed once and stored in the data folder.

Beside the `.npy` file of the frames a `.json` file describes their source. If a
recording has changed, the frames are computed again.
"""

import json
import os

import numpy as np

from keras_ratesnn.events import event_frames
from recipes.atomic_files import writing

FRAMES_VERSION = 1
"""Increase this when the same recordings give different frames, so that stored frames
are not used."""

WRITING_ADVICE = (
    "If the data folder is not writable, pass with --data-dir another one with links "
    "to what is in it."
)


def stored_frames(name, folder, readers, count, how, sources=None):
    """The frames of the recordings of a data set, stored in their folder, as `stored`.

    Args:
        name: String, the name of the data set.
        folder: Path.
        readers: Dictionary from the files of recordings to functions of a file that
            return its events, or a list of pairs of a class and events.
        count: Integer, the number of recordings.
        how: The arguments of `event_frames` besides the events: `(timesteps, split_by,
            sensor_shape, frame_shape)`.
        sources: The files that the frames depend on. Defaults to `None`, those of
            recordings.
    """
    timesteps, kind, _, frame_shape = how
    path = folder / f"frames_{timesteps}_by_{kind}.npy"
    shape = (count, timesteps, *frame_shape, 2)
    frames = _frames(name, readers, how)
    return stored(path, sources or list(readers), shape, frames)


def _frames(name, readers, how):
    """Yields the frames of each recording."""
    for path, reader in readers.items():
        recordings = read(reader, path)
        if not isinstance(recordings, list):
            recordings = [(None, recordings)]
        for _, events in recordings:
            try:
                frames = event_frames(events, *how)
            except ValueError as error:
                raise ValueError(
                    f"{path} is not a recording of {name}. {error}"
                ) from error
            yield frames


def stored(path, sources, shape, frames):
    """Frames of recordings, memory-mapped from a file that is created first if it is
    missing or of other recordings.

    Args:
        path: The `.npy` file, in the data folder.
        sources: The files that the frames depend on.
        shape: Tuple, that of the frames of all recordings.
        frames: Iterable of the frames of each recording, used only if the file is
            created.

    Returns:
        Array of float32.

    Raises:
        OSError: If the file cannot be written.
    """
    origin_path = path.with_suffix(".json")
    origin = _origin(path.parent, sources)
    is_current = origin_path.exists() and origin_path.read_text() == origin
    if not (is_current and path.exists()):
        print(
            f"counting the events of {shape[0]:,} recordings into {path}; later runs "
            "read that file",
            flush=True,
        )
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        with writing_data(path) as part, part.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for recording in frames:
                file.write(recording.astype("<f4").tobytes())
        with writing_data(origin_path) as part:
            part.write_text(origin)
    # Changes to the array stay in memory. The plain array shares this memory.
    return np.asarray(np.load(path, mmap_mode="c"))


def read(reader, path):
    """`reader(path)`; an error of the system is one about the recording."""
    try:
        return reader(path)
    except OSError as error:
        # An OSError would be mistaken for one about the file being written.
        raise ValueError(
            f"The recording {path} cannot be read ({error.strerror or error})."
        ) from error


def _origin(folder, sources):
    """Describes the source of the frames, as text; frames from another source are
    stale."""
    recordings = []
    for path in sources:
        stat = path.stat()
        name = path.relative_to(folder).as_posix()
        recordings.append([name, stat.st_size, stat.st_mtime_ns])
    return json.dumps({"version": FRAMES_VERSION, "recordings": recordings})


def writing_data(path):
    """`atomic_files.writing` of a file in the data folder."""
    # Several processes may count the same events.
    return writing(path, f"{path.name}.{os.getpid()}.part", WRITING_ADVICE)
