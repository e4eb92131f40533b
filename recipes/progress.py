"""The progress of a run, which is stored in every checkpoint."""

import csv
import dataclasses

import keras

from recipes import device, engine
from recipes.atomic_files import writing

PART = ("backend", "device", "versions")


@dataclasses.dataclass
class Progress:
    """The settings of a run, and its results so far.

    Attributes:
        settings: Dict, see `Recipe.settings`.
        train_images: Integer, the number of training images.
        rows: List of dicts, one for each completed epoch: the metrics by their names in
            Keras' logs.
        score: Name of the score by which the best epoch is chosen, see `Task`. Defaults
            to `"accuracy"`.
        parts: List of dicts: the first epoch, counted from 1, backend, device and
            versions of each part of the run. A run that never changed them has one
            part.
        peak_bytes: Integer, the largest peak of memory of the processes that trained
            the run so far. Defaults to `0`.
    """

    settings: dict
    train_images: int
    rows: list = dataclasses.field(default_factory=list)
    parts: list = dataclasses.field(default_factory=list)
    score: str = "accuracy"
    peak_bytes: int = 0

    def check(self):
        """Raises TypeError if a value has the wrong type, as one from a file may have,
        and ValueError if there is no epoch."""
        values = {
            field.name: (getattr(self, field.name), field.type)
            for field in dataclasses.fields(self)
        }
        score = f"val_{self.score}"
        values |= {
            f"{score} of epoch {number}": (dict(row).get(score), float)
            for number, row in enumerate(self.rows, 1)
        }
        for name, (value, kind) in values.items():
            if not isinstance(value, kind):
                raise TypeError(
                    f"{name} must be of type {kind.__name__}, and is {value!r}"
                )
        if not self.rows:
            raise ValueError("no epoch is completed")

    @property
    def epochs(self):
        """The number of completed epochs."""
        return len(self.rows)

    @property
    def last_is_best(self):
        """Whether the last epoch has a higher test score than all epochs before it."""
        *others, last = [row[f"val_{self.score}"] for row in self.rows]
        return last > max(others, default=-1.0)

    def add(self, logs):
        """Records an epoch that ran in this process."""
        here = this_part()
        if not self.parts or any(self.parts[-1][key] != here[key] for key in PART):
            self.parts.append({"first_epoch": self.epochs + 1, **here})
        self.peak_bytes = max(self.peak_bytes, device.peak_bytes())
        self.rows.append({name: float(value) for name, value in sorted(logs.items())})

    def write_log(self, path):
        """Writes the rows as a CSV file, with the number of the epoch, counted from 0,
        in the first column."""
        with writing(path) as part, open(part, "w", newline="") as file:
            writer = csv.DictWriter(file, ["epoch", *self.rows[0]])
            writer.writeheader()
            writer.writerows(
                {"epoch": epoch, **row} for epoch, row in enumerate(self.rows)
            )


def this_part():
    """Backend, devices and versions of this process."""
    devices = engine.current.devices
    name = device.name() if devices == 1 else f"{devices} x {device.name()}"
    return {
        "backend": keras.backend.backend(),
        "device": name,
        "versions": device.versions(),
    }
