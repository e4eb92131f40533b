"""The folder of a run, with its results and the state from which an interrupted run
resumes.

settings.json   the settings of the run
log.csv         a row for each epoch
tensorboard/    the same, for TensorBoard
last.keras      model, optimizer and progress after the last completed epoch
best.keras      the same for the epoch with the highest test score
result.json     the result, after the last epoch
predictions.png a picture of predictions, for tasks that draw one
ordinary/       the run of the ordinary network, if it is trained as well
lock            the ID of the running process

A checkpoint is a `.keras` file with the model, the optimizer and the progress of the
run. A model with a teacher or branches is stored without them, and next to it the
weights and the optimizer of all that is trained. Only the checkpoint determines where a
run resumes: the other files of the run are repaired from it.
"""

import contextlib
import csv
import dataclasses
import fcntl
import json
import os
import pathlib
import shutil
import tempfile
import zipfile

import keras

from recipes import atomic_files, device, distribution
from recipes.atomic_files import one_line, write_json, writing

LAST, BEST = "last.keras", "best.keras"
"""Names of the checkpoints of a run."""

PROGRESS = "progress.json"
"""Name inside the archive; Keras ignores unknown names."""

FITTED = "fitted.weights.h5"
"""Name inside the archive of the state of the fitted model, if that is another one."""

RESTART = "Start again with --restart."

RESULT = {"settings": dict, "backend": str}
"""Required fields of a result, with their types, besides its test score. A run that
diverged has none: it is None."""


@dataclasses.dataclass
class Progress:
    """The settings of a run, and its results so far.

    Attributes:
        settings: Dict, see `Recipe.settings`.
        train_images: Integer, the number of training images.
        rows: List of dicts, one for each completed epoch: the metrics by their names in
            Keras' logs.
        parts: List of dicts: backend, device and versions of each part of the run. A
            run that never changed them has one part.
        score: Name of the score by which the best epoch is chosen, see `Task`. Defaults
            to `"accuracy"`.
        peak_bytes: Integer, the largest peak of memory of the processes that trained
            the run so far. Defaults to `0`.
    """

    settings: dict
    train_images: int
    rows: list = dataclasses.field(default_factory=list)
    parts: list = dataclasses.field(default_factory=list)
    score: str = "accuracy"
    peak_bytes: int = 0

    @property
    def epochs(self):
        """The number of completed epochs."""
        return len(self.rows)

    @property
    def last_is_best(self):
        """Whether the last epoch has a higher test score than all epochs before it."""
        scores = [row[f"val_{self.score}"] for row in self.rows]
        return scores[-1] > max(scores[:-1], default=-1.0)

    def add(self, logs):
        """Records an epoch that ran in this process."""
        here = this_part()
        if here not in self.parts:
            self.parts.append(here)
        self.peak_bytes = max(self.peak_bytes, device.peak_bytes())
        row = {
            name: value if isinstance(value, int) else float(value)
            for name, value in sorted(logs.items())
        }
        self.rows.append(row)

    def write_log(self, path):
        """Writes the rows as a CSV file, with the number of the epoch, counted from 0,
        in the first column."""
        with writing(path) as part, open(part, "w", newline="") as file:
            writer = csv.DictWriter(file, ["epoch", *self.rows[0]])
            writer.writeheader()
            for epoch, row in enumerate(self.rows):
                writer.writerow({"epoch": epoch, **row})


def this_part():
    """Backend, devices and versions of this process."""
    devices = distribution.current.devices
    name = device.name() if devices == 1 else f"{devices} x {device.name()}"
    return {
        "backend": keras.backend.backend(),
        "device": name,
        "versions": device.versions(),
    }


# Checkpoints


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
            with zipfile.ZipFile(part, "a") as archive:
                archive.writestr(PROGRESS, json.dumps(dataclasses.asdict(progress)))
                if fitted is not model:
                    with tempfile.TemporaryDirectory() as folder:
                        weights = pathlib.Path(folder, FITTED)
                        fitted.save_weights(weights)
                        archive.write(weights, FITTED)
        # HDF5 raises RuntimeError if the disk is full.
        except RuntimeError as error:
            raise OSError(one_line(error)) from error


def load_model(path, compile=True, advice=RESTART):
    """The model in a checkpoint.

    Args:
        path: Path of the file.
        compile: Boolean, whether it is compiled as it was, with its optimizer. Defaults
            to `True`.
        advice: String, what to do about a damaged file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged; the message names it.
    """
    with _whole(path, advice):
        return keras.saving.load_model(path, compile=compile)


def load_state(path, model, fitted):
    """Loads weights and the optimizer's state into the model of a run and the model
    that `fit` trains.

    Args:
        path: Path of the file.
        model: The model, compiled, with a built optimizer.
        fitted: The model that `fit` trains, `model` itself or one around it; likewise.

    Raises:
        ValueError: If the file is damaged; the message names it.
    """
    with _whole(path):
        model.load_weights(path)
        if fitted is not model:
            with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory() as to:
                fitted.load_weights(archive.extract(FITTED, to))


def load_progress(path):
    """The `Progress` in a checkpoint; for errors see `load_model`."""
    with _whole(path), zipfile.ZipFile(path) as archive:
        return Progress(**json.loads(archive.read(PROGRESS)))


@contextlib.contextmanager
def _whole(path, advice=RESTART):
    """A context that reads a checkpoint, whose checksums are verified: h5py would
    silently read corrupted weights."""
    if not path.exists():
        raise FileNotFoundError(
            f"There is no checkpoint {path}. `python -m recipes.train` creates it."
        )
    try:
        with zipfile.ZipFile(path) as archive:
            changed = archive.testzip()
        if changed:
            raise ValueError(f"the checksum of {changed} in it is wrong")
        yield
    # The error for a damaged archive depends on where it is damaged.
    except Exception as error:
        raise ValueError(
            f"The checkpoint {path} is damaged or of another network "
            f"({type(error).__name__}: {one_line(error)}). {advice}"
        ) from error


# The folder


class RunFolder:
    """Paths, checks and reading of a run's folder.

    Args:
        path: String or path of the folder. It need not exist.
    """

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.settings = self.path / "settings.json"
        self.log = self.path / "log.csv"
        self.tensorboard = self.path / "tensorboard"
        self.last = self.path / LAST
        self.best = self.path / BEST
        self.result = self.path / "result.json"
        self.picture = self.path / "predictions.png"

    @property
    def ordinary(self):
        """The `RunFolder` of the ordinary network."""
        return RunFolder(self.path / "ordinary")

    @contextlib.contextmanager
    def lock(self):
        """Creates the folder and locks it against other processes during a `with`
        block. The system releases the lock when the process ends, for any reason.

        Raises:
            OSError: If the folder cannot be created or is not writable, or another
                process is using it; the message names it.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            file = open(self.path / "lock", "a+")  # noqa: SIM115  # Closed below.
        except OSError as error:
            raise OSError(
                f"The output folder {self.path} is not writable "
                f"({error.strerror or error}). Pass another one with --output."
            ) from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                raise OSError(
                    f"The run in {self.path} is already running, as process "
                    f"{file.read().strip()}. Wait for it or stop it, or pass another "
                    "folder with --output."
                ) from error
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
            yield

    def check(self, settings):
        """Checks that the folder does not contain another run, before time is spent.

        Args:
            settings: Dictionary, the settings of the run. A run resumes only with the
                settings it started with.

        Raises:
            ValueError: If the folder contains a run with other settings, or a damaged
                file.
        """
        # As read from a file: tuples become lists.
        settings = json.loads(json.dumps(settings))
        begun = settings
        if self.settings.exists():
            begun = read_json(self.settings)
        changed = [key for key in settings if begun.get(key) != settings[key]]
        if changed:
            listed = ", ".join(
                f"{key}={begun.get(key)!r}, now {settings[key]!r}" for key in changed
            )
            raise ValueError(
                f"{self.path} contains a run with other settings: {listed}. Pass "
                "another folder with --output, or delete that run with --restart."
            )

    def begin(self, settings, restart=False):
        """Writes the settings of a run, which is about to train.

        Args:
            settings: Dictionary, the settings of the run.
            restart: Boolean, whether to delete an earlier run in this folder. Defaults
                to `False`.
        """
        files = (self.settings, self.last, self.best, self.result)
        # Otherwise it is not the folder of a run: its contents are not ours to delete.
        if restart and any(path.exists() for path in files):
            for path in (*files, self.log, self.picture):
                path.unlink(missing_ok=True)
            for folder in (self.tensorboard, self.ordinary.path):
                shutil.rmtree(folder, ignore_errors=True)
        if not self.settings.exists():
            write_json(self.settings, settings)

    def read_result(self):
        """The record of a finished run.

        Raises:
            FileNotFoundError: If the run is not finished.
            ValueError: If the file is damaged or has the wrong content; the message
                names it.
        """
        if not self.result.exists():
            raise FileNotFoundError(
                f"The run in {self.path} is not finished: there is no "
                f"{self.result.name} in it. Name the folder of a run, such as "
                "runs/digits."
            )
        record = read_json(self.result, RESULT)
        return read_json(self.result, {_score_key(record): float | None})

    def read_test_result(self):
        """The record of a finished run that was tested on the test images.

        Raises:
            FileNotFoundError: If the run is not finished.
            ValueError: If it diverged or was tested on held-out images, or the file is
                damaged.
        """
        record = self.read_result()
        if test_score(record) is None:
            reason = record["diverged"]["message"]
            raise ValueError(
                f"The run in {self.path} diverged: {reason}. It has no "
                f"{score_name(record)}."
            )
        held_out = record["settings"].get("held_out")
        if held_out is not None:
            raise ValueError(
                f"The run in {self.path} was tested on {held_out:,} held-out training "
                "images, not on the test images. Train it again without `held_out`."
            )
        return record

    def restore(self, model, fitted, settings, train_images, score="accuracy"):
        """Loads the state of the last checkpoint, if there is one, into a compiled
        model, and rewrites the log.

        Only values are loaded: settings that Keras does not save (weights excluded from
        decay) stay as compiled.

        Args:
            model: The model of the run; its optimizer must be built.
            fitted: The model that resumes training, `model` itself or one around it;
                likewise.
            settings: Dictionary, the settings of the run.
            train_images: Integer, the number of training images.
            score: String, see `Task`. Defaults to `"accuracy"`.

        Returns:
            The `Progress` of the run.

        Raises:
            ValueError: If the checkpoint is damaged or belongs to another network or
                other data; the message names the file.
        """
        if not self.last.exists():
            # The run was interrupted in its first epoch.
            if distribution.current.is_first:
                self.log.unlink(missing_ok=True)
            return Progress(settings, train_images, score=score)
        progress = load_progress(self.last)
        if progress.train_images != train_images:
            raise ValueError(
                f"The run in {self.path} started with {progress.train_images:,} "
                f"training images, but the data now has {train_images:,}. Pass the "
                "original data, or another folder with --output."
            )
        load_state(self.last, model, fitted)
        if distribution.current.is_first:
            self.follow_last(progress)
        return progress

    @property
    def resumption(self):
        """How a run goes on that has been stopped, for people."""
        for folder in (self, self.ordinary):
            if folder.last.exists():
                return (
                    "repeat the command without --restart to resume after the last "
                    f"completed epoch, which is saved in {folder.last}"
                )
        return "repeat the command to start again"

    def follow_last(self, progress):
        """Updates the best checkpoint and the log to match the last one, of `progress`;
        a run may be killed in between."""
        if progress.last_is_best or not self.best.exists():
            with writing(self.best) as part:
                shutil.copyfile(self.last, part)
        progress.write_log(self.log)


@contextlib.contextmanager
def complete(what):
    """A context in which a record that lacks a field is a ValueError, which names
    `what` was read."""
    try:
        yield
    except KeyError as error:
        raise ValueError(
            f"{what} lacks {error}: it does not belong to a run of this version."
        ) from error


def test_score(record):
    """The test score of a run, or None if it diverged."""
    return record[_score_key(record)]


def score_name(record):
    """The name of the test score of a run for people, like "test accuracy"; it may be
    of held-out images."""
    name = _score_key(record).replace("_", " ")
    if record["settings"].get("held_out") is None:
        return name
    return name.replace("test", "held-out", 1)


def _score_key(record):
    # Earlier versions did not write the score: all their recipes classify.
    return f"test_{record.get('score', 'accuracy')}"


def read_json(path, fields=None):
    """`atomic_files.read_json` of a file in a run's folder."""
    return atomic_files.read_json(
        path, fields, advice="Correct it, or start again with --restart."
    )
