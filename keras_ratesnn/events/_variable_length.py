"""Rows of unequal length in an HDF5 file, without trust in what the file declares.

HDF5 reserves and fills as much memory as a row declares, up to gigabytes, before it
looks whether the row is there, and reads wrong memory if a row is damaged in some ways.
So it is only asked where the dataset is stored, and the rows are read from the bytes of
the file. A row is stored as its length, the address of a heap, and the number of the
object in it that has the values.

Source: "HDF5 File Format Specification", version 3.0, sections III.E and VIII.
"""

import os
import struct
import zlib

import numpy as np

from keras_ratesnn._core import hdf5

_STORED = struct.Struct("<IQI")
_GZIP, _SHUFFLE = 1, 2


class Rows:
    """The rows of a dataset.

    Args:
        what: String, what the dataset is, for messages.
        dataset: A `h5py.Dataset` of one dimension whose rows are numbers or texts. Its
            pieces, chunks of HDF5, have as few rows as memory can hold.
        dtype: The dtype of a value of a row.
        file: Its file, open for reading bytes.

    Raises:
        ValueError: If the dataset has another form, or is stored in a way that is not
            trusted.
    """

    def __init__(self, what, dataset, dtype, file):
        hdf5.check_stored(dataset, what)
        self._dataset, self._dtype, self._file = dataset, dtype, file
        self._filters = hdf5.filters_of(dataset)
        self._size = os.fstat(file.fileno()).st_size
        self._piece = (-1, b"")
        self._heap: tuple[int, dict[int, tuple[int, int]]] = (-1, {})

    def __len__(self):
        return self._dataset.shape[0]

    def read(self, row, longest):
        """A row as an array; raises ValueError if it declares more than `longest`
        values, or is not there."""
        length, address, number = _STORED.unpack(self._stored(row))
        if length > longest:
            raise ValueError(
                f"declares {length} values in row {row}, more than the file explains, "
                f"{longest}"
            )
        if length == 0:
            return np.empty(0, self._dtype)
        if self._heap[0] != address:
            self._heap = (address, self._objects(address))
        start, size = self._heap[1].get(number, (0, 0))
        if size != length * self._dtype.itemsize:
            raise ValueError(
                f"declares {length} values in row {row}, but {size} bytes are stored"
            )
        return np.frombuffer(self._bytes(start, size), self._dtype)

    def _objects(self, address):
        """Where the objects of a heap are, and their sizes, by their numbers."""
        signature, size = hdf5.HEAP.unpack(self._bytes(address, hdf5.HEAP.size))
        if signature != hdf5.HEAP_SIGNATURE:
            raise ValueError(f"has no values at byte {address}")
        objects: dict[int, tuple[int, int]] = {}
        for number, place, length_in_heap in hdf5.heap_objects(
            self._bytes, address, address + size
        ):
            # The free space at the end has the number 0. No number is there twice, so
            # there are not more than 65535.
            if number == 0 or number in objects:
                break
            objects[number] = place, length_in_heap
        return objects

    def _stored(self, row):
        """The row as it is stored."""
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
        # A piece that would not become smaller skips a filter, whose bit in the mask is
        # then set.
        applied = [
            number
            for bit, number in enumerate(self._filters)
            if not piece.filter_mask >> bit & 1
        ]
        for number in reversed(applied):
            if number == _GZIP:
                try:
                    content = zlib.decompressobj().decompress(content, size)
                except zlib.error as error:
                    raise ValueError(
                        f"has a damaged piece at row {row} ({error})"
                    ) from error
            elif number == _SHUFFLE:
                content = (
                    np.frombuffer(content[:size], "uint8")
                    .reshape(_STORED.size, -1)
                    .T.tobytes()
                )
            else:
                raise ValueError(
                    f"is stored with the filters {self._filters}; rows may have gzip "
                    "and shuffle"
                )
        if len(content) != size:
            raise ValueError(
                f"has a piece of {len(content)} bytes at row {row}, not of {size}"
            )
        return content

    def _bytes(self, start, size):
        # Before it is read: memory is reserved for all of it.
        if start + size > self._size:
            raise ValueError(f"is stored behind the end of the file, at byte {start}")
        self._file.seek(start)
        return self._file.read(size)
