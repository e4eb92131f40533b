"""Files of N-MNIST, DVS128 Gesture, Prophesee, SHD and SSC, written byte by byte, for
tests."""

import struct

import h5py
import numpy as np

GESTURE_HEADER = (
    b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n#Start-Time: "
    b"2016-08-17 09:34:00\r\n#!END-HEADER\r\n"
)
DAT_HEADER = (
    b"% Data file containing Event2D events.\n% Version 2\n% Height 240\n% Width 304\n"
)
LABELS_HEADER = "class,startTime_usec,endTime_usec\n"


def nmnist_bytes(*events):
    """Events `(x, y, polarity, time)`."""
    return b"".join(
        bytes([x, y]) + (polarity << 23 | time).to_bytes(3, "big")
        for x, y, polarity, time in events
    )


def packet(
    *events, kind=1, size=8, time_offset=4, overflow=0, capacity=None, number=None
):
    """A packet of AEDAT 3.1 of events `(x, y, polarity, time)`, or `(x, y, polarity,
    time, is_valid)`."""
    content = b""
    for x, y, polarity, time, *valid in events:
        content += struct.pack(
            "<II", x << 17 | y << 2 | polarity << 1 | (valid[0] if valid else 1), time
        )
    capacity = len(events) if capacity is None else capacity
    number = len(events) if number is None else number
    return (
        struct.pack(
            "<HHIIIIII", kind, 1, size, time_offset, overflow, capacity, number, number
        )
        + content
    )


def dat_bytes(*events):
    """Events `(x, y, polarity, time)` of Prophesee."""
    return b"".join(
        struct.pack("<II", time, polarity << 28 | y << 14 | x)
        for x, y, polarity, time in events
    )


def write_heidelberg(path, times, units, labels, keys, speakers=None, **storage):
    """A file of SHD or SSC: lists of rows of times in seconds and of units."""
    with h5py.File(path, "w") as file:
        for name, rows, dtype in (
            ("times", times, "float16"),
            ("units", units, "uint16"),
        ):
            stored = file.create_dataset(
                f"spikes/{name}", len(rows), h5py.vlen_dtype(dtype), **storage
            )
            for number, row in enumerate(rows):
                stored[number] = np.asarray(row, dtype)
        file["labels"] = np.asarray(labels, "uint8")
        file["extra/keys"] = (
            keys if isinstance(keys, np.ndarray) else np.array(keys, "S")
        )
        if speakers is not None:
            file["extra/speaker"] = np.asarray(speakers, "uint8")
    return path


def write_spoken(folder, name, parts, classes):
    """A small SHD or SSC: files with two recordings of each class, whose channels show
    the class."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    keys = [f"word {number}" for number in range(classes)]
    for part in parts:
        labels = np.tile(np.arange(classes), 2)
        units = [
            generator.integers(20 * label, 20 * label + 20, 30) for label in labels
        ]
        times = [np.sort(generator.random(30)) for _ in labels]
        write_heidelberg(folder / f"{name}_{part}.h5", times, units, labels, keys)
    return folder
