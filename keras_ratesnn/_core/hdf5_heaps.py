"""Checks what HDF5 itself does not: texts are stored in heaps, and HDF5 does not end reading a heap with an object of no size.

A heap is a signature, its size, and objects one after another, each of an index, a count, its size and its bytes. Object 0 is
the free space at the end, and its size includes its header.

Source: "HDF5 File Format Specification", version 3.0, sections II and III.E.
"""

import mmap
import re
import struct

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_HEAP = re.compile(re.escape(b"GCOL\x01\x00\x00\x00"))
_BEFORE_OBJECTS = 16
_HEADER = struct.Struct("<HHIQ")


def why_unreadable(file):
    """Why a file cannot be left to HDF5; an empty string if it can.

    Args:
        file: A file that is open for reading bytes.
    """
    begin = file.read(16)
    if not begin.startswith(_SIGNATURE) or len(begin) < 16:
        return "it does not begin as an HDF5 file does."
    # The bytes of addresses and of sizes; heaps are read by them.
    sizes = begin[13:15] if begin[8] < 2 else begin[9:11]
    if tuple(sizes) != (8, 8):
        return f"its addresses and sizes have {tuple(sizes)} bytes instead of 8."
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for found in _HEAP.finditer(content):
            if not _ends(content, found.start()):
                return "it is damaged: an object of a heap has no size."
    return ""


def _ends(content, start):
    """Whether the objects of a heap lead to its end."""
    (size,) = struct.unpack_from("<Q", content, start + 8) if start + _BEFORE_OBJECTS <= len(content) else (0,)
    place, end = start + _BEFORE_OBJECTS, min(start + size, len(content))
    while place + _HEADER.size <= end:
        index, _, _, size = _HEADER.unpack_from(content, place)
        step = size if index == 0 else _HEADER.size + -(-size // 8) * 8
        if step == 0:
            return False
        place += step
    return True
