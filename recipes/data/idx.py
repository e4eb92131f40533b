"""Reader for IDX files, the format of MNIST and similar data sets.

byte 0, 1   zero
byte 2      type of the values; 8: unsigned bytes, the only type supported here
byte 3      number of dimensions
then        the size of each dimension, four bytes each, most significant first
then        the values, the last dimension running fastest
"""

import gzip
import math
import pathlib
import zlib

import numpy as np

UNSIGNED_BYTES = 8
GZIP_SIGNATURE = b"\x1f\x8b"


def read_idx(path):
    """Reads the array in an IDX file, plain or compressed with gzip.

    Args:
        path: The file. Its first bytes, not its name, determine whether it is
            compressed.

    Returns:
        An array of unsigned bytes.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is not a complete IDX file.
    """
    content = _decompressed(path, pathlib.Path(path).read_bytes())
    if len(content) < 4:
        raise _damaged(
            path, f"it has {len(content)} bytes, and the header alone takes 4 and more"
        )
    if content[:2] != b"\0\0":
        raise _damaged(
            path,
            f"it starts with the bytes {content[:2].hex(' ')}, and an IDX file starts "
            "with 00 00",
        )
    value_type, dimensions = content[2], content[3]
    if value_type != UNSIGNED_BYTES:
        raise _damaged(
            path,
            f"its values are of type {value_type}, and only unsigned bytes, type "
            f"{UNSIGNED_BYTES}, are read",
        )
    header = 4 + 4 * dimensions
    if len(content) < header:
        raise _damaged(
            path,
            f"it has {len(content)} bytes, and the header of {dimensions} dimensions "
            f"takes {header}",
        )
    shape = tuple(np.frombuffer(content, ">u4", count=dimensions, offset=4).tolist())
    expected = header + math.prod(shape)
    if len(content) != expected:
        promised = (
            f"its header promises an array of shape {shape}, {expected} bytes in all"
        )
        raise _damaged(path, f"{promised}, and it has {len(content)}")
    return np.frombuffer(content, "uint8", offset=header).reshape(shape)


def _decompressed(path, content):
    if not content.startswith(GZIP_SIGNATURE):
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, OSError, zlib.error) as error:
        raise _damaged(path, f"gzip cannot decompress it: {error}") from error


def _damaged(path, what):
    return ValueError(f"{path} is not a whole IDX file: {what}. Download it again.")
