"""A checkpoint: a `.keras` file, with the progress of its run beside the model and the optimizer.

It alone decides where a run goes on: the other files of a run are mended from it.
"""

import dataclasses
import json
import shlex
import zipfile
import zlib

import keras

from recipes.progress import Progress
from recipes.whole_file import one_line, writing

LAST, BEST = "last.keras", "best.keras"
"""Names of the checkpoints of a run."""

PROGRESS = "progress.json"
"""Name within the archive; Keras reads the names that it knows."""


def save(model, progress, path):
    """Writes a checkpoint.

    Args:
        model: The model, with its optimizer.
        progress: `Progress` of its run.
        path: Path of the file.
    """
    with writing(path) as part:
        try:
            model.save(part)
        # HDF5 has a class of its own for a disk that is full.
        except RuntimeError as error:
            raise OSError(one_line(error)) from error
        with zipfile.ZipFile(part, "a") as archive:
            archive.writestr(PROGRESS, json.dumps(dataclasses.asdict(progress)))


def load_model(path):
    """The model in a checkpoint.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged; the message names it.
    """
    _check(path)
    try:
        return keras.saving.load_model(path)
    # What a damaged archive raises depends on where it is damaged.
    except Exception as error:
        raise _damaged(path, error) from error


def load_progress(path):
    """The `Progress` in a checkpoint.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged; the message names it.
    """
    _check(path)
    try:
        with zipfile.ZipFile(path) as archive:
            return Progress(**json.loads(archive.read(PROGRESS)))
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, error) from error


def _check(path):
    """Makes sure that every byte is as it was written: h5py would read changed weights without a word."""
    if not path.exists():
        raise FileNotFoundError(f"There is no checkpoint {path}. {_advice(path, '`python -m recipes.train` writes it.')}")
    try:
        with zipfile.ZipFile(path) as archive:
            changed = archive.testzip()
    except (OSError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise _damaged(path, error) from error
    if changed:
        raise _damaged(path, ValueError(f"{changed} in it is not as it was written"))


def _damaged(path, error):
    return ValueError(f"The checkpoint {path} is damaged ({type(error).__name__}: {one_line(error)}). {_advice(path)}")


def _advice(path, otherwise="Start again with --restart."):
    """What is left of the run: the best epoch, if that is whole."""
    best = path.with_name(BEST)
    if path.name != LAST or not best.exists():
        return otherwise
    try:
        epochs = load_progress(best).epochs
    except ValueError:
        return f"{BEST} beside it is damaged, too: start again with --restart."
    return (
        f"To go on after epoch {epochs}, the best: `{shlex.join(['cp', str(best), str(path)])}`. Or start again with --restart."
    )
