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
"""

import contextlib
import fcntl
import json
import math
import os
import pathlib
import shutil

from recipes import atomic_files, checkpoint
from recipes.atomic_files import write_json, writing
from recipes.progress import Progress

CHECKPOINTS_KEPT = 4
"""The last and the best checkpoint, and a second copy of each while it is written."""

RESULT = {"settings": dict, "backend": str}
"""Required fields of a result, with their types, besides its test score. A run that
diverged has none: it is None."""


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
        self.picture = self.path / "predictions.png"

    @property
    def ordinary(self):
        """The `RunFolder` of the ordinary network."""
        return RunFolder(self.path / "ordinary")

    @contextlib.contextmanager
    def lock(self):
        """Creates the folder and locks it against other processes during a `with`
        block.

        The system releases the lock when the process ends, for any reason. Of a run
        that has not begun by then, because of a mistake, neither the lock nor the new
        folder is left.

        Raises:
            OSError: If the folder cannot be created or is not writable, or another
                process is using it; the message names it.
        """
        made = [
            folder for folder in (self.path, *self.path.parents) if not folder.exists()
        ]
        with self._locked() as file:
            try:
                self._name_process(file.fileno())
                yield
            finally:
                if not self._has_run():
                    (self.path / "lock").unlink(missing_ok=True)
                    with contextlib.suppress(OSError):
                        for folder in made:
                            folder.rmdir()

    def _locked(self):
        """The open file of the lock, which this process holds."""
        path = self.path / "lock"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            file = open(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+")  # noqa: SIM115  # The caller closes it.
        except OSError as error:
            raise OSError(
                f"The output folder {self.path} is not writable "
                f"({error.strerror or error}). Pass another one with --output."
            ) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            with file:
                raise OSError(
                    f"The run in {self.path} is already running, as process "
                    f"{file.read().strip()}. Wait for it or stop it, or pass another "
                    "folder with --output."
                ) from error
        if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return file
        # Another process has ended in between, and removed it.
        file.close()
        return self._locked()

    def _name_process(self, lock):
        """Writes the ID of this process to the file of the lock, a file descriptor."""
        try:
            os.ftruncate(lock, 0)
            os.write(lock, f"{os.getpid()}\n".encode())
        except OSError as error:
            raise atomic_files.cannot_be_written(
                self.path / "lock", error.strerror
            ) from error

    def check(self, settings):
        """Checks that the folder does not contain another run, before time is spent.

        Args:
            settings: Dictionary, the settings of the run. A run resumes only with the
                settings it started with.

        Raises:
            OSError: If the last checkpoint is missing but the best one exists.
            ValueError: If the folder contains a run with other settings, or a damaged
                file.
        """
        # As read from a file: tuples become lists.
        settings = json.loads(json.dumps(settings))
        for path, begun in self._begun():
            changed = [key for key in settings if begun.get(key) != settings[key]]
            if changed:
                listed = ", ".join(
                    f"{key}={begun.get(key)!r}, now {settings[key]!r}"
                    for key in changed
                )
                raise ValueError(
                    f"{self.path} contains a run with other settings, according to its "
                    f"{path.name}: {listed}. Pass another folder with --output, or "
                    "delete that run with --restart."
                )

    def begin(self, settings, restart=False):
        """Writes the settings of a run, which is about to train.

        Args:
            settings: Dictionary, the settings of the run.
            restart: Boolean, whether to delete an earlier run in this folder. Defaults
                to `False`.
        """
        if restart:
            self._clear()
        if not self.settings.exists():
            write_json(self.settings, settings)

    def _begun(self):
        """Yields each file that contains the settings of the run in the folder, and
        these settings."""
        if self.settings.exists():
            yield self.settings, read_json(self.settings)
        if self.result.exists():
            yield self.result, self.read_result()["settings"]
        elif self.last.exists() or self.best.exists():
            yield self.last, checkpoint.load_progress(self.last).settings

    def read_result(self):
        """The record of a finished run.

        Raises:
            FileNotFoundError: If the run is not finished.
            ValueError: If the file is damaged or has the wrong content; the message
                names it.
        """
        if not self.result.exists():
            if not self.path.is_dir():
                raise FileNotFoundError(
                    f"There is no folder {self.path}. Name the folder of a run, such "
                    "as runs/digits."
                )
            raise FileNotFoundError(
                f"The run in {self.path} is not finished: there is no "
                f"{self.result.name} in it."
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

    def check_space(self, model, fitted):
        """Checks that the checkpoints of a run fit on the disk.

        Args:
            model: The compiled model; its optimizer must be built.
            fitted: The model that `fit` trains, `model` itself or one around it;
                likewise.

        Raises:
            OSError: If they do not fit.
        """
        stored = [model] if fitted is model else [model, fitted]
        needed = CHECKPOINTS_KEPT * sum(map(checkpoint.size_of, stored))
        free = shutil.disk_usage(self.path).free
        if free < needed:
            raise OSError(
                f"The disk of the output folder {self.path} has {free // 2**20:,} MiB "
                "free, but the checkpoints of this run take up to "
                f"{math.ceil(needed / 2**20):,} MiB. Free some space, or pass another "
                "folder with --output."
            )

    def restore(
        self, model, fitted, settings, train_images, score="accuracy", writes=True
    ):
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
            writes: Boolean, whether this process writes the files of the run. Defaults
                to `True`.

        Returns:
            The `Progress` of the run.

        Raises:
            ValueError: If the checkpoint is damaged or belongs to another network or
                other data; the message names the file.
        """
        if not self.last.exists():
            # The run was interrupted in its first epoch.
            if writes:
                self.log.unlink(missing_ok=True)
            return Progress(settings, train_images, score=score)
        progress, saved = (
            checkpoint.load_progress(self.last),
            checkpoint.load_model(self.last, compile=False),
        )
        if progress.train_images != train_images:
            raise ValueError(
                f"The run in {self.path} started with {progress.train_images:,} "
                f"training images, but the data now has {train_images:,}. Pass the "
                "original data, or another folder with --output."
            )
        if [variable.shape for variable in saved.variables] != [
            variable.shape for variable in model.variables
        ]:
            raise ValueError(
                f"The checkpoint {self.last} belongs to another network: the shapes of "
                "its weights differ. Pass another folder with --output, or delete that "
                "run with --restart."
            )
        checkpoint.load_state(self.last, model, fitted)
        if writes:
            self.follow_last(progress)
        return progress

    @property
    def resumption(self):
        """How a run goes on that has been stopped, for people."""
        last = next(
            (folder.last for folder in (self, self.ordinary) if folder.last.exists()),
            None,
        )
        if last is None:
            return "repeat the command to start again"
        return (
            "repeat the command without --restart to resume after the last "
            f"completed epoch, which is saved in {last}"
        )

    def follow_last(self, progress):
        """Updates the best checkpoint and the log to match the last one, of `progress`;
        a run may be killed in between."""
        if progress.last_is_best or not self.best.exists():
            with writing(self.best) as part:
                shutil.copyfile(self.last, part)
        progress.write_log(self.log)

    def _has_run(self):
        """Whether the folder is that of a run, which has begun."""
        return any(
            path.exists() for path in (self.settings, self.last, self.best, self.result)
        )

    def _clear(self):
        if not self._has_run():
            # Not the folder of a run: its contents are not ours to delete.
            return
        for path in (
            self.settings,
            self.log,
            self.last,
            self.best,
            self.result,
            self.picture,
        ):
            path.unlink(missing_ok=True)
        for folder in (self.tensorboard, self.ordinary.path):
            shutil.rmtree(folder, ignore_errors=True)


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
    return (
        name
        if record["settings"].get("held_out") is None
        else name.replace("test", "held-out", 1)
    )


def _score_key(record):
    # Earlier versions did not write the score: all their recipes classify.
    return f"test_{record.get('score', 'accuracy')}"


def read_json(path, fields=None):
    """`atomic_files.read_json` of a file in a run's folder."""
    return atomic_files.read_json(
        path, fields, advice="Correct it, or start again with --restart."
    )
