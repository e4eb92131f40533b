"""Rows of unequal length in an HDF5 file, without trust in the lengths that the file declares.

HDF5 reserves and fills as much memory as a row declares, up to gigabytes, before it looks whether the row is there. A row is
stored as its length (four bytes), and where its values are (twelve). So the length is read first, from the bytes of the file.

Source: "HDF5 File Format Specification", version 3.0, section VIII.
"""

import struct
import zlib

import numpy as np

from keras_ratesnn._core.hdf5_storage import filters_of, why_untrusted

_STORED = struct.Struct("<IQI")
_GZIP, _SHUFFLE = 1, 2


class Rows:
    """The rows of a dataset.

    Args:
        dataset: A `h5py.Dataset` of one dimension whose rows are numbers or texts. A piece has as few rows as memory can hold.
        file: Its file, open for reading bytes.

    Raises:
        ValueError: If the dataset is another or is stored in a way that is not trusted; the message is the end of a sentence.
    """

    def __init__(self, dataset, file):
        reason = why_untrusted(dataset)
        if dataset.ndim != 1:
            reason = f"must have one dimension. Its shape is {dataset.shape}"
        if reason:
            raise ValueError(reason)
        self._dataset, self._file = dataset, file
        self._filters = filters_of(dataset)
        self._piece = (-1, b"")

    def __len__(self):
        return self._dataset.shape[0]

    def read(self, row, longest):
        """A row; raises ValueError if it declares more than `longest` values."""
        (length, _, _) = _STORED.unpack(self._stored(row))
        if length > longest:
            raise ValueError(f"declares {length} values in row {row}, more than the file explains, {longest}")
        return self._dataset[row]

    def _stored(self, row):
        """What is stored in place of a row."""
        if self._dataset.chunks is None:
            start = self._dataset.id.get_offset()
            if start is None:
                raise ValueError("is stored within its header, or not at all")
            return self._bytes(start + row * _STORED.size, _STORED.size)
        rows = self._dataset.chunks[0]
        number, place = divmod(row, rows)
        if self._piece[0] != number:
            self._piece = (number, self._unpacked(number * rows, rows * _STORED.size))
        return self._piece[1][place * _STORED.size :][: _STORED.size]

    def _unpacked(self, row, size):
        """The bytes of the piece that begins at a row."""
        piece = self._dataset.id.get_chunk_info_by_coord((row,))
        if piece.byte_offset is None or piece.size > 2 * size + 2**10:
            raise ValueError(f"has no usual piece at row {row}")
        content = self._bytes(piece.byte_offset, piece.size)
        # A piece that would not become smaller skips a filter, whose bit in the mask is then set.
        applied = [number for bit, number in enumerate(self._filters) if not piece.filter_mask >> bit & 1]
        for number in reversed(applied):
            if number == _GZIP:
                try:
                    content = zlib.decompressobj().decompress(content, size)
                except zlib.error as error:
                    raise ValueError(f"has a damaged piece at row {row} ({error})") from error
            elif number == _SHUFFLE:
                content = np.frombuffer(content[:size], "uint8").reshape(_STORED.size, -1).T.tobytes()
            else:
                raise ValueError(f"is stored with the filters {self._filters}; rows may have gzip and shuffle")
        if len(content) != size:
            raise ValueError(f"has a piece of {len(content)} bytes at row {row}, not of {size}")
        return content

    def _bytes(self, start, size):
        self._file.seek(start)
        content = self._file.read(size)
        if len(content) != size:
            raise ValueError(f"is stored behind the end of the file, at byte {start}")
        return content
