"""Readers of event files: each byte as the format says, and clear errors, at bounded
cost, for all else."""

import os
import re
import tracemalloc

import numpy as np
import pytest
from made_event_files import (
    DAT_HEADER,
    GESTURE_HEADER,
    LABELS_HEADER,
    dat_bytes,
    nmnist_bytes,
    packet,
)
from made_recordings import (
    HEADER,
    START,
    address,
    aedat_bytes,
    arrays_of,
    expect_error,
    made_events,
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
    write_aedat,
)
from keras_ratesnn.events import recording as recording_module

pytestmark = pytest.mark.runs_once

FIELDS = "x", "y", "polarity", "timestamp"
SIZED = read_aedat, read_aedat3, read_boxes, read_nmnist, read_prophesee
READERS = [
    *SIZED,
    read_arrays,
    read_gestures,
    HeidelbergFile,
    lambda path: rsnn.deploy.import_nir(path, timesteps=2),
]


def rows_of(events):
    """Tuples `(x, y, polarity, time)`."""
    columns = [arrays_of(events)[name].tolist() for name in FIELDS]
    return list(zip(*columns, strict=True))


def written(tmp_path, content):
    path = tmp_path / "recording"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("read", READERS)
def test_a_pipe_or_a_device_is_refused_instead_of_waited_for(tmp_path, read):
    os.mkfifo(tmp_path / "pipe")
    # The null device ends, in case that it is not refused.
    for path in ("/dev/null", tmp_path / "pipe"):
        said = f"{str(path)!r}, a pipe or a device"
        with expect_error(ValueError, "`path` must be the path of a file", said):
            read(path)
    for path, error, said in (
        (tmp_path / "none", FileNotFoundError, tmp_path / "none"),
        (tmp_path, IsADirectoryError, tmp_path),
    ):
        with expect_error(error, said):
            read(path)


def test_a_file_that_is_too_large_is_refused_before_it_is_read(tmp_path, monkeypatch):
    with (tmp_path / "recording").open("wb") as file:
        file.truncate(2**29)
    # 40 million events of a byte a field: 160 MB of zeros in a small archive.
    zeros = np.zeros(40 * 2**20, "bool")
    np.savez_compressed(tmp_path / "events.npz", **dict.fromkeys(FIELDS, zeros))
    rows = np.zeros(2**20, [(name, "u1") for name in FIELDS])
    np.save(tmp_path / "events.npy", rows)
    monkeypatch.setattr(recording_module, "LARGEST_RECORDING", 2**20)
    cases = [(read, "recording", "") for read in SIZED]
    cases += [(read_arrays, "events.npy", ""), (read_arrays, "events.npz", "160 MiB")]
    tracemalloc.start()
    for read, name, said in cases:
        path = tmp_path / name
        with expect_error(ValueError, path, "must hold", "1 MiB at most", said):
            read(path)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


# In AEDAT, column 127 - y, row 127 - x; bit 0 is 0 for ON.
PIXEL = address(1, 1, 1)
ADDRESSES = (address(3, 100, 0), 17), (address(0, 0, 1), 17), (address(127, 5, 0), 2000)
ROWS = [(27, 124, 1, 17), (127, 127, 0, 17), (122, 0, 1, 2000)]
# The last is a 16-bit address with bit 15 as programs write it that take it as signed.
SPECIAL = [(0x8000, 1), (0x8000 | PIXEL, 2), (0x80000000, 3), (0xFFFF8000, 4)]
EVENTS = [(303, 239, 1, 0), (1, 2, 0, 50), (16383, 16383, 1, 50), (4, 5, 0, 2**32 - 1)]
OF_DAT = DAT_HEADER + bytes([0, 8])
ONE = packet((1, 2, 1, 5))
PACKETS = (
    packet((5, 6, 0, 10), (127, 0, 1, 20), (9, 9, 1, 30, 0))
    # Other types may have events of any size.
    + packet(kind=0, size=3, capacity=2)
    + b"123456"
    # A capacity above the number: the rest is not used.
    + packet((0, 127, 1, 2), overflow=1, capacity=2)
    + bytes(8)
)


def at_times(*times):
    return HEADER + aedat_bytes(*((PIXEL, time) for time in times))


def rows_at(*times):
    return [(126, 126, 0, time) for time in times]


@pytest.mark.parametrize(
    ("read", "content", "rows"),
    [
        (read_aedat, HEADER + aedat_bytes(*ADDRESSES), ROWS),
        (
            read_aedat,
            HEADER + aedat_bytes(SPECIAL[0], (PIXEL, 2), *SPECIAL[1:], (PIXEL, 6)),
            rows_at(2, 6),
        ),
        # Times are unwrapped.
        (read_aedat, at_times(2**32 - 1, 2**32 + 5), rows_at(2**32 - 1, 2**32 + 5)),
        # x, y, and ON at 0x012345 microseconds; OFF at 2**23 - 1.
        (
            read_nmnist,
            bytes([33, 7, 0x81, 0x23, 0x45, 0, 32, 0x7F, 0xFF, 0xFF]),
            [(33, 7, 1, 0x012345), (0, 32, 0, 2**23 - 1)],
        ),
        # An overflow of the clock moves all later times, and is no event.
        (
            read_nmnist,
            nmnist_bytes((1, 2, 1, 8000), (0, 240, 0, 0), (3, 4, 0, 5))
            + nmnist_bytes((9, 240, 1, 3), (0, 240, 0, 9), (5, 6, 1, 7)),
            [(1, 2, 1, 8000), (3, 4, 0, 5 + 8192), (5, 6, 1, 7 + 3 * 8192)],
        ),
        (
            read_aedat3,
            GESTURE_HEADER + PACKETS,
            [(5, 6, 0, 10), (127, 0, 1, 20), (0, 127, 1, 2**31 + 2)],
        ),
        (read_prophesee, OF_DAT + dat_bytes(*EVENTS), EVENTS),
        (read_prophesee, dat_bytes(*EVENTS), EVENTS),
    ],
)
def test_files_are_read_to_the_byte(tmp_path, read, content, rows):
    path = written(tmp_path, content)
    assert rows_of(read(path)) == rows
    if read is read_prophesee:
        assert rows_of(read(path, start=1, end=51)) == rows[1:3]
        assert rows_of(read(path, start=51)) == rows[3:]


AT_START = f"at byte {START}:"
AFTER_PACKET = f"at byte {len(GESTURE_HEADER) + 36}:"
BACKWARDS = "must not run backwards"


@pytest.mark.parametrize(
    ("read", "content", "said"),
    [
        (read_aedat, b"", "at byte 0: its first line must be #!AER-DAT2.0"),
        (read_aedat, b"#!AER-DAT3.1\r\n#!END-HEADER\r\n", "#!AER-DAT3.1"),
        (
            read_aedat,
            HEADER + b"# cut off in the hea",
            f"{AT_START} the line of the header",
        ),
        (read_aedat, HEADER + aedat_bytes(*SPECIAL), "none of the 4 events"),
        (
            read_aedat,
            at_times(1, 2)[:-1],
            f"at byte {START + 8}: an event takes 8 bytes, and the file ends after 7",
        ),
        (
            read_aedat,
            HEADER + aedat_bytes((PIXEL, 5), SPECIAL[0], (PIXEL, 4)),
            f"at byte {START + 20}: the timestamp 4 runs backwards from 5",
        ),
        (
            read_aedat,
            HEADER + aedat_bytes(SPECIAL[0], (PIXEL, 1), (0x00400801, 2)),
            f"at byte {START + 16}: the address 0x00400801",
        ),
        (read_nmnist, nmnist_bytes((0, 240, 0, 1)), "A recording must have events"),
        (
            read_nmnist,
            nmnist_bytes((1, 2, 0, 9)) + b"123",
            "at byte 5: an event takes 5 bytes, and the file ends after 3",
        ),
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
            f"{AFTER_PACKET} the file ends there, and none of its",
        ),
        (
            read_aedat3,
            GESTURE_HEADER + ONE + ONE[:20],
            f"{AFTER_PACKET} the header of a packet takes 28 bytes, and the file ends "
            "after 20",
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
        (read_aedat3, GESTURE_HEADER + packet((1, 2, 1, 5), size=4), "of 4 bytes"),
        (
            read_aedat3,
            GESTURE_HEADER + packet((1, 2, 1, 5), time_offset=0),
            "the time at 0",
        ),
        (read_aedat3, GESTURE_HEADER + ONE + packet((1, 2, 1, 4)), BACKWARDS),
        (read_prophesee, DAT_HEADER, "the file ends"),
        (read_prophesee, OF_DAT, "the header ends there, and no events follow"),
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
        (read_prophesee, OF_DAT + dat_bytes(*EVENTS)[:-1], "the file ends after 7"),
    ],
)
def test_a_damaged_file_is_an_error_that_names_the_byte(tmp_path, read, content, said):
    with expect_error(ValueError, "recording", said):
        read(written(tmp_path, content))


def test_a_part_of_a_prophesee_file_that_cannot_be_is_an_error(tmp_path, monkeypatch):
    path = written(tmp_path, dat_bytes(*EVENTS))
    for start, end in ((-1, 5), (5, 5), (7, 5)):
        with expect_error(ValueError, "`start` must be", f"start={start}, end={end}"):
            read_prophesee(path, start, end)
    with expect_error(ValueError, "have events from 60 to 70", "from 0 to 4294967295"):
        read_prophesee(path, 60, 70)
    # The size of the part counts, not that of the file.
    monkeypatch.setattr(recording_module, "LARGEST_RECORDING", 20)
    assert len(read_prophesee(path, 1, 51).x) == 2


# Gestures


def gestures(tmp_path, rows):
    path = tmp_path / "user01_led.aedat"
    events = packet(*((time, 0, 1, time) for time in range(0, 100, 10)))
    path.write_bytes(GESTURE_HEADER + events)
    (tmp_path / "user01_led_labels.csv").write_text(rows)
    return path


def test_gestures_are_cut_each_on_its_own(tmp_path):
    path = gestures(tmp_path, LABELS_HEADER + "8,10,30\r\n2,20,41\n8,90,900\n")
    parts = read_gestures(path)
    times = [(kind, events.timestamp.tolist()) for kind, events in parts]
    assert times == [(8, [10, 20]), (2, [20, 30, 40]), (8, [90])]
    for _, events in parts:
        assert events.x.tolist() == events.timestamp.tolist()


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("", "first line"),
        (LABELS_HEADER, "must have a line for each gesture"),
        (LABELS_HEADER + "1,0,50\n12,0,50\n", "Line 3 of"),
        (LABELS_HEADER + "1,50,50\n", "a later end"),
        (LABELS_HEADER + f"1,0,{'9' * 5000}\n", "Line 2 of"),
        (LABELS_HEADER + "1,100,200\n", "The gesture on line 2"),
    ],
)
def test_labels_that_do_not_fit_are_an_error_that_names_the_line(tmp_path, rows, said):
    with expect_error(ValueError, said):
        read_gestures(gestures(tmp_path, rows))


# Boxes


NUMBERS = [(name, "<f4") for name in ("x", "y", "w", "h", "class_confidence")]
NEW_BOXES = [("t", "<i8"), ("class_id", "<u4"), ("track_id", "<u4"), *NUMBERS]
OLD_NAMES = {"t": "ts", "class_confidence": "confidence"}
OLD_BOXES = [(OLD_NAMES.get(name, name), kind) for name, kind in NEW_BOXES]


def test_boxes_are_read_with_the_names_of_either_version(tmp_path):
    path = tmp_path / "boxes_bbox.npy"
    # Aligned as in C: four bytes at the end are of no field.
    boxes = np.zeros(3, np.dtype(NEW_BOXES, align=True))
    assert boxes.dtype.itemsize == 40
    boxes["t"], boxes["w"], boxes["class_confidence"] = [1, 2, 3], [4, 5, 6], 0.5
    for dtype in (NEW_BOXES, OLD_BOXES):
        np.save(path, boxes.view(np.dtype(dtype, align=True)))
        boxes_of_file = read_boxes(path)
        for name, _ in NEW_BOXES:
            np.testing.assert_array_equal(boxes_of_file[name], boxes[name])
    content = path.read_bytes()
    for damaged in (content[:-1], content.replace(b"(3,)", b"(9**9,)")):
        path.write_bytes(damaged)
        with expect_error(ValueError, "boxes_bbox.npy"):
            read_boxes(path)
    np.save(path, np.zeros((3, 8)))
    with expect_error(ValueError, "must hold one row of boxes", "without fields"):
        read_boxes(path)
    for name, dtype in (("x", "U4"), ("w", "?"), ("h", ("f4", 2))):
        np.save(path, np.zeros(2, list({**dict(NEW_BOXES), name: dtype}.items())))
        said = "must hold boxes whose fields are numbers"
        with expect_error(ValueError, "boxes_bbox.npy", said, f"{name} of "):
            read_boxes(path)


# Arrays


def test_arrays_of_events_are_read_from_both_kinds_of_file(tmp_path):
    events = made_events(100, seed=1)
    np.savez_compressed(tmp_path / "events.npz", **arrays_of(events), other=np.zeros(3))
    kinds = [("timestamp", "u4"), ("x", "u1"), ("y", "u1"), ("polarity", "?")]
    structured = np.zeros(100, kinds)
    for name, values in arrays_of(events).items():
        structured[name] = values
    np.save(tmp_path / "events.npy", structured)
    for name in ("events.npz", "events.npy"):
        assert rows_of(read_arrays(tmp_path / name)) == rows_of(events)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"x": np.zeros(2, int)}, "same length"),
        (dict.fromkeys(FIELDS, np.zeros(0, int)), "none"),
        ({"x": np.array([-1, 0, 0])}, "Its smallest is -1"),
        ({"polarity": np.array([1, 2, 1])}, "from 1 to 2"),
        ({"polarity": np.array([1, -1, 1])}, "pass polarity == 1."),
        ({"timestamp": np.array([3, 5, 4], "uint32")}, "Event 2 is at 4"),
        ({"timestamp": np.array([0.0, 0.1, 0.2])}, "float64. Round it, np.rint("),
        ({"timestamp": np.array([0.0, 0.1, 0.2])}, "multiply seconds by 1e6"),
    ],
)
def test_the_error_explains_why_arrays_are_not_a_recording(tmp_path, changed, said):
    arrays = {**dict.fromkeys(FIELDS, np.zeros(3, int)), **changed}
    with expect_error((TypeError, ValueError), said):
        Events(**arrays)
    np.savez(tmp_path / "events.npz", **arrays)
    with expect_error(ValueError, tmp_path / "events.npz", said):
        read_arrays(tmp_path / "events.npz")


def test_the_error_names_a_file_without_arrays_of_events(tmp_path):
    npz, npy = tmp_path / "events.npz", tmp_path / "events.npy"
    np.savez(npz, x=np.zeros(3), y=np.zeros(3), t=np.zeros(3))
    with expect_error(ValueError, npz, "has no polarity, timestamp", "holds: x, y, t"):
        read_arrays(npz)
    np.save(npy, np.zeros((4, 3)))
    with expect_error(ValueError, npy, "has no x, y, polarity, timestamp"):
        read_arrays(npy)
    np.savez(npz, **arrays_of(made_events(100, seed=0)))
    whole = npz.read_bytes()
    for content in (b"text", whole[:-100], whole[:300] + bytes(200) + whole[500:]):
        npz.write_bytes(content)
        with expect_error(ValueError, "NumPy cannot read", npz):
            read_arrays(npz)


def test_structured_arrays_come_in_and_go_out_unchanged():
    columns = [3, 5], [7, 9], [1, 0], [10, 20]
    events = Events(*map(np.array, columns))
    array = to_structured(events)
    assert array.dtype.names == ("x", "y", "t", "p")
    assert array.tolist() == [(3, 7, 10, True), (5, 9, 20, False)]
    back = from_structured(array)
    assert rows_of(back) == rows_of(events)
    back.x[:] = 0
    assert array["x"].tolist() == [3, 5]
    # Those of sound have no rows.
    assert rows_of(from_structured(array[["t", "x", "p"]])) == [
        (3, 0, 1, 10),
        (5, 0, 0, 20),
    ]


@pytest.mark.parametrize(
    ("use", "kind", "said"),
    [
        (
            lambda: from_structured(np.zeros(3)),
            ValueError,
            "`array` must have the fields x, y, t and p.*without fields",
        ),
        (
            lambda: from_structured(
                np.array([(9, 0, 1), (8, 0, 1)], [(name, "i8") for name in "txp"])
            ),
            ValueError,
            BACKWARDS,
        ),
        (
            lambda: to_structured(Events(*np.array([[40000], [7], [1], [10]]))),
            ValueError,
            "`x` must fit in int16.*40000",
        ),
        (
            lambda: write_aedat(
                "events.aedat", Events(*np.array([[128], [7], [1], [0]]))
            ),
            ValueError,
            "of a sensor of 128x128 pixels. Received: the coordinate 128",
        ),
        (
            lambda: write_aedat(
                "events.aedat", Events(*np.ones((3, 2), int), np.array([0, 2**31]))
            ),
            ValueError,
            r"must not pause for 2\*\*31 microseconds",
        ),
        (
            lambda: Events(np.ones(1, int), [1], np.ones(1, int), np.ones(1, int)),
            TypeError,
            re.escape("`y` must be an array of integers. Received: y=[1] of type list"),
        ),
    ],
)
def test_arrays_that_are_not_in_this_form_are_an_error(use, kind, said):
    with pytest.raises(kind, match=said):
        use()
