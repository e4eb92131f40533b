"""Atomic writing of files, reading with checks, and what may be in their names."""

import contextlib
import json
import os
import re


@contextlib.contextmanager
def writing(path, part=None, advice="Free some space, or pass another folder."):
    """Writes a file atomically: if the writer fails or is killed, the previous file
    remains.

    Args:
        path: Path of the file.
        part: Name of the temporary file. Defaults to `None`, the same for all
            processes.
        advice: String, what to do if it cannot be written.

    Yields:
        A temporary path to write to. Remains of a killed writer are overwritten by the
        next one.

    Raises:
        OSError: If the file cannot be written; the message names it.
    """
    part = path.with_name(part or f".unfinished-{path.name}")
    try:
        yield part
        # Written to disk before it is renamed, to be safe against power cuts.
        with open(part, "rb") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        what = f"{path} cannot be written ({one_line(error)})."
        raise OSError(f"{what} {advice}") from error
    finally:
        # An earlier error is more important.
        with contextlib.suppress(OSError):
            part.unlink()


def write_json(path, content):
    """Writes a JSON file atomically."""
    with writing(path) as part:
        part.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")


ADVICE = "Correct it, or remove it."


@contextlib.contextmanager
def _whole(path, advice=ADVICE):
    """A context in which what is read of a file is not damaged, or the error names
    it."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({one_line(error)}). {advice}") from error


def read_json(path, fields=None, advice=ADVICE):
    """Reads an object from a JSON file.

    Args:
        path: Path of the file.
        fields: Dict of required names to their types. Defaults to `None`, no required
            names.
        advice: String, what to do about a wrong file.

    Raises:
        ValueError: If the file is damaged or has the wrong content; the message names
            it.
    """
    with _whole(path, advice):
        content = json.loads(path.read_text())
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} must contain a JSON object. It contains a "
            f"{type(content).__name__}. {advice}"
        )
    for name, kind in (fields or {}).items():
        if name not in content or not isinstance(content[name], kind):
            raise ValueError(
                f"{path} must have {name!r} of type {getattr(kind, '__name__', kind)}. "
                f"It has: {content.get(name)!r}. {advice}"
            )
    return content


def read_lines(path):
    """The objects in a file with a JSON object on each line, a list; empty if there is
    no file. For errors see `read_json`."""
    with _whole(path):
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines]


def allowed(name):
    """A name without what the names of files cannot have somewhere, such as the `:` of
    a method's name."""
    return re.sub(r"[^\w.,+=-]", ".", name)


def one_line(error):
    """The message of an exception on one line."""
    return " ".join(str(error).split()) or type(error).__name__
