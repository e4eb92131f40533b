"""Callbacks that measure every few epochs, and once when `fit` starts."""

from typing import Any

import keras

from keras_ratesnn._core import checks


class EveryEpochs(keras.callbacks.Callback):
    """Adds measurements to the logs of each epoch. Epochs without one repeat the latest, so that all have the same columns.

    Args:
        every: Integer n >= 1: measures after the first epoch of `fit`, and after every epoch whose number, counted from 0, is a
            multiple of n.

    Raises:
        TypeError: If `every` is not an integer.
        ValueError: If it is not >= 1.
    """

    adds_to_logs = True

    def __init__(self, every: int) -> None:
        super().__init__()
        self.every = checks.positive_integer("every", every, advice="It is the number of epochs between measurements.")
        self._latest: dict[str, float] = {}

    def measure(self) -> dict[str, float]:
        """The measurements, by their names in the logs."""
        raise NotImplementedError(f"{type(self).__name__} must implement `measure()`.")

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        # Data that do not fit must not end a run after its first epoch.
        self.measure()
        self._latest = {}

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if not self._latest or epoch % self.every == 0:
            self._latest = self.measure()
        if logs is not None:
            logs.update(self._latest)
