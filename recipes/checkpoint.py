"""Checkpoints: `.keras` files that contain the model, the optimizer and the progress of
the run.

A model with a teacher or branches is stored without them, and next to it the weights
and the optimizer of all that is trained.

Only the checkpoint determines where a run resumes: the other files of the run are
repaired from it.
"""

import dataclasses
import json
import math
import pathlib
import shlex
import shutil
import tempfile
import zipfile
import zlib

import keras
import numpy as np

from recipes.atomic_files import one_line, writing
from recipes.progress import Progress

LAST, BEST = "last.keras", "best.keras"
"""Names of the checkpoints of a run."""

PROGRESS = "progress.json"
"""Name inside the archive; Keras ignores unknown names."""

FITTED = "fitted.weights.h5"
"""Name inside the archive of the state of the fitted model, if that is another one."""

BESIDE_ARRAYS = 2**20
"""Bytes of an HDF5 file for names, at the most."""

RANDOM = "random_states.json"
"""Name inside the archive of the states of the random generators of the fitted model,
which Keras does not save."""


def save(model, progress, path, fitted):
    """Writes a checkpoint.

    Args:
        model: The model, with its optimizer.
        progress: `Progress` of its run.
        path: Path of the file.
        fitted: The model that `fit` trains, `model` itself or one around it.
    """
    with writing(path) as part:
        try:
            model.save(part)
            state = None if fitted is model else _state_of(fitted)
        # HDF5 raises RuntimeError if the disk is full.
        except RuntimeError as error:
            raise OSError(one_line(error)) from error
        with zipfile.ZipFile(part, "a") as archive:
            archive.writestr(PROGRESS, json.dumps(dataclasses.asdict(progress)))
            states = [
                keras.ops.convert_to_numpy(state).tolist()
                for state in _random_states(fitted)
            ]
            archive.writestr(RANDOM, json.dumps(states))
            if state is not None:
                archive.writestr(FITTED, state)


def size_of(model):
    """The bytes of the weights of a compiled model and the state of its optimizer,
    which must be built."""
    return sum(
        math.prod(v.shape) * np.dtype(v.dtype).itemsize
        for v in (*model.variables, *model.optimizer.variables)
    )


def _random_states(model):
    """The variables of the random generators of a model: of its dropout, and of a
    training method that draws steps."""
    weights = {id(weight) for weight in model.weights}
    return [variable for variable in model.variables if id(variable) not in weights]


def _state_of(model):
    """The file of a model's weights and its optimizer's state, as bytes."""
    with tempfile.TemporaryDirectory() as folder:
        path, needed = pathlib.Path(folder, FITTED), size_of(model) + BESIDE_ARRAYS
        # Found out before: on a full disk HDF5 may crash. Whole models are written in
        # memory first.
        if shutil.disk_usage(folder).free < needed:
            raise OSError(
                f"a part of it of up to {math.ceil(needed / 2**20):,} MiB does not fit "
                f"in {tempfile.gettempdir()}, where it is written first; the variable "
                "TMPDIR names another folder"
            )
        model.save_weights(path)
        return path.read_bytes()


def load_model(path, compile=True):
    """The model in a checkpoint.

    Args:
        path: Path of the file.
        compile: Boolean, whether it is compiled as it was, with its optimizer. Defaults
            to `True`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged; the message names it.
    """
    _check(path)
    try:
        return keras.saving.load_model(path, compile=compile)
    # The error for a damaged archive depends on where it is damaged.
    except Exception as error:
        raise _damaged(path, error) from error


def load_state(path, model, fitted):
    """Loads weights, the optimizer's state and random states into the model of a run
    and the model that `fit` trains.

    Args:
        path: Path of the file.
        model: The model, compiled, with a built optimizer.
        fitted: The model that `fit` trains, `model` itself or one around it; likewise.

    Raises:
        ValueError: If the file is damaged; the message names it.
    """
    try:
        model.load_weights(path)
        with zipfile.ZipFile(path) as archive:
            if fitted is not model:
                with tempfile.TemporaryDirectory() as folder:
                    fitted.load_weights(archive.extract(FITTED, folder))
            # Earlier versions did not write them.
            if RANDOM in archive.namelist():
                for variable, state in zip(
                    _random_states(fitted),
                    json.loads(archive.read(RANDOM)),
                    strict=True,
                ):
                    variable.assign(state)
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
            progress = Progress(**json.loads(archive.read(PROGRESS)))
        progress.check()
        return progress
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise _damaged(path, error) from error


def _check(path):
    """Verifies the checksums of a file: h5py would silently read corrupted weights."""
    if not path.exists():
        raise FileNotFoundError(
            f"There is no checkpoint {path}. "
            f"{_advice(path, '`python -m recipes.train` creates it.')}"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            changed = archive.testzip()
    except (OSError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise _damaged(path, error) from error
    if changed:
        raise _damaged(path, ValueError(f"the checksum of {changed} in it is wrong"))


def _damaged(path, error):
    return ValueError(
        f"The checkpoint {path} is damaged ({type(error).__name__}: "
        f"{one_line(error)}). {_advice(path)}"
    )


def _advice(path, otherwise="Start again with --restart."):
    """Advice on how to continue: from the best epoch, if its file is intact."""
    best = path.with_name(BEST)
    if path.name != LAST or not best.exists():
        return otherwise
    try:
        epochs = load_progress(best).epochs
    except ValueError:
        return f"{BEST} next to it is damaged, too: start again with --restart."
    copy = shlex.join(["cp", str(best), str(path)])
    return (
        f"To resume after epoch {epochs}, the best: `{copy}`. Or start again with "
        "--restart."
    )
