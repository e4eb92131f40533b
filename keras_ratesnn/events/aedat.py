r"""Reader and writer for AEDAT 2.0 files of the DVS128 camera, the format of
CIFAR10-DVS.

    header      lines of text that start with # and end with \n (usually \r\n); the
                first is #!AER-DAT2.0
    then        events of eight bytes: an address and a timestamp in microseconds, four
                bytes each, most significant first

An address of the DVS128:

    bit 0       0: the pixel became brighter (ON), 1: it became darker (OFF)
    bit 1-7     x in sensor coordinates
    bit 8-14    y in sensor coordinates
    bit 15      a signal at the camera's input instead of a pixel event; likewise bit
                31, which jAER sets for special events

Orientation. jAER, the program of the camera's makers, shows an event in column 127 - x
and row y from the bottom, and interprets bit 0 as above (iniVation's description of the
format has the two values reversed). SpikingJelly, which is widely used for CIFAR10-DVS,
also swaps the axes: column 127 - y, row 127 - x from the top, and polarity as in jAER.
This reader uses SpikingJelly's formulas, so that frames are comparable. (Tonic reads
another edition of the data, in AEDAT 4, without changes.)

Timestamps wrap from 2**32 - 1 microseconds (71 minutes) to 0, and a reader of signed
integers sees a jump from 2**31 - 1 to -2**31. Each timestamp is therefore read as a
difference to the previous one, of less than 2**31 microseconds forwards; larger
differences are steps backwards.
"""

import os

import numpy as np

from keras_ratesnn._core import checks, whole_files
from keras_ratesnn.events._file_content import EventFile
from keras_ratesnn.events.recording import ADVICE, Events

SENSOR_SHAPE = (128, 128)
LARGEST_COORDINATE = 127

VERSION_LINE = b"#!AER-DAT2.0"
EVENT_BYTES = 8
TIMESTAMP_OFFSET = 4
"""Offset of the timestamp in the bytes of an event."""

NOT_A_PIXEL = 1 << 31 | 1 << 15
PIXEL_ADDRESSES = 1 << 15


def read_aedat(path: str | os.PathLike[str]) -> Events:
    """Reads the pixel events of an AEDAT 2.0 file of the DVS128 camera. Special events
    are left out.

    Args:
        path: The file.

    Returns:
        `Events` of a sensor of 128x128 pixels, with unwrapped timestamps.

    Raises:
        TypeError: If `path` is neither a string nor a path.
        OSError: If the file cannot be read.
        ValueError: If the file is too large or damaged, or has another format or
            camera; the message names the byte position.
    """
    file = EventFile(path, "AEDAT 2.0 file of a DVS128")
    content = file.content()
    file.check_version(content, VERSION_LINE)
    # No event starts with #, which would not be the address of a pixel.
    start = max(after for _, after, _ in file.header_lines(content, b"#"))
    file.check_events(start, EVENT_BYTES)
    addresses, timestamps = (
        np.frombuffer(content, ">u4", offset=start).astype("uint32").reshape(-1, 2).T
    )
    pixels = np.flatnonzero(addresses & NOT_A_PIXEL == 0)
    if not len(pixels):
        raise file.damaged(
            start,
            f"the header ends there, and none of the {len(addresses)} events after it "
            "is of a pixel",
        )
    addresses, timestamps = addresses[pixels], timestamps[pixels]

    foreign = np.flatnonzero(addresses >= PIXEL_ADDRESSES)
    if len(foreign):
        what = (
            f"the address {addresses[foreign[0]]:#010x} has bits that a DVS128 does "
            "not use: this is of another camera"
        )
        raise file.damaged(start + EVENT_BYTES * pixels[foreign[0]], what)
    # Unsigned subtraction wraps like the camera's clock.
    steps = np.diff(timestamps).view("int32")
    backwards = np.flatnonzero(steps < 0)
    if len(backwards):
        event = backwards[0] + 1
        what = (
            f"the timestamp {timestamps[event]} runs backwards from "
            f"{timestamps[event - 1]}"
        )
        raise file.damaged(start + EVENT_BYTES * pixels[event] + TIMESTAMP_OFFSET, what)
    return Events(
        x=LARGEST_COORDINATE - (addresses >> 8).astype("int64"),
        y=LARGEST_COORDINATE - (addresses >> 1 & 127).astype("int64"),
        polarity=1 - (addresses & 1).astype("int64"),
        timestamp=int(timestamps[0])
        + np.concatenate([[0], np.cumsum(steps, dtype="int64")]),
    )


def write_aedat(path: str | os.PathLike[str], events: Events) -> None:
    """Writes a recording as an AEDAT 2.0 file of the DVS128 camera, which `read_aedat`
    reads.

    Example:

    >>> import tempfile
    >>> recording = keras_ratesnn.events.Events(
    ...     *np.array([[0, 5], [127, 6], [1, 0], [30, 40]])
    ... )
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_aedat(f"{folder}/recording.aedat", recording)
    ...     print(keras_ratesnn.events.read_aedat(f"{folder}/recording.aedat").x)
    [0 5]

    Args:
        path: The file. An existing file is replaced.
        events: `Events` of a sensor of 128x128 pixels. Timestamps are written modulo
            2**32 microseconds, as the camera's clock.

    Raises:
        TypeError: If `path` is neither a string nor a path, or `events` are not
            `Events`.
        OSError: If the file cannot be written.
        ValueError: If an event is outside the sensor, or later than the one before by
            2**31 microseconds or more.
    """
    path = checks.file_to_write("path", path)
    checks.instance("events", events, Events, advice=ADVICE)
    largest = max(int(events.x.max()), int(events.y.max()))
    if largest > LARGEST_COORDINATE:
        raise ValueError(
            "`events` must be of a sensor of 128x128 pixels. Received: the coordinate "
            f"{largest}."
        )
    timestamps = events.timestamp.astype("int64")
    if (np.diff(timestamps) >= 2**31).any():
        raise ValueError(
            "`events` must not pause for 2**31 microseconds or more, which the file "
            "cannot say."
        )
    x, y, polarity = (
        getattr(events, name).astype("int64") for name in ("x", "y", "polarity")
    )
    addresses = (
        (LARGEST_COORDINATE - x) << 8 | (LARGEST_COORDINATE - y) << 1 | 1 - polarity
    )
    content = np.stack([addresses, timestamps % 2**32], axis=1).astype(">u4").tobytes()
    content = VERSION_LINE + b"\r\n# Timestamps tick is 1 us\r\n" + content
    whole_files.replace(path, lambda part: part.write_bytes(content))
