"""Files of SHD and SSC: their recordings and labels, and clear errors for all else."""

import zlib

import h5py
import numpy as np
import pytest
from made_event_files import write_heidelberg
from made_recordings import expect_error

from keras_ratesnn.events import HeidelbergFile

TIMES, UNITS = [[0.0, 0.5, 1.25], [0.25], [0.75, 0.75]], [[0, 699, 7], [3], [1, 2]]
NOT_WHOLE = "is not a whole file of SHD or SSC"


def write_words(path, **storage):
    names, speakers = ["zero", "eins"], [4, 5, 6]
    return write_heidelberg(path, TIMES, UNITS, [1, 0, 1], names, speakers, **storage)


@pytest.fixture
def spoken(tmp_path):
    return write_words(tmp_path / "shd_train.h5")


@pytest.mark.parametrize(
    "storage",
    [{}, {"chunks": (2,), "compression": "gzip", "shuffle": True}],
)
def test_spoken_words_are_read_with_their_labels(tmp_path, storage):
    with HeidelbergFile(write_words(tmp_path / "shd.h5", **storage)) as recordings:
        assert recordings.class_names == ("zero", "eins")
        assert recordings.labels.tolist() == [1, 0, 1]
        assert recordings.speakers.tolist() == [4, 5, 6]
        for events, times, units in zip(recordings, TIMES, UNITS, strict=True):
            assert events.timestamp.tolist() == [round(1e6 * time) for time in times]
            assert events.x.tolist() == units
            assert set(events.y.tolist()) == {0}
            assert set(events.polarity.tolist()) == {1}
        assert recordings[-1].x.tolist() == UNITS[2]
        with expect_error(IndexError, "`index` must be from -3 to 2"):
            recordings[3]


def test_names_of_any_length_or_none_and_no_speakers_are_read(tmp_path):
    keys = np.array(["null", "zweiundzwanzig"], h5py.string_dtype())
    path = write_heidelberg(tmp_path / "ssc.h5", TIMES, UNITS, [1, 0, 1], keys)
    with HeidelbergFile(path) as recordings:
        assert recordings.class_names == ("null", "zweiundzwanzig")
        assert recordings.speakers is None
    with h5py.File(path, "r+") as file:
        del file["extra/keys"]
    with HeidelbergFile(path) as recordings:
        assert recordings.class_names is None


HUGE = {"shape": (2**21,), "dtype": "int64", "chunks": (2**21,), "compression": "gzip"}
WIDE = {**HUGE, "chunks": (2**24,), "maxshape": (None,), "shape": (3,)}
TEXTS = {"shape": (3,), "dtype": h5py.string_dtype()}


@pytest.mark.parametrize(
    ("name", "stored", "said"),
    [
        ("labels", None, "labels is missing"),
        ("labels", h5py.SoftLink("/extra/speaker"), "labels is missing, or elsewhere"),
        ("labels", {"data": np.zeros(2, int)}, "same recordings"),
        ("labels", {"data": np.zeros(3)}, "must hold integers"),
        ("labels", {"data": np.full(3, 7)}, "labels must be from 0 to 2 - 1"),
        ("labels", {"data": np.zeros((3, 1), int)}, "one dimension"),
        ("labels", HUGE, "more than the file contains"),
        ("labels", WIDE, "rows at most, also in a piece"),
        ("spikes/times", TEXTS, "must have rows of numbers"),
        ("extra/keys", {"data": np.array([b"a" * 300])}, "must hold names"),
    ],
)
def test_a_file_that_is_not_of_spoken_words_is_an_error(spoken, name, stored, said):
    with h5py.File(spoken, "r+") as file:
        del file[name]
        if isinstance(stored, dict):
            file.create_dataset(name, **stored)
        elif stored:
            file[name] = stored
    with expect_error(ValueError, NOT_WHOLE, said, ". Unpack or download"):
        HeidelbergFile(spoken)


@pytest.mark.parametrize(
    ("times", "units", "said"),
    [
        ([0.5, 0.25], [1, 2], "must not run backwards"),
        ([np.nan, 0.5], [1, 2], "times must be from 0"),
        ([0.5], [700], "units must be integers below 700"),
        ([0.5], [1, 2], "same length"),
        ([], [], "must have events"),
    ],
)
def test_a_recording_of_a_spoken_word_that_is_none_is_an_error_that_names_it(
    tmp_path, times, units, said
):
    rows = [[0.5], times], [[1], units]
    path = write_heidelberg(tmp_path / "shd.h5", *rows, [0, 0], ["zero"])
    with HeidelbergFile(path) as recordings:
        assert len(recordings[0].x) == 1
        with expect_error(ValueError, "shd.h5", "recording 1:", said):
            recordings[1]


def number_at(content, start, size):
    return int.from_bytes(content[start : start + size], "little")


def place_of_row(content, length):
    """Where a dataset stores the length of a row, and after it the address of its
    heap."""
    for place in range(len(content) - 16):
        heap = number_at(content, place + 4, 8)
        is_heap = content[heap : heap + 4] == b"GCOL"
        if is_heap and number_at(content, place, 4) == length:
            return place
    raise AssertionError("no row of this length")


COMPACT = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
COMPACT.set_layout(h5py.h5d.COMPACT)


# Another length, another heap, another object of it: HDF5 would reserve gigabytes, or
# read what lies beside.
@pytest.mark.parametrize(
    ("storage", "start", "size", "value", "said"),
    [
        ({}, 0, 4, 2**31, "declares 2147483648 values"),
        ({"chunks": (2,)}, 0, 4, 2**31, "declares 2147483648 values"),
        ({}, 0, 4, 2, "6 bytes are stored"),
        ({}, 4, 8, 99, "has no values at byte"),
        ({}, 4, 8, 2**64 - 9, "behind the end of the file"),
        ({}, 12, 4, 999, "0 bytes are stored"),
        ({"dcpl": COMPACT}, 0, 4, 3, "is stored within its header"),
    ],
)
def test_a_row_whose_values_are_not_there_is_an_error(
    tmp_path, storage, start, size, value, said
):
    path = write_words(tmp_path / "shd.h5", **storage)
    content = bytearray(path.read_bytes())
    place = place_of_row(content, 3) + start
    content[place : place + size] = value.to_bytes(size, "little")
    path.write_bytes(content)
    error = expect_error(ValueError, "recording 0:", said)
    with HeidelbergFile(path) as recordings, error:
        recordings[0]


def write_packed(path, pack, mask=0, compression="gzip"):
    """A file whose first piece of times is a function of its bytes; `mask` says which
    filters it skips."""
    write_words(path, chunks=(2,), compression=compression, shuffle=True)
    with h5py.File(path, "r+") as file:
        times = file["spikes/times"].id
        _, content = times.read_direct_chunk((0,))
        times.write_direct_chunk((0,), pack(content), mask)
    return HeidelbergFile(path)


def test_rows_whose_bytes_were_shuffled_before_they_were_packed_are_read(tmp_path):
    def pack(content):
        rows = np.frombuffer(zlib.decompress(content), "uint8").reshape(2, -1)
        return zlib.compress(rows.T.tobytes(), 0)

    with write_packed(tmp_path / "shd.h5", pack) as recordings:
        assert recordings[1].timestamp.tolist() == [250_000]


@pytest.mark.parametrize(
    ("piece", "compression", "said"),
    [
        (b"no gzip", "gzip", "a damaged piece at row 0"),
        (zlib.compress(b"few"), "gzip", "a piece of 3 bytes at row 0, not of 32"),
        (bytes(2000), "gzip", "no usual piece at row 0"),
        (bytes(9), "lzf", "rows may have gzip and shuffle"),
    ],
)
def test_a_piece_of_rows_that_is_damaged_or_of_another_form_is_an_error(
    tmp_path, piece, compression, said
):
    path, error = tmp_path / "shd.h5", expect_error(ValueError, "recording 0:", said)
    with write_packed(path, lambda _: piece, 1, compression) as recordings, error:
        recordings[0]


def test_truncated_files_of_spoken_words_are_an_error(spoken):
    content = spoken.read_bytes()
    for length in range(0, len(content), len(content) // 12):
        spoken.write_bytes(content[:length])
        error = expect_error(ValueError, NOT_WHOLE)
        with error, HeidelbergFile(spoken) as recordings:
            list(recordings)
