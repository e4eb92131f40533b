"""The frames of recordings, computed once and stored in the data folder.

Beside the `.npy` file a `.json` file describes the source of the frames. If a recording
has changed or the file is damaged, the frames are computed again.
"""

import hashlib
import io
import json
import os

import numpy as np

from recipes.atomic_files import writing

FRAMES_VERSION = 1
"""Increase this when the same recordings give different frames, so that stored frames
are not used."""


ADVICE = (
    "If the data folder is not writable, pass with --data-dir another one with "
    "links to what is in it."
)


def stored(path, sources, shape, frames):
    """Frames of recordings, memory-mapped from a file that is created first if it is
    missing or damaged.

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
    if not _is_whole(path, origin_path, origin):
        print(
            f"counting the events of {shape[0]:,} recordings into {path}; later runs "
            "read that file",
            flush=True,
        )
        write(path, _file(shape, frames))
        write(origin_path, [json.dumps({**origin, "sha256": _checksum(path)}).encode()])
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
    """Describes the source of the frames; frames from another source are stale."""
    stats = [path.stat() for path in sources]
    recordings = [
        [path.relative_to(folder).as_posix(), stat.st_size, stat.st_mtime_ns]
        for path, stat in zip(sources, stats, strict=True)
    ]
    return {"version": FRAMES_VERSION, "recordings": recordings}


def _is_whole(path, origin_path, origin):
    """Whether a file of frames exists, belongs to `origin` and is undamaged."""
    try:
        return json.loads(origin_path.read_bytes()) == {
            **origin,
            "sha256": _checksum(path),
        }
    except (FileNotFoundError, ValueError):
        return False


def _checksum(path):
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _file(shape, frames):
    """The bytes of a `.npy` file, one recording at a time."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": shape}
    )
    yield header.getvalue()
    for of_recording in frames:
        yield of_recording.astype("<f4").tobytes()


def write(path, blocks):
    """Writes blocks of bytes to a file atomically, so that a killed run leaves no
    incomplete file."""
    # Several processes may count the same events.
    with (
        writing(path, f"{path.name}.{os.getpid()}.part", ADVICE) as part,
        part.open("wb") as file,
    ):
        for block in blocks:
            file.write(block)
