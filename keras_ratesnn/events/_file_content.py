"""The content of a file of events, and the error for one that is damaged."""

import pathlib

from keras_ratesnn._core import checks
from keras_ratesnn.events.recording import check_size


def whole_file(path):
    """The path as a string and the bytes of a file; raises an error for one that is too large or a pipe, before it is read."""
    path, size = checks.file("path", path)
    check_size(path, size)
    return path, pathlib.Path(path).read_bytes()


def damaged(path, form, byte, what):
    """The error for a file that is not a whole file of its form."""
    return ValueError(f"{path} is not a whole {form}, at byte {byte}: {what}. Unpack or download it again, or leave it out.")


def recording_of(path, make):
    """`make()`, which makes `Events`; what is wrong with them is an error that names the file."""
    try:
        return make()
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} does not hold a recording. {error}") from error
