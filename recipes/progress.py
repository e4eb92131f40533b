"""Progress: how far a run has come, and how. Every checkpoint holds it."""

import csv
import dataclasses

import keras

from recipes import device
from recipes.whole_file import writing

PART = ("backend", "device", "versions")


@dataclasses.dataclass
class Progress:
    """What a run was asked to do, and what came of it so far.

    Attributes:
        settings: Dict, see `Recipe.settings`.
        train_images: Integer, the number of images it trains on.
        rows: List of a dict for each finished epoch: the measures by their names in Keras' logs.
        parts: List of dicts: from which epoch on, counted from 1, the run was on which backend and device, with which versions.
            A run that goes on as it was has one.
    """

    settings: dict
    train_images: int
    rows: list = dataclasses.field(default_factory=list)
    parts: list = dataclasses.field(default_factory=list)

    @property
    def epochs(self):
        """The number of finished epochs."""
        return len(self.rows)

    @property
    def last_is_best(self):
        """Whether no epoch before the last one reached its test accuracy."""
        *others, last = [row["val_accuracy"] for row in self.rows]
        return last > max(others, default=-1.0)

    def add(self, logs):
        """Takes down an epoch that ran in this process."""
        here = this_part()
        if not self.parts or any(self.parts[-1][key] != here[key] for key in PART):
            self.parts.append({"first_epoch": self.epochs + 1, **here})
        self.rows.append({name: float(value) for name, value in sorted(logs.items())})

    def write_log(self, path):
        """Writes the rows as a CSV file, with the number of the epoch, counted from 0, in the first column."""
        with writing(path) as part, open(part, "w", newline="") as file:
            writer = csv.DictWriter(file, ["epoch", *self.rows[0]])
            writer.writeheader()
            writer.writerows({"epoch": epoch, **row} for epoch, row in enumerate(self.rows))


def this_part():
    """Backend, device and versions of this process."""
    return {"backend": keras.backend.backend(), "device": device.name(), "versions": device.versions()}
