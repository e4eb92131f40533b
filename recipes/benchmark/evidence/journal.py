"""The file of measurements: one JSON object on each line."""

import json
import os

NAME = "evidence.jsonl"


class Journal:
    """Appends rows to a file. Each row is on disk when `write` returns, so a run that is cut off keeps it.

    Several processes may append to the same file.

    Args:
        path: Path of the file.
        **common: What every row contains besides its own content.
    """

    def __init__(self, path, **common):
        self._path = path
        self._common = common

    def write(self, row):
        """Appends a row, a dictionary of plain numbers, names, lists and dictionaries."""
        line = json.dumps({**self._common, **row}, allow_nan=True) + "\n"
        with open(self._path, "ab", buffering=0) as file:
            # A single write: lines of several processes do not mix.
            file.write(line.encode())
            os.fsync(file.fileno())


def rows(path):
    """The rows of a file, a list of dictionaries. A last line that was cut off is left out."""
    found = []
    for line in path.read_text().splitlines():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found
