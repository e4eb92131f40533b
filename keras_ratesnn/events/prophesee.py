"""Reader of `.dat` files of Prophesee's cameras, the format of Gen1 and 1 Mpx.

First lines of text that start with "% ", then two bytes, the type and the size of an
event; without such lines there are no such bytes either. An event has eight bytes,
least significant first: four for the time in microseconds; then bits 0 to 13 are x,
bits 14 to 27 y, and bit 28 is the polarity.
"""

import bisect
import os

import numpy as np

from keras_ratesnn._core import checks
from keras_ratesnn.events._file_content import EventFile
from keras_ratesnn.events.recording import Events, check_size, recording_of

EVENT = np.dtype([("time", "<u4"), ("data", "<u4")])
PIXEL_EVENTS = (0, 12)
"""Types of events of this form: those of older files, and changes of contrast."""

LONGEST_HEADER = 2**16


def read_prophesee(
    path: str | os.PathLike[str], start: int = 0, end: int | None = None
) -> Events:
    """Reads the events of a `.dat` file of a Prophesee camera, such as those of the
    data sets Gen1 and 1 Mpx.

    Such files may have gigabytes. Only the part from `start` to `end` is read.

    Args:
        path: The file.
        start: Integer >= 0, the first time in microseconds. Defaults to `0`.
        end: Integer > `start`: only earlier events are read. Defaults to `None`, the
            whole rest.

    Returns:
        `Events`. The sensor has 304x240 pixels in Gen1, and 1280x720 in 1 Mpx.

    Raises:
        TypeError: If `path` is neither a string nor a path, or a time not an integer.
        OSError: If the file cannot be read.
        ValueError: If a time is out of range, the part is too large or has no events,
            or the file is damaged, of another version or type, or its times run
            backwards.

    Source: Prophesee's automotive dataset toolbox.
    """
    file = EventFile(path, ".dat file of version 2")
    start = checks.integer("start", start, advice="It is a time in microseconds.")
    end = (
        2**32
        if end is None
        else checks.integer("end", end, advice="None reads the whole rest.")
    )
    if not 0 <= start < end:
        raise ValueError(
            f"`start` must be 0 or more and before `end`. Received: start={start}, "
            f"end={end}."
        )
    place = _header_bytes(file)
    file.check_events(place, EVENT.itemsize)
    if file.size == place:
        raise file.damaged(place, "the header ends there, and no events follow")
    every = np.memmap(file.path, EVENT, "r", place)
    times = every["time"]
    # Only the few times that a bisection looks at are read.
    first, last = (bisect.bisect_left(times, time) for time in (start, end))
    if first >= last:
        raise ValueError(
            f"{file.path} must have events from {start} to {end} microseconds. Its "
            f"times are from {times[0]} to {times[-1]}."
        )
    check_size(file.path, (last - first) * EVENT.itemsize)
    part = np.array(every[first:last])
    data = part["data"]
    x, y, polarity = data & 0x3FFF, data >> 14 & 0x3FFF, data >> 28 & 1
    arrays = (
        x.astype("uint16"),
        y.astype("uint16"),
        polarity.astype("uint8"),
        part["time"].astype("int64"),
    )
    return recording_of(file.path, *arrays)


def _header_bytes(file):
    """The number of bytes before the events; raises ValueError for another version or
    type."""
    with open(file.path, "rb") as opened:
        begin = opened.read(LONGEST_HEADER)
    place = 0
    for start, after, line in file.header_lines(begin, b"% "):
        words = line.split()
        if words[1:2] == [b"Version"] and words[2:] != [b"2"]:
            raise file.damaged(
                start, f"the version must be 2. The line is {line[:40]!r}"
            )
        place = after
    if place == 0:
        return 0
    if place + 2 > file.size:
        raise file.damaged(
            place,
            "the type and the size of an event must follow the header, and the file "
            "ends",
        )
    kind, event_bytes = begin[place : place + 2]
    if kind not in PIXEL_EVENTS or event_bytes != EVENT.itemsize:
        raise file.damaged(
            place,
            f"events must be of type 0 or 12 and 8 bytes. They are of type {kind}, "
            f"{event_bytes} bytes",
        )
    return place + 2
