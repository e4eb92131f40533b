"""Files that are there whole or not at all."""

import contextlib
import json
import os


@contextlib.contextmanager
def writing(path):
    """A file that gets its name when it is whole: a writer that fails or is killed leaves what had the name before.

    Args:
        path: Path of the file.

    Yields:
        Path to write it to. What is left there of a writer that was killed is overwritten by the next one.

    Raises:
        OSError: If it cannot be written; the message names it.
    """
    part = path.with_name(f"unfinished-{path.name}")
    try:
        yield part
        # On the disk before its name is: a power cut is no worse than a kill.
        with open(part, "rb") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        raise OSError(f"{path} cannot be written ({one_line(error)}). Make room, or give another folder.") from error
    finally:
        # Whatever went wrong before matters more.
        with contextlib.suppress(OSError):
            part.unlink()


def write_json(path, content):
    """Writes a JSON file whole or not at all."""
    with writing(path) as part:
        part.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")


def one_line(error):
    """What an exception says, on one line: some libraries take several."""
    return " ".join(str(error).split()) or type(error).__name__
