"""The folder that a run leaves its results in, and from which it goes on after it was stopped.

settings.json   what the run was asked to do
log.csv         a row for each epoch
tensorboard/    the same, for TensorBoard
last.keras      the model and its optimizer after the last finished epoch, and how the run came there
best.keras      those of the epoch with the highest test accuracy
result.json     how it came out, once all epochs are through
lock            the number of the process that is running
"""

import contextlib
import fcntl
import json
import math
import os
import pathlib
import shutil

import numpy as np

from recipes import checkpoint
from recipes.progress import Progress
from recipes.whole_file import one_line, write_json, writing

CHECKPOINTS_KEPT = 4
"""Room for the last and the best one, and for each while it is written."""

RESULT = {"settings": dict, "backend": str, "test_accuracy": float | None}
"""What every result has, and of which type. A run that diverged has no test accuracy."""


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
        self.last = self.path / checkpoint.LAST
        self.best = self.path / checkpoint.BEST
        self.result = self.path / "result.json"

    @contextlib.contextmanager
    def lock(self):
        """Makes the folder and keeps other processes from running in it, for the time of a `with` block.

        The system unlocks it when the process ends, whatever ends it.

        Raises:
            OSError: If the folder cannot be made or written in, or another process runs in it; the message names it.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise OSError(
                f"The output folder {self.path} cannot be written in ({error.strerror or error}). Give another with --output."
            ) from error
        with open(descriptor, "r+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise OSError(
                    f"The run in {self.path} is already running, as process {file.read().strip()}. Wait for it or stop it, or "
                    "give another folder with --output."
                ) from error
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
            yield

    def prepare(self, settings, restart=False):
        """Makes sure that the folder holds no other run, before time is spent.

        Args:
            settings: Dictionary, what the run is asked to do. A run goes on only with the settings it began with.
            restart: Boolean, whether an earlier run in this folder is thrown away. Defaults to `False`.

        Raises:
            OSError: If the last checkpoint is missing, and there is the best.
            ValueError: If the folder holds a run with other settings, or a file of it is damaged.
        """
        if restart:
            self._clear()
        # As a file gives them back: a tuple becomes a list.
        settings = json.loads(json.dumps(settings))
        for path, begun in self._begun():
            changed = [key for key in settings if begun.get(key) != settings[key]]
            if changed:
                listed = ", ".join(f"{key}={begun.get(key)!r}, now {settings[key]!r}" for key in changed)
                raise ValueError(
                    f"{self.path} holds a run with other settings, by its {path.name}: {listed}. Give another folder with "
                    "--output, or throw that run away with --restart."
                )
        if not self.settings.exists():
            write_json(self.settings, settings)

    def _begun(self):
        """The settings that the run in the folder began with, by each file that tells them."""
        if self.settings.exists():
            yield self.settings, read_json(self.settings)
        if self.result.exists():
            yield self.result, self.read_result()["settings"]
        elif self.last.exists() or self.best.exists():
            yield self.last, checkpoint.load_progress(self.last).settings

    def read_result(self):
        """The record of a run that came to its end.

        Raises:
            FileNotFoundError: If it did not.
            ValueError: If the file is damaged or holds something else; the message names it.
        """
        if not self.result.exists():
            raise FileNotFoundError(f"The run in {self.path} is not finished: there is no {self.result.name} in it.")
        return read_json(self.result, RESULT)

    def check_space(self, model):
        """Makes sure that the checkpoints of a run fit on the disk.

        Args:
            model: The compiled model; its optimizer must be built.

        Raises:
            OSError: If they do not.
        """
        variables = [*model.variables, *model.optimizer.variables]
        needed = CHECKPOINTS_KEPT * sum(math.prod(v.shape) * np.dtype(v.dtype).itemsize for v in variables)
        free = shutil.disk_usage(self.path).free
        if free < needed:
            raise OSError(
                f"The disk of the output folder {self.path} has {free / 2**20:,.0f} MiB free, and the checkpoints of this run "
                f"take up to {needed / 2**20:,.0f} MiB. Make room, or give another folder with --output."
            )

    def restore(self, model, settings, train_images):
        """Gives a compiled model the state of the last checkpoint, if there is one, and writes the log of the epochs before it.

        Only values are taken over: what Keras does not save of an optimizer (which weights do not decay) stays as compiled.

        Args:
            model: The model that is to go on; its optimizer must be built.
            settings: Dictionary, what the run is asked to do.
            train_images: Integer, the number of images it trains on.

        Returns:
            The `Progress` of the run.

        Raises:
            ValueError: If the checkpoint is damaged, or of another network or of other data; the message names the file.
        """
        if not self.last.exists():
            # A run that was stopped in its first epoch, by whatever program.
            self.log.unlink(missing_ok=True)
            return Progress(settings, train_images)
        progress, saved = checkpoint.load_progress(self.last), checkpoint.load_model(self.last)
        if progress.train_images != train_images:
            raise ValueError(
                f"The run in {self.path} began with {progress.train_images:,} images for training, and the data now has "
                f"{train_images:,}. Give the data that it began with, or another folder with --output."
            )
        values, places = [[*m.variables, *m.optimizer.variables] for m in (saved, model)]
        if [value.shape for value in values] != [place.shape for place in places]:
            raise ValueError(
                f"The checkpoint {self.last} is of another network: its weights have other shapes than those of this run. "
                "Give another folder with --output, or throw that run away with --restart."
            )
        for place, value in zip(places, values, strict=True):
            place.assign(value)
        self.follow_last(progress)
        return progress

    def follow_last(self, progress):
        """Makes the best checkpoint and the log agree with the last one, that of `progress`: a run can be killed in between."""
        if progress.last_is_best or not self.best.exists():
            with writing(self.best) as part:
                shutil.copyfile(self.last, part)
        progress.write_log(self.log)

    def _clear(self):
        for path in (self.settings, self.log, self.last, self.best, self.result):
            path.unlink(missing_ok=True)
        shutil.rmtree(self.tensorboard, ignore_errors=True)


def read_json(path, fields=None):
    """The object in a JSON file.

    Args:
        path: Path of the file.
        fields: Dict from names that the object must have to their types. Defaults to `None`, for none.

    Raises:
        ValueError: If the file is damaged or holds something else; the message names it.
    """
    advice = "Correct it, or start again with --restart."
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({one_line(error)}). {advice}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a JSON object. It holds a {type(content).__name__}. {advice}")
    for name, kind in (fields or {}).items():
        if name not in content or not isinstance(content[name], kind):
            raise ValueError(
                f"{path} must have {name!r} of type {getattr(kind, '__name__', kind)}. It has: {content.get(name)!r}. {advice}"
            )
    return content
