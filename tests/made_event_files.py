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


def write_nmnist(folder, train=3, test=2):
    """A small N-MNIST: the folders Train and Test with recordings of each digit, whose
    place shows the digit."""
    generator = np.random.default_rng(0)
    for part, count in (("Train", train), ("Test", test)):
        for digit in range(10):
            (folder / part / str(digit)).mkdir(parents=True)
            for number in range(count):
                times = np.sort(generator.integers(0, 300_000, 60))
                events = [
                    (int(generator.integers(3 * digit, 3 * digit + 4)), 5, 1, int(time))
                    for time in times
                ]
                (folder / part / str(digit) / f"{number:05d}.bin").write_bytes(
                    nmnist_bytes(*events)
                )
    return folder


def write_gestures(folder, train=2, test=1):
    """A small DVS128 Gesture: recordings with all classes, and the lists of those for
    training and testing."""
    folder.mkdir(parents=True)
    names = [f"user{number:02d}_led.aedat" for number in range(1, train + test + 1)]
    generator = np.random.default_rng(0)
    for name in names:
        rows, events = [], []
        for kind in range(1, 12):
            start = 1000 * kind
            rows.append(f"{kind},{start},{start + 1000}\n")
            times = np.sort(generator.integers(start, start + 1000, 20))
            events += [
                (10 * kind, int(generator.integers(0, 128)), 1, int(time))
                for time in times
            ]
        (folder / name).write_bytes(GESTURE_HEADER + packet(*events))
        (folder / name.replace(".aedat", "_labels.csv")).write_text(
            LABELS_HEADER + "".join(rows)
        )
    (folder / "trials_to_train.txt").write_text("\n".join(names[:train]) + "\n")
    (folder / "trials_to_test.txt").write_text("\n".join(names[train:]) + "\n\n")
    return folder


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
