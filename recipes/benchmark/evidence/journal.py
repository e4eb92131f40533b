"""The file of measurements: one JSON object on each line."""

import json
import os

NAME = "evidence.jsonl"


def append(path, row):
    """Appends a row, a dictionary of plain numbers, names, lists and dictionaries, to a
    file.

    It is on disk when the function returns, so that a run that is cut off keeps it.
    Several processes may append to one file.
    """
    with open(path, "ab", buffering=0) as file:
        # A single write: lines of several processes do not mix.
        file.write(f"{json.dumps(row)}\n".encode())
        os.fsync(file.fileno())


def rows(path):
    """The rows of a file, a list of dictionaries. A last line that was cut off is left
    out."""
    found = []
    for line in path.read_text().splitlines():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found
