"""The folder that a run leaves its results in, and from which it goes on after it was stopped.

settings.json   what the run was asked to do
log.csv         a row for each epoch
tensorboard/    the same, for TensorBoard
last.keras      the model and its optimizer after the last finished epoch
best.keras      those of the epoch with the highest test accuracy
result.json     how it came out, once all epochs are through
"""

import csv
import json
import math
import os
import pathlib
import shutil
import tempfile

import keras

CHECKPOINTS_KEPT = 4
"""Room for the last and the best one, and for each while it is written."""

BYTES_OF_A_NUMBER = 4


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
        self.last = self.path / "last.keras"
        self.best = self.path / "best.keras"
        self.result = self.path / "result.json"

    def prepare(self, settings, restart=False):
        """Makes the folder, and makes sure that it can be written in and holds no other run, before time is spent.

        Args:
            settings: Dictionary, what the run is asked to do. A run goes on only with the settings it began with.
            restart: Boolean, whether an earlier run in this folder is thrown away. Defaults to `False`.

        Raises:
            OSError: If the folder cannot be made or written in; the message names it.
            ValueError: If the folder holds a run with other settings.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            raise OSError(
                f"The output folder {self.path} cannot be written in ({error.strerror or error}). Give another with --output."
            ) from error
        if restart:
            self._clear()
        if self.settings.exists():
            self._check_settings(settings)
        else:
            write_json(self.settings, settings)

    def check_space(self, model):
        """Makes sure that the checkpoints of a run fit on the disk.

        Args:
            model: The compiled model; its optimizer must be built.

        Raises:
            OSError: If they do not.
        """
        variables = [*model.variables, *model.optimizer.variables]
        needed = CHECKPOINTS_KEPT * sum(math.prod(v.shape) * BYTES_OF_A_NUMBER for v in variables)
        free = shutil.disk_usage(self.path).free
        if free < needed:
            raise OSError(
                f"The disk of the output folder {self.path} has {free / 2**20:,.0f} MiB free, and the checkpoints of this run "
                f"take up to {needed / 2**20:,.0f} MiB. Make room, or give another folder with --output."
            )

    def restore(self, model, steps_per_epoch):
        """Gives a compiled model the state of the last checkpoint, if there is one, and cuts the log to the epochs before it.

        Only values are taken over: what Keras does not save of an optimizer (which weights do not decay) stays as compiled.

        Args:
            model: The model that is to go on; its optimizer must be built.
            steps_per_epoch: Integer.

        Returns:
            The number of epochs that lie behind.

        Raises:
            ValueError: If the checkpoint or the log is damaged; the message names the file.
        """
        epochs = 0
        if self.last.exists():
            saved = load_model(self.last)
            values, places = [[*m.variables, *m.optimizer.variables] for m in (saved, model)]
            for place, value in zip(places, values, strict=True):
                place.assign(value)
            epochs = int(model.optimizer.iterations) // steps_per_epoch
        self._cut_log(epochs)
        return epochs

    def rows(self):
        """The log: a dictionary of numbers for each epoch."""
        if not self.log.exists():
            return []
        with open(self.log, newline="") as file:
            return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]

    def _cut_log(self, epochs):
        """A run may have been killed after it wrote the log and before it saved the model."""
        lines = self.log.read_text().splitlines(keepends=True) if self.log.exists() else []
        if epochs and len(lines) < 1 + epochs:
            raise ValueError(
                f"{self.log} has {max(len(lines) - 1, 0)} epochs, and the checkpoint {self.last.name} beside it {epochs}. "
                "Start again with --restart, or give another folder with --output."
            )
        if lines:
            self.log.write_text("".join(lines[: 1 + epochs] if epochs else []))

    def _check_settings(self, settings):
        begun = read_json(self.settings)
        changed = [key for key in settings if begun.get(key) != settings[key]]
        if changed:
            listed = ", ".join(f"{key}={begun.get(key)!r}, now {settings[key]!r}" for key in changed)
            raise ValueError(
                f"{self.path} holds a run with other settings: {listed}. Give another folder with --output, or throw that run "
                "away with --restart."
            )

    def _clear(self):
        for path in (self.settings, self.log, self.last, self.best, self.result):
            path.unlink(missing_ok=True)
        shutil.rmtree(self.tensorboard, ignore_errors=True)


def load_model(path):
    """The model in a checkpoint.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged; the message names it.
    """
    if not path.exists():
        raise FileNotFoundError(f"There is no checkpoint {path}. `python -m recipes.train` writes it after each epoch.")
    try:
        return keras.saving.load_model(path)
    # What a damaged archive raises depends on where it is damaged.
    except Exception as error:
        raise ValueError(
            f"The checkpoint {path} is damaged ({type(error).__name__}: {error}). Start again with --restart."
        ) from error


def read_json(path):
    """The content of a JSON file.

    Raises:
        ValueError: If it is damaged; the message names it.
    """
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}). Start again with --restart.") from error


def write_json(path, content):
    """Writes a JSON file whole or not at all."""
    unfinished = path.with_name(f"unfinished-{path.name}")
    unfinished.write_text(json.dumps(content, indent=2) + "\n")
    os.replace(unfinished, path)
