"""The gestures of DVS128 Gesture: recordings of several gestures, cut at the times in
the file of their labels."""

import os
import pathlib
from typing import NamedTuple

import numpy as np

from keras_ratesnn.events._file_content import EventFile
from keras_ratesnn.events.aedat3 import read_aedat3
from keras_ratesnn.events.recording import Events, part_of

HEADER = "class,startTime_usec,endTime_usec"
CLASSES = 11
ENDING = "_labels.csv"


def read_gestures(
    path: str | os.PathLike[str], labels: str | os.PathLike[str] | None = None
) -> list[tuple[int, Events]]:
    """Reads a recording of DVS128 Gesture and cuts it into its gestures.

    A class may occur more than once, and gestures may overlap: each row of the file of
    labels is cut on its own, from its start to before its end.

    Args:
        path: The `.aedat` file of the recording.
        labels: The `.csv` file with class, start and end of each gesture. Defaults to
            `None`: that of the recording, `user01_led_labels.csv` for
            `user01_led.aedat`.

    Returns:
        List of pairs: the class, from 1 to 11 as in the file, and the `Events` of the
        gesture.

    Raises:
        TypeError: If `path` or `labels` is neither a string nor a path.
        OSError: If a file cannot be read.
        ValueError: If a file is too large, damaged or of another form, or a gesture has
            no events; the message names the line.

    Source: Amir et al., "A Low Power, Fully Event-Based Gesture Recognition System",
    CVPR 2017.
    """
    events = read_aedat3(path)
    if labels is None:
        recording = pathlib.Path(path)
        labels = recording.with_name(f"{recording.stem}{ENDING}")
    return [_cut(events, row, path) for row in label_rows(labels)]


class LabelRow(NamedTuple):
    """A gesture in a file of labels: its line, its class, and its time in
    microseconds."""

    line: int
    kind: int
    start: int
    end: int


def label_rows(path: str | os.PathLike[str]) -> list[LabelRow]:
    """The gestures in a file of labels; raises ValueError for another file."""
    file = EventFile(path, "file of labels")
    header, *lines = file.content().decode("ascii", errors="replace").splitlines() or [
        ""
    ]
    if header.strip() != HEADER:
        raise ValueError(
            f"The first line of {file.path} must be {HEADER}. It begins with "
            f"{header[:40]!r}. Download it again."
        )
    rows = [
        _row(file.path, number, line)
        for number, line in enumerate(lines, start=2)
        if line.strip()
    ]
    if not rows:
        raise ValueError(
            f"{file.path} must have a line for each gesture. It has none. Download it "
            "again."
        )
    return rows


def _row(path, number, line):
    fields = [field.strip() for field in line.split(",")]
    # More digits than any time has would be slow to convert.
    if len(fields) == 3 and all(
        field.isdecimal() and len(field) <= 18 for field in fields
    ):
        kind, start, end = map(int, fields)
        if 1 <= kind <= CLASSES and start < end:
            return LabelRow(number, kind, start, end)
    raise ValueError(
        f"Line {number} of {path} must be a class from 1 to {CLASSES}, a start and a "
        f"later end in microseconds, separated by commas. It is {line[:60]!r}. "
        "Download the file again."
    )


def _cut(events, row, path):
    first, last = np.searchsorted(events.timestamp, [row.start, row.end])
    if first == last:
        raise ValueError(
            f"The gesture on line {row.line} of the labels, from {row.start} to "
            f"{row.end} microseconds, must have events in {path}. Its times are from "
            f"{events.timestamp[0]} to {events.timestamp[-1]}. Do the files belong "
            "together?"
        )
    return row.kind, part_of(events, slice(first, last))
