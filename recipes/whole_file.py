"""Atomic writing of files."""

import contextlib
import json
import os


@contextlib.contextmanager
def writing(path):
    """Writes a file atomically: if the writer fails or is killed, the previous file remains.

    Args:
        path: Path of the file.

    Yields:
        A temporary path to write to. Remains of a killed writer are overwritten by the next one.

    Raises:
        OSError: If the file cannot be written; the message names it.
    """
    part = path.with_name(f"unfinished-{path.name}")
    try:
        yield part
        # Written to disk before it is renamed, to be safe against power cuts.
        with open(part, "rb") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        raise OSError(f"{path} cannot be written ({one_line(error)}). Free some space, or pass another folder.") from error
    finally:
        # An earlier error is more important.
        with contextlib.suppress(OSError):
            part.unlink()


def write_json(path, content):
    """Writes a JSON file atomically."""
    with writing(path) as part:
        part.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")


def one_line(error):
    """The message of an exception on one line."""
    return " ".join(str(error).split()) or type(error).__name__
