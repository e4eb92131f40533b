r"""Reader of AEDAT 3.1 files, the format of DVS128 Gesture.

    header      lines of text that start with # and end with \r\n, from #!AER-DAT3.1
                to #!END-HEADER
    then        packets, all numbers least significant byte first: a header of 28
                bytes, and as many events as its capacity says

The header of a packet: type and source, two bytes each; the size of an event, the place
of its time in it, the overflows of the clock, capacity, number of events and number of
valid events, four bytes each. An event of a pixel (type 1) has eight bytes: bit 0 of
the first four says whether it is valid, bit 1 its polarity, bits 2 to 16 are y and bits
17 to 31 x; the last four are the time in microseconds, of which 2**31 are one overflow.
Packets of other types, and events that are not valid, are left out (SpikingJelly keeps
the latter). The origin is the upper left.
"""

import os
import struct

import numpy as np

from keras_ratesnn.events._file_content import EventFile
from keras_ratesnn.events.recording import Events, recording_of

VERSION_LINE = b"#!AER-DAT3.1"
END_LINE = b"#!END-HEADER"
FORMAT = b"#Format:"
PACKET_HEADER = struct.Struct("<HHIIIIII")
PIXEL_EVENTS = 1
EVENT_BYTES = 8
TIME_OFFSET = 4


def read_aedat3(path: str | os.PathLike[str]) -> Events:
    """Reads the valid pixel events of an AEDAT 3.1 file, such as those of DVS128
    Gesture.

    Args:
        path: The file.

    Returns:
        `Events`. The sensor of DVS128 Gesture has 128x128 pixels.

    Raises:
        TypeError: If `path` is neither a string nor a path.
        OSError: If the file cannot be read.
        ValueError: If the file is too large or damaged, has another version or format,
            or its times run backwards; the message names the byte position.

    Source: "AEDAT file formats", iniVation's documentation.
    """
    file = EventFile(path, "AEDAT 3.1 file")
    content = file.content()
    pieces = list(_packets(file, content, _header_bytes(file, content)))
    if not pieces:
        raise file.damaged(
            len(content),
            "the file ends there, and none of its packets holds a valid event of a "
            "pixel",
        )
    data, timestamp = (np.concatenate(parts) for parts in zip(*pieces, strict=True))
    x, y, polarity = data >> 17, data >> 2 & 0x7FFF, data >> 1 & 1
    return recording_of(
        file.path,
        x.astype("uint16"),
        y.astype("uint16"),
        polarity.astype("uint8"),
        timestamp,
    )


def _packets(file, content, place):
    """The valid events of each packet of pixels: their data and their times."""
    while place < len(content):
        if place + PACKET_HEADER.size > len(content):
            what = (
                f"the header of a packet takes {PACKET_HEADER.size} bytes, and the "
                f"file ends after {len(content) - place}"
            )
            raise file.damaged(place, what)
        kind, _, size, time_offset, overflow, capacity, number, _ = (
            PACKET_HEADER.unpack_from(content, place)
        )
        start = place + PACKET_HEADER.size
        end = start + capacity * size
        if end > len(content):
            what = (
                f"a packet of {capacity} events of {size} bytes begins there, and "
                f"the file ends after {len(content) - place}"
            )
            raise file.damaged(place, what)
        if number > capacity:
            raise file.damaged(
                place,
                f"a packet of {capacity} events begins there, which says that it holds "
                f"{number}",
            )
        if kind == PIXEL_EVENTS:
            if (size, time_offset) != (EVENT_BYTES, TIME_OFFSET):
                what = (
                    f"a packet of pixels has events of {size} bytes with the time "
                    f"at {time_offset}, not of 8 with it at 4"
                )
                raise file.damaged(place, what)
            data, time = (
                np.frombuffer(content, "<u4", 2 * number, start).reshape(-1, 2).T
            )
            valid = data & 1 == 1
            if valid.any():
                yield data[valid], time[valid].astype("int64") + (overflow << 31)
        place = end


def _header_bytes(file, content):
    """The number of bytes of the header; raises ValueError if there is none."""
    file.check_version(content, VERSION_LINE)
    after = 0
    for start, after, line in file.header_lines(content, b"#"):
        if line.startswith(FORMAT) and line.removeprefix(FORMAT).strip() != b"RAW":
            raise file.damaged(
                start, f"the format must be RAW. The line is {line[:40]!r}"
            )
        if line == END_LINE:
            return after
    raise file.damaged(after, f"the header must end with the line {END_LINE.decode()}")
