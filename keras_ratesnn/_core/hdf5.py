"""Checks what HDF5 itself does not, for files that are not trusted: a few bytes can
declare terabytes, or refer to other files.

Texts and rows of unequal length are stored in heaps. A heap is a signature, its size,
and objects one after another, each of an index, a count, its size and its bytes. Object
0 is the free space at the end, and its size includes its header.

Source: "HDF5 File Format Specification", version 3.0, sections II and III.E.
"""

import mmap
import re
import struct

DAMAGES = (
    OSError,
    RuntimeError,
    KeyError,
    ValueError,
    TypeError,
    AttributeError,
    OverflowError,
)
"""Errors that h5py raises about damaged files."""

HEAP_SIGNATURE = b"GCOL\x01\x00\x00\x00"
HEAP = struct.Struct("<8sQ")
"""The beginning of a heap: the signature and its size."""

_HEAPS = re.compile(re.escape(HEAP_SIGNATURE))
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_OBJECT = struct.Struct("<HHIQ")
_MOST_COMPRESSED = 2000
"""Bytes that a byte of a file can stand for; gzip reaches 1032."""
_FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32", 32000: "lzf"}
"""The filters of usual files. HDF5 would look for a plugin, which is code, for those
that it does not know."""
_PACKING = (1, 32000)


class UntrustedError(ValueError):
    """A file that should not be read."""


def check_content(file):
    """Raises UntrustedError if a file cannot be left to HDF5, which does not end
    reading a heap with an object of no size.

    Args:
        file: A file that is open for reading bytes.
    """
    begin = file.read(16)
    if not begin.startswith(_SIGNATURE) or len(begin) < 16:
        raise UntrustedError("it does not begin as an HDF5 file does.")
    # The bytes of addresses and of sizes; heaps are read by them.
    sizes = begin[13:15] if begin[8] < 2 else begin[9:11]
    if tuple(sizes) != (8, 8):
        raise UntrustedError(
            f"its addresses and sizes have {tuple(sizes)} bytes instead of 8."
        )
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for start in [match.start() for match in _HEAPS.finditer(content)]:
            _, size = (
                HEAP.unpack_from(content, start)
                if start + HEAP.size <= len(content)
                else (b"", 0)
            )
            for _ in heap_objects(
                lambda place, size: content[place : place + size],
                start,
                min(start + size, len(content)),
            ):
                pass


def heap_objects(read, start, end):
    """Yields `(index, place, size)` of each object of a heap.

    Args:
        read: Function `(place, size)` that returns bytes of the file.
        start: Integer, where the heap begins.
        end: Integer, where it ends.

    Raises:
        UntrustedError: If the objects do not lead to the end.
    """
    place = start + HEAP.size
    while place + _OBJECT.size <= end:
        index, _, _, size = _OBJECT.unpack(read(place, _OBJECT.size))
        yield index, place + _OBJECT.size, size
        step = size if index == 0 else _OBJECT.size + -(-size // 8) * 8
        if step == 0:
            raise UntrustedError("it is damaged: an object of a heap has no size.")
        place += step


def filters_of(dataset):
    """The numbers of the filters of a `h5py.Dataset`, in the order in which they were
    applied."""
    creation = dataset.id.get_create_plist()
    return [creation.get_filter(i)[0] for i in range(creation.get_nfilters())]


def check_stored(dataset, what):
    """Raises UntrustedError for a `h5py.Dataset` that is not stored in this file, or
    not as it declares; the error names it by `what`."""
    if dataset.is_virtual or dataset.external:
        raise UntrustedError(f"{what} is stored in another file.")
    filters = filters_of(dataset)
    packing = [number for number in filters if number in _PACKING]
    if len(packing) > 1 or any(number not in _FILTERS for number in filters):
        usual = f"usual files have {', '.join(_FILTERS.values())}, and compress once"
        raise UntrustedError(f"{what} is stored with the filters {filters}; {usual}.")
    if dataset.nbytes > dataset.id.get_storage_size() * (
        _MOST_COMPRESSED if packing else 1
    ):
        raise UntrustedError(
            f"{what} has the shape {dataset.shape}, more than the file contains."
        )
