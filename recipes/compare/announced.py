"""What a comparison says while it trains: which run, which epoch, and about how long
the rest takes."""

import contextlib
import threading
import time

from recipes.run_folder import read_json

A_WHILE = 0.5
"""Seconds between two looks at the log of a run in another process."""


class Announced:
    """Says after each epoch which one it was.

    Args:
        methods: List of the names of the methods.
        runs: List of the runs to train, pairs `(method, seed)`, in their order.
    """

    def __init__(self, methods, runs):
        self.methods, self.runs = methods, runs
        self.trained, self.begin = 0, time.monotonic()

    def epoch(self, run, number, epochs):
        """An epoch of a run of so many epochs has ended, the one with this number."""
        self.trained += 1
        left = epochs - number + epochs * (len(self.runs) - 1 - self.runs.index(run))
        minutes = (time.monotonic() - self.begin) / self.trained * left / 60
        method, seed = run
        where = (
            f"method {self.methods.index(method) + 1} of {len(self.methods)}, "
            f"{method}, seed {seed}"
        )
        print(
            f"{where}: epoch {number} of {epochs}, about {minutes:.0f} min left",
            flush=True,
        )

    @contextlib.contextmanager
    def watching(self, run, folder):
        """A context in which another process trains a run in this `RunFolder`, where
        each epoch is a line of the log."""
        ended = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(run, folder, ended))
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()

    def _watch(self, run, folder, ended):
        said, is_last_look = _epochs(folder), False
        while not is_last_look:
            is_last_look = ended.wait(A_WHILE)
            for number in range(said + 1, _epochs(folder) + 1):
                self.epoch(run, number, read_json(folder.settings)["epochs"])
                said = number


def _epochs(folder):
    """The number of epochs in the log of a run."""
    return len(folder.log.read_text().splitlines()) - 1 if folder.log.exists() else 0
