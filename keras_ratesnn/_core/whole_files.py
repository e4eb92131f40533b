"""Files that are there whole or not at all."""

import os
import pathlib
import secrets
from collections.abc import Callable


def replace(path: str | pathlib.Path, write: Callable[[pathlib.Path], object]) -> None:
    """Writes a file beside `path` and renames it; `write` is a function of the path of
    the new file."""
    path = pathlib.Path(path)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        write(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
