"""Reader for IDX files, the format of MNIST and similar data sets.

byte 0, 1   zero
byte 2      type of the values; 8: unsigned bytes, the only type supported here
byte 3      number of dimensions
then        the size of each dimension, four bytes each, most significant first
then        the values, the last dimension running fastest
"""

import gzip
import pathlib
import zlib

import numpy as np

UNSIGNED_BYTES = bytes([0, 0, 8])
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
    content = pathlib.Path(path).read_bytes()
    try:
        if content.startswith(GZIP_SIGNATURE):
            content = gzip.decompress(content)
        if not content.startswith(UNSIGNED_BYTES):
            raise ValueError(f"it starts with the bytes {content[:3].hex(' ')}")
        dimensions = content[3]
        shape = np.frombuffer(content, ">u4", count=dimensions, offset=4)
        values = np.frombuffer(content, "uint8", offset=4 + shape.nbytes)
        return values.reshape(shape)
    # gzip's depends on where the file is damaged.
    except (ValueError, IndexError, EOFError, OSError, zlib.error) as error:
        raise ValueError(
            f"{path} is not a whole IDX file of unsigned bytes: {error}. Download it "
            "again."
        ) from error
