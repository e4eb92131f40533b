"""The folder that a run leaves its results in."""

import json
import pathlib
import tempfile

MODEL = "model.keras"
HISTORY = "history.json"


def prepare(folder):
    """Makes the folder if it is not there, and makes sure that a file can be written in it before time is spent on a run.

    Raises:
        OSError: If it cannot be made or written in; the message names it.
    """
    folder = pathlib.Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(
            f"The output folder {folder} cannot be written in ({error.strerror or error}). Give another with --output."
        ) from error
    return folder


def save(folder, model, record):
    """Writes the trained model and the record of its run, over those of an earlier run."""
    model.save(folder / MODEL)
    (folder / HISTORY).write_text(json.dumps(record, indent=2) + "\n")
