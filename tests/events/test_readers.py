"""Readers of event files: each byte as the format says, and clear errors, at bounded
cost, for all else."""

import os
import re
import tracemalloc

import h5py
import numpy as np
import pytest
from made_event_files import (
    DAT_HEADER,
    GESTURE_HEADER,
    LABELS_HEADER,
    dat_bytes,
    nmnist_bytes,
    packet,
    write_heidelberg,
)

import keras_ratesnn as rsnn
from keras_ratesnn.events import (
    Events,
    HeidelbergFile,
    from_structured,
    read_aedat,
    read_aedat3,
    read_arrays,
    read_boxes,
    read_gestures,
    read_nmnist,
    read_prophesee,
    to_structured,
)
from keras_ratesnn.events import recording as recording_module

pytestmark = pytest.mark.runs_once


def rows_of(events):
    """Tuples `(x, y, polarity, time)`."""
    fields = events.x, events.y, events.polarity, events.timestamp
    return list(zip(*(values.tolist() for values in fields), strict=True))


def expect_error(kind, *said):
    """pytest.raises with a message that contains all of `said` in order."""
    return pytest.raises(
        kind, match="(?s)" + ".*".join(re.escape(str(part)) for part in said)
    )


def written(tmp_path, content):
    path = tmp_path / "recording"
    path.write_bytes(content)
    return path


READERS = {
    "read_aedat": read_aedat,
    "read_aedat3": read_aedat3,
    "read_arrays": read_arrays,
    "read_boxes": read_boxes,
    "read_gestures": read_gestures,
    "read_nmnist": read_nmnist,
    "read_prophesee": read_prophesee,
    "HeidelbergFile": HeidelbergFile,
    "import_nir": lambda path: rsnn.import_nir(path, timesteps=2),
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_a_pipe_or_a_device_is_refused_instead_of_waited_for(tmp_path, read):
    os.mkfifo(tmp_path / "pipe")
    # The null device ends, in case that it is not refused.
    for path in ("/dev/null", tmp_path / "pipe"):
        with expect_error(
            ValueError,
            "`path` must be the path of a file",
            f"{str(path)!r}, a pipe or a device",
        ):
            read(path)
    for path, error in (
        ("", ValueError),
        (tmp_path / "none", FileNotFoundError),
        (tmp_path, IsADirectoryError),
    ):
        with pytest.raises(
            error,
            match=re.escape(str(path))
            or "`path` must be a path. Received: path='', an empty string",
        ):
            read(path)


# N-MNIST


def test_nmnist_files_are_read_to_the_byte(tmp_path):
    # x, y, and ON at 0x012345 = 74565 microseconds; OFF at 2**23 - 1.
    path = written(tmp_path, bytes([33, 7, 0x81, 0x23, 0x45, 0, 32, 0x7F, 0xFF, 0xFF]))
    assert rows_of(read_nmnist(path)) == [(33, 7, 1, 0x012345), (0, 32, 0, 2**23 - 1)]


def test_an_overflow_of_the_clock_moves_all_later_times_and_is_no_event(tmp_path):
    events = [
        (1, 2, 1, 8000),
        (0, 240, 0, 0),
        (3, 4, 0, 5),
        (9, 240, 1, 3),
        (0, 240, 0, 9),
        (5, 6, 1, 7),
    ]
    path = written(tmp_path, nmnist_bytes(*events))
    assert rows_of(read_nmnist(path)) == [
        (1, 2, 1, 8000),
        (3, 4, 0, 5 + 8192),
        (5, 6, 1, 7 + 3 * 8192),
    ]


# AEDAT 3.1 and gestures


def test_aedat3_files_are_read_to_the_byte(tmp_path):
    events = (
        packet((5, 6, 0, 10), (127, 0, 1, 20), (9, 9, 1, 30, 0))
        # Other types may have events of any size.
        + packet(kind=0, size=3, capacity=2)
        + b"123456"
        # A capacity above the number: the rest is not used.
        + packet((0, 127, 1, 2), overflow=1, capacity=2)
        + bytes(8)
    )
    path = written(tmp_path, GESTURE_HEADER + events)
    assert rows_of(read_aedat3(path)) == [
        (5, 6, 0, 10),
        (127, 0, 1, 20),
        (0, 127, 1, 2**31 + 2),
    ]


ONE = packet((1, 2, 1, 5))
AFTER_HEADER = len(GESTURE_HEADER)


def gestures(tmp_path, rows):
    path = tmp_path / "user01_led.aedat"
    path.write_bytes(
        GESTURE_HEADER + packet(*((time, 0, 1, time) for time in range(0, 100, 10)))
    )
    (tmp_path / "user01_led_labels.csv").write_text(rows)
    return path


def test_gestures_are_cut_each_on_its_own(tmp_path):
    path = gestures(tmp_path, LABELS_HEADER + "8,10,30\r\n2,20,41\n8,90,900\n")
    found = [
        (kind, events.timestamp.tolist(), events.x.tolist())
        for kind, events in read_gestures(path)
    ]
    assert found == [
        (8, [10, 20], [10, 20]),
        (2, [20, 30, 40], [20, 30, 40]),
        (8, [90], [90]),
    ]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("", "first line"),
        ("a,b,c\n1,2,3\n", "first line"),
        (LABELS_HEADER, "must have a line for each gesture"),
        (LABELS_HEADER + "1,0,50\n12,0,50\n", "Line 3 of"),
        (LABELS_HEADER + "0,0,50\n", "Line 2 of"),
        (LABELS_HEADER + "1,50,50\n", "a later end"),
        (LABELS_HEADER + "1,0\n", "Line 2 of"),
        (LABELS_HEADER + "1,-5,50\n", "Line 2 of"),
        (LABELS_HEADER + f"1,0,{'9' * 5000}\n", "Line 2 of"),
        (LABELS_HEADER + "1,100,200\n", "The gesture on line 2"),
    ],
)
def test_labels_that_do_not_fit_are_an_error_that_names_the_line(tmp_path, rows, said):
    with expect_error(ValueError, said):
        read_gestures(gestures(tmp_path, rows))


# Prophesee


EVENTS = [(303, 239, 1, 0), (1, 2, 0, 50), (16383, 16383, 1, 50), (4, 5, 0, 2**32 - 1)]
OF_DAT = DAT_HEADER + bytes([0, 8])
BACKWARDS = "must not run backwards"


@pytest.mark.parametrize(
    ("read", "content", "said"),
    [
        (read_nmnist, b"", "A recording must have events"),
        (read_nmnist, nmnist_bytes((0, 240, 0, 1)), "A recording must have events"),
        (read_nmnist, nmnist_bytes((1, 2, 0, 9), (1, 2, 0, 8)), BACKWARDS),
        (
            read_nmnist,
            nmnist_bytes((1, 2, 0, 9)) + b"123",
            "at byte 5: an event takes 5 bytes, and the file ends after 3",
        ),
        (read_aedat3, b"", "at byte 0: its first line must be #!AER-DAT3.1"),
        (read_aedat3, b"#!AER-DAT2.0\r\n" + ONE, "#!AER-DAT2.0"),
        (
            read_aedat3,
            b"#!AER-DAT3.1\r\n" + ONE,
            "at byte 14: the header must end with the line #!END-HEADER",
        ),
        (
            read_aedat3,
            b"#!AER-DAT3.1\r\n#Format: Serial-TS\r\n#!END-HEADER\r\n" + ONE,
            "at byte 14: the format must be RAW",
        ),
        (
            read_aedat3,
            GESTURE_HEADER + packet((1, 2, 1, 5, 0)),
            f"at byte {AFTER_HEADER + 36}: the file ends there, and none of its",
        ),
        (
            read_aedat3,
            GESTURE_HEADER + ONE + ONE[:20],
            f"at byte {AFTER_HEADER + 36}: the header of a packet takes 28 bytes, and "
            "the file ends after 20",
        ),
        (
            read_aedat3,
            GESTURE_HEADER + packet(capacity=2**32 - 1, size=2**32 - 1),
            "begins there, and the file ends after 28",
        ),
        (
            read_aedat3,
            GESTURE_HEADER + packet((1, 2, 1, 5), number=2),
            "says that it holds 2",
        ),
        (
            read_aedat3,
            GESTURE_HEADER + packet((1, 2, 1, 5), size=4),
            "events of 4 bytes",
        ),
        (
            read_aedat3,
            GESTURE_HEADER + packet((1, 2, 1, 5), time_offset=0),
            "the time at 0",
        ),
        (
            read_aedat3,
            GESTURE_HEADER + ONE + packet((1, 2, 1, 4)),
            BACKWARDS,
        ),
        (read_prophesee, b"", "no events follow"),
        (read_prophesee, DAT_HEADER, "the file ends"),
        (
            read_prophesee,
            DAT_HEADER + bytes([14, 16]) + dat_bytes(*EVENTS),
            "They are of type 14, 16 bytes",
        ),
        (
            read_prophesee,
            OF_DAT.replace(b"Version 2", b"Version 3"),
            "the version must be 2",
        ),
        (read_prophesee, b"% Version 2", "does not end"),
        (
            read_prophesee,
            OF_DAT + dat_bytes(*EVENTS)[:-1],
            "the file ends after 7",
        ),
        (
            read_prophesee,
            dat_bytes((1, 2, 0, 5), (1, 2, 0, 9), (1, 2, 0, 4)),
            BACKWARDS,
        ),
    ],
)
def test_a_damaged_file_is_an_error_that_names_the_byte(tmp_path, read, content, said):
    with expect_error(ValueError, "recording", said):
        read(written(tmp_path, content))


@pytest.mark.parametrize(
    "before", [DAT_HEADER + bytes([0, 8]), DAT_HEADER + bytes([12, 8]), b""]
)
def test_prophesee_files_are_read_to_the_byte(tmp_path, before):
    path = written(tmp_path, before + dat_bytes(*EVENTS))
    assert rows_of(read_prophesee(path)) == EVENTS
    assert rows_of(read_prophesee(path, start=1, end=51)) == EVENTS[1:3]
    assert rows_of(read_prophesee(path, start=51)) == EVENTS[3:]


def test_a_part_of_a_prophesee_file_that_cannot_be_is_an_error(tmp_path, monkeypatch):
    path = written(tmp_path, dat_bytes(*EVENTS))
    for start, end in ((-1, 5), (5, 5), (7, 5)):
        with expect_error(ValueError, "`start` must be", f"start={start}, end={end}"):
            read_prophesee(path, start, end)
    with expect_error(
        ValueError, "must have events from 60 to 70", "from 0 to 4294967295"
    ):
        read_prophesee(path, 60, 70)
    with expect_error(TypeError, "`end` must be an integer"):
        read_prophesee(path, 0, 1.5)
    # The size of the part counts, not that of the file.
    monkeypatch.setattr(recording_module, "LARGEST_RECORDING", 20)
    with expect_error(ValueError, "at most"):
        read_prophesee(path)
    assert len(read_prophesee(path, 1, 51).x) == 2


NEW_BOXES = [
    ("t", "<i8"),
    *((name, "<f4") for name in "xywh"),
    ("class_id", "<u4"),
    ("track_id", "<u4"),
]
NEW_BOXES += [("class_confidence", "<f4")]


def test_boxes_are_read_with_the_names_of_either_version(tmp_path):
    path = tmp_path / "boxes_bbox.npy"
    # Aligned as in C: four bytes at the end are of no field.
    boxes = np.zeros(3, np.dtype(NEW_BOXES, align=True))
    assert boxes.dtype.itemsize == 40
    boxes["t"], boxes["w"], boxes["class_confidence"] = [1, 2, 3], [4, 5, 6], 0.5
    old = {"t": "ts", "class_confidence": "confidence"}
    for dtype in (NEW_BOXES, [(old.get(name, name), kind) for name, kind in NEW_BOXES]):
        np.save(path, boxes.view(np.dtype(dtype, align=True)))
        np.testing.assert_array_equal(read_boxes(path), boxes)
    content = path.read_bytes()
    for damaged in (b"", content[:-1], b"text", content.replace(b"(3,)", b"(9**9,)")):
        path.write_bytes(damaged)
        with expect_error(ValueError, "boxes_bbox.npy"):
            read_boxes(path)
    np.save(path, np.zeros((3, 8)))
    with expect_error(ValueError, "must hold one row of boxes", "without fields"):
        read_boxes(path)
    for name, dtype in (
        ("x", "U4"),
        ("t", "S8"),
        ("class_id", "c8"),
        ("w", "?"),
        ("h", ("f4", 2)),
    ):
        fields = [(field, dtype if field == name else "f4") for field, *_ in NEW_BOXES]
        np.save(path, np.zeros(2, fields))
        with expect_error(
            ValueError,
            "boxes_bbox.npy must hold boxes whose fields are numbers",
            f"{name} of ",
        ):
            read_boxes(path)


# SHD and SSC


TIMES, UNITS = [[0.0, 0.5, 1.25], [0.25], [0.75, 0.75]], [[0, 699, 7], [3], [1, 2]]


def write_words(path, **storage):
    names, speakers = ["zero", "eins"], [4, 5, 6]
    return write_heidelberg(path, TIMES, UNITS, [1, 0, 1], names, speakers, **storage)


@pytest.fixture
def spoken(tmp_path):
    return write_words(tmp_path / "shd_train.h5")


@pytest.mark.parametrize(
    "storage",
    [{}, {"chunks": (2,)}, {"chunks": (2,), "compression": "gzip", "shuffle": True}],
)
def test_spoken_words_are_read_with_their_labels(tmp_path, storage):
    with HeidelbergFile(write_words(tmp_path / "shd.h5", **storage)) as recordings:
        assert len(recordings) == 3
        assert recordings.class_names == ("zero", "eins")
        assert recordings.labels.tolist() == [1, 0, 1]
        assert recordings.speakers.tolist() == [4, 5, 6]
        for number, events in enumerate(recordings):
            microseconds = [round(1e6 * time) for time in TIMES[number]]
            assert events.timestamp.tolist() == microseconds
            assert events.x.tolist() == UNITS[number]
            assert set(events.y.tolist()) == {0}
            assert set(events.polarity.tolist()) == {1}
        assert recordings[-1].x.tolist() == UNITS[2]
        with expect_error(IndexError, "`index` must be from 0 to 2"):
            recordings[3]


def test_names_of_any_length_and_no_speakers_are_read(tmp_path):
    keys = np.array(["null", "zweiundzwanzig"], h5py.string_dtype())
    with HeidelbergFile(
        write_heidelberg(tmp_path / "ssc.h5", TIMES, UNITS, [1, 0, 1], keys)
    ) as recordings:
        assert recordings.class_names == ("null", "zweiundzwanzig")
        assert recordings.speakers is None


def replace(path, name, **stored):
    with h5py.File(path, "r+") as file:
        del file[name]
        if stored:
            file.create_dataset(name, **stored)


HUGE = {"shape": (2**21,), "dtype": "int64", "chunks": (2**21,), "compression": "gzip"}


@pytest.mark.parametrize(
    ("name", "stored", "said"),
    [
        ("labels", {}, "labels is missing"),
        ("spikes/units", {}, "spikes/units is missing"),
        ("labels", {"data": np.zeros(2, int)}, "same recordings"),
        ("labels", {"data": np.zeros(3)}, "must hold integers"),
        ("labels", {"data": np.full(3, 7)}, "labels must be from 0 to 2 - 1"),
        ("labels", {"data": np.zeros((3, 1), int)}, "one dimension"),
        ("labels", HUGE, "more than the file contains"),
        (
            "labels",
            {**HUGE, "chunks": (2**24,), "maxshape": (None,), "shape": (3,)},
            "rows at most, also in a piece",
        ),
        ("spikes/times", {"data": np.zeros(3)}, "must have rows of numbers"),
        (
            "spikes/times",
            {"shape": (3,), "dtype": h5py.string_dtype()},
            "must have rows of numbers",
        ),
        ("extra/keys", {"data": np.zeros(3)}, "must hold names"),
        ("extra/keys", {"data": np.array([b"a" * 300])}, "must hold names"),
    ],
)
def test_a_file_that_is_not_of_spoken_words_is_an_error(spoken, name, stored, said):
    replace(spoken, name, **stored)
    with expect_error(ValueError, "is not a whole file of SHD or SSC", said):
        HeidelbergFile(spoken)


def test_links_to_other_places_are_not_followed(spoken):
    for link in (
        h5py.SoftLink("/extra/speaker"),
        h5py.ExternalLink("/etc/passwd", "/"),
    ):
        replace(spoken, "labels")
        with h5py.File(spoken, "r+") as file:
            file["labels"] = link
        with expect_error(ValueError, "labels is missing, or elsewhere"):
            HeidelbergFile(spoken)


@pytest.mark.parametrize(
    ("times", "units", "said"),
    [
        ([0.5, 0.25], [1, 2], "must not run backwards"),
        ([0.5, np.inf], [1, 2], "times must be from 0"),
        ([np.nan, 0.5], [1, 2], "times must be from 0"),
        ([-0.5, 0.5], [1, 2], "times must be from 0"),
        ([0.5], [700], "units must be integers below 700"),
        ([0.5], [1, 2], "same length"),
        ([], [], "must have events"),
    ],
)
def test_a_recording_of_a_spoken_word_that_is_none_is_an_error_that_names_it(
    tmp_path, times, units, said
):
    path = write_heidelberg(
        tmp_path / "shd.h5", [[0.5], times], [[1], units], [0, 0], ["zero"]
    )
    with HeidelbergFile(path) as recordings:
        assert len(recordings[0].x) == 1
        with expect_error(ValueError, "shd.h5", "recording 1:", said):
            recordings[1]


def stored_length(content, length):
    """The place where a dataset stores a row of this length."""
    for place in range(len(content) - 16):
        found, address = (
            int.from_bytes(content[place + start : place + end], "little")
            for start, end in ((0, 4), (4, 12))
        )
        if found == length and content[address : address + 4] == b"GCOL":
            return place
    raise AssertionError("no row of this length")


@pytest.mark.parametrize("storage", [{}, {"chunks": (2,)}])
def test_a_row_that_declares_gigabytes_is_an_error_before_hdf5_reserves_them(
    tmp_path, storage
):
    path = write_words(tmp_path / "shd.h5", **storage)
    content = bytearray(path.read_bytes())
    place = stored_length(content, 3)
    content[place : place + 4] = (2**31).to_bytes(4, "little")
    path.write_bytes(content)
    with (
        HeidelbergFile(path) as recordings,
        expect_error(ValueError, "recording 0: declares 2147483648 values"),
    ):
        recordings[0]


def test_a_row_whose_values_are_not_there_is_an_error(spoken):
    path, whole = spoken, spoken.read_bytes()
    place = stored_length(whole, 3)
    # Another length, another heap, another object of it: HDF5 would read what lies
    # beside.
    for start, size, value, said in (
        (0, 4, 2, "6 bytes are stored"),
        (4, 8, 99, "has no values at byte"),
        (4, 8, 2**64 - 9, "behind the end of the file"),
        (12, 4, 999, "0 bytes are stored"),
    ):
        content = bytearray(whole)
        content[place + start : place + start + size] = value.to_bytes(size, "little")
        path.write_bytes(content)
        with (
            HeidelbergFile(path) as recordings,
            expect_error(ValueError, "recording 0:", said),
        ):
            recordings[0]


def test_truncated_files_of_spoken_words_are_an_error(spoken):
    content = spoken.read_bytes()
    for length in range(0, len(content), len(content) // 12):
        spoken.write_bytes(content[:length])
        with (
            expect_error(ValueError, "is not a whole file of SHD or SSC"),
            HeidelbergFile(spoken) as recordings,
        ):
            list(recordings)


def test_a_file_that_is_too_large_is_refused_before_it_is_read(tmp_path, monkeypatch):
    path = tmp_path / "recording"
    with path.open("wb") as file:
        file.truncate(2**29)
    monkeypatch.setattr(recording_module, "LARGEST_RECORDING", 2**20)
    tracemalloc.start()
    for read in (read_nmnist, read_aedat3, read_prophesee, read_boxes):
        with expect_error(
            ValueError, "recording must hold a recording of 1 MiB at most"
        ):
            read(path)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


# Structured arrays


def test_structured_arrays_come_in_and_go_out_unchanged():
    events = Events(
        np.array([3, 5]), np.array([7, 9]), np.array([1, 0]), np.array([10, 20])
    )
    array = to_structured(events)
    assert array.dtype.names == ("x", "y", "t", "p")
    assert array.tolist() == [(3, 7, 10, True), (5, 9, 20, False)]
    back = from_structured(array)
    assert rows_of(back) == rows_of(events)
    back.x[:] = 0
    assert array["x"].tolist() == [3, 5]


def test_structured_arrays_of_sound_have_no_rows():
    array = np.array([(10, 3, 1)], [("t", "i8"), ("x", "i4"), ("p", "i1")])
    assert rows_of(from_structured(array)) == [(3, 0, 1, 10)]


def test_arrays_that_are_not_in_this_form_are_an_error():
    with expect_error(TypeError, "`array` must be a", "array=None"):
        from_structured(None)
    with expect_error(
        ValueError, "`array` must have the fields x, y, t and p", "without fields"
    ):
        from_structured(np.zeros(3))
    with expect_error(ValueError, "must not run backwards"):
        from_structured(
            np.array([(0, 0, 9, 1), (0, 0, 8, 1)], [(name, "i8") for name in "xytp"])
        )
    with expect_error(ValueError, "`x` must fit in int16", "40000"):
        to_structured(
            Events(np.array([40000]), np.array([7]), np.array([1]), np.array([10]))
        )
