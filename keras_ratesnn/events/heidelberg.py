"""Reader of the Heidelberg data sets of spoken words: Heidelberg Digits (SHD) and
Speech Commands (SSC), in HDF5 files.

`spikes/times` and `spikes/units` have a row for each recording: times in seconds, and
which of 700 channels of the ear spiked. `labels` are the classes, whose names are
`extra/keys`; `extra/speaker` are the speakers, in SHD.
"""

import os
from types import TracebackType
from typing import Any, Self

import numpy as np

from keras_ratesnn._core import checks, hdf5
from keras_ratesnn.events._variable_length import Rows
from keras_ratesnn.events.recording import LARGEST_RECORDING, Events

UNITS = 700
SENSOR_SHAPE = (1, UNITS)
BYTES_OF_AN_EVENT = 32
MOST_RECORDINGS = 2**22
MOST_CLASSES = 2**12
LONGEST_NAME = 256
LONGEST_TIME = 2**20
"""The longest time of a spike, in seconds."""


class HeidelbergFile:
    """A file of Heidelberg Digits (SHD) or Speech Commands (SSC): a sequence of
    recordings, each read when it is asked for.

    A recording is `Events` with a row for each spike: `x` is the channel, from 0 to
    699, `y` is 0, `polarity` 1. So it has a sensor of shape `(1, 700)`. Use the file in
    a `with` statement, or close it.

    Example:

    >>> import h5py, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with h5py.File(f"{folder}/shd_test.h5", "w") as made:
    ...         rows = made.create_dataset(
    ...             "spikes/times", 1, h5py.vlen_dtype("float16")
    ...         )
    ...         rows[0] = np.array([0.25, 0.5], "float16")
    ...         rows = made.create_dataset("spikes/units", 1, h5py.vlen_dtype("uint16"))
    ...         rows[0] = np.array([7, 699], "uint16")
    ...         made["labels"] = np.array([1])
    ...         made["extra/keys"] = np.array([b"null", b"eins"])
    ...     with keras_ratesnn.events.HeidelbergFile(
    ...         f"{folder}/shd_test.h5"
    ...     ) as recordings:
    ...         events = recordings[0]
    ...         print(
    ...             len(recordings),
    ...             recordings.class_names[recordings.labels[0]],
    ...             events.x,
    ...             events.timestamp,
    ...         )
    1 eins [  7 699] [250000 500000]

    Args:
        path: The `.h5` file, unpacked.

    Attributes:
        labels: Array of integers, the class of each recording.
        class_names: Tuple of strings, the names of the classes in the order of the
            labels; `None` if the file has none.
        speakers: Array of integers, the speaker of each recording; `None` if the file
            has none.

    Raises:
        ImportError: If h5py is not installed.
        TypeError: If `path` is neither a string nor a path.
        OSError: If the file cannot be read.
        ValueError: If the file is damaged or another, or declares more than it
            contains.

    Source: Cramer et al., "The Heidelberg Spiking Data Sets for the Systematic
    Evaluation of Spiking Neural Networks", 2020.
    """

    labels: np.ndarray
    class_names: tuple[str, ...] | None
    speakers: np.ndarray | None

    def __init__(self, path: str | os.PathLike[str]) -> None:
        # It comes with Keras, and takes long to import.
        import h5py

        self._path, self._size = checks.file("path", path)
        # h5py reports a missing file by a long message of HDF5.
        self._bytes = open(self._path, "rb")  # noqa: SIM115  # `close` closes it.
        self._file: Any = None
        try:
            hdf5.check_content(self._bytes)
            self._file = h5py.File(self._path, "r")
            self._read_index(h5py)
        except hdf5.DAMAGES as error:
            self.close()
            raise self._damaged(error) from error

    def _read_index(self, h5py: Any) -> None:
        self._times, self._units = (
            self._rows(h5py, f"spikes/{name}", "fiu") for name in ("times", "units")
        )
        self.labels = self._numbers(h5py, "labels")
        self.class_names = self._names(h5py)
        self.speakers = (
            self._numbers(h5py, "extra/speaker")
            if "extra/speaker" in self._file
            else None
        )
        sizes = {
            len(rows)
            for rows in (self._times, self._units, self.labels, self.speakers)
            if rows is not None
        }
        if len(sizes) > 1 or 0 in sizes:
            raise ValueError(
                "times, units, labels and speakers must be of the same recordings. "
                f"Their numbers are {sizes}."
            )
        classes = None if self.class_names is None else len(self.class_names)
        if self.labels.min() < 0 or (
            classes is not None and self.labels.max() >= classes
        ):
            raise ValueError(
                f"labels must be from 0 to {classes} - 1, but are from "
                f"{self.labels.min()} to {self.labels.max()}."
            )

    def _dataset(self, h5py: Any, name: str, most: int = MOST_RECORDINGS) -> Any:
        group = self._file
        for part in name.split("/"):
            if not isinstance(group, h5py.Group) or not isinstance(
                group.get(part, getlink=True), h5py.HardLink
            ):
                raise ValueError(f"{name} is missing, or elsewhere.")
            group = group[part]
        if (
            not isinstance(group, h5py.Dataset)
            or group.shape is None
            or len(group.shape) != 1
        ):
            raise ValueError(f"{name} must be an array of one dimension.")
        rows = max(group.shape + (group.chunks or ()))
        if rows > most:
            raise ValueError(
                f"{name} must have {most} rows at most, also in a piece. It has {rows}."
            )
        return group

    def _rows(self, h5py: Any, name: str, kinds: str) -> Rows:
        dataset = self._dataset(h5py, name)
        kind = h5py.check_vlen_dtype(dataset.dtype)
        if not isinstance(kind, np.dtype) or kind.kind not in kinds:
            raise ValueError(
                f"{name} must have rows of numbers. It has {kind or dataset.dtype}."
            )
        return Rows(name, dataset, kind, self._bytes)

    def _numbers(self, h5py: Any, name: str) -> np.ndarray:
        dataset = self._dataset(h5py, name)
        hdf5.check_stored(dataset, name)
        if dataset.dtype.kind not in "iu":
            raise ValueError(f"{name} must hold integers. It holds {dataset.dtype}.")
        return dataset[()]

    def _names(self, h5py: Any) -> tuple[str, ...] | None:
        if "extra/keys" not in self._file:
            return None
        dataset = self._dataset(h5py, "extra/keys", MOST_CLASSES)
        text = h5py.check_string_dtype(dataset.dtype)
        if text is None or (text.length or 0) > LONGEST_NAME:
            raise ValueError(
                f"extra/keys must hold names of {LONGEST_NAME} bytes at most. It holds "
                f"{dataset.dtype}."
            )
        if text.length is not None:
            hdf5.check_stored(dataset, "extra/keys")
            return tuple(name.decode("utf8") for name in dataset[()])
        rows = Rows("extra/keys", dataset, np.dtype("uint8"), self._bytes)
        return tuple(
            rows.read(row, LONGEST_NAME).tobytes().decode("utf8")
            for row in range(len(rows))
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Events:
        """The `Events` of a recording.

        Raises:
            IndexError: If there is no such recording.
            ValueError: If it is damaged or too large, or its times run backwards.
        """
        row = checks.index("index", index, len(self)) % len(self)
        longest = min(self._size, LARGEST_RECORDING // BYTES_OF_AN_EVENT)
        try:
            times, units = (
                rows.read(row, longest) for rows in (self._times, self._units)
            )
            # Half precision, in which they are stored, cannot hold microseconds.
            seconds = times.astype("float64")
            if not np.all((seconds >= 0) & (seconds < LONGEST_TIME)):
                raise ValueError(f"times must be from 0 to {LONGEST_TIME} seconds")
            if units.dtype.kind not in "iu" or (units >= UNITS).any():
                raise ValueError(f"units must be integers below {UNITS}")
            microseconds = np.rint(1e6 * seconds).astype("int64")
            return Events(
                units,
                np.zeros(len(units), "uint8"),
                np.ones(len(units), "uint8"),
                microseconds,
            )
        except (OSError, RuntimeError, ValueError) as error:
            raise self._damaged(f"recording {row}: {error}") from error

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()
        self._bytes.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _damaged(self, reason: Any) -> ValueError:
        return ValueError(
            f"{self._path} is not a whole file of SHD or SSC: "
            f"{str(reason).rstrip('.')}. Unpack or download it again."
        )
