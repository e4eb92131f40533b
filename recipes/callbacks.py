"""Callbacks of a run: measurements, seeds, detection of divergence, checkpoints."""

import math
import pathlib
import tempfile
import time

import keras
import numpy as np

from keras_ratesnn import gradients
from keras_ratesnn.callbacks import Throughput
from recipes import distribution, run_folder


class EpochMeasures(Throughput):
    """Adds seconds, whole images/s and learning rate to the logs of an epoch.

    Later callbacks and the progress bar see these values.

    Args:
        samples: Integer, the number of images in an epoch.
    """

    name = "images_per_second"

    def on_epoch_begin(self, epoch, logs=None):
        super().on_epoch_begin(epoch, logs)
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        logs[self.name] = round(logs[self.name])
        logs["seconds"] = time.perf_counter() - self.started
        logs["learning_rate"] = float(
            keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)
        )


class TwoWindowsFirst(keras.callbacks.Callback):
    """Trains the first epochs by two windows, and the others by the recipe's method.

    Args:
        recipe: A `Recipe`.
    """

    def __init__(self, recipe):
        super().__init__()
        self.epochs = recipe.two_window_epochs
        self.first, self.later = gradients.Rate(windows=2), recipe.method

    def on_epoch_begin(self, epoch, logs=None):
        spiking = getattr(self.model, "student", self.model)
        spiking.gradient = self.first if epoch < self.epochs else self.later


class SeedOfEpoch(keras.callbacks.Callback):
    """Seeds all random generators anew in each epoch, of which no checkpoint holds the
    states: those of layers and training methods, and PyTorch's own, from which Keras
    draws dropout.

    Args:
        seed: Integer, that of the run.
    """

    def __init__(self, seed):
        super().__init__()
        self.seed = seed

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
        states = [
            variable
            for variable in self.model.variables
            if variable.path.endswith("seed_generator_state")
        ]
        for number, state in enumerate(states):
            drawn = np.random.SeedSequence((self.seed, epoch, 0, number))
            # Of 31 bits, which each backend's integers hold.
            state.assign(drawn.generate_state(2) >> 1)

    def on_train_batch_begin(self, batch, logs=None):
        # Not before: PyTorch's loaders draw when they start, in the first epoch after
        # an interruption as well.
        if batch == 0 and keras.backend.backend() == "torch":
            import torch

            # The noise of each process is its own.
            process = distribution.current.process
            drawn = np.random.SeedSequence((self.seed, self.epoch, process))
            torch.manual_seed(int(drawn.generate_state(1)[0]))


class Diverged(ArithmeticError):
    """Raised if a metric of a run is not finite. `where` is for the record of the run:
    the epoch, counted from 1, the learning rate, and the message."""

    def __init__(self, name, value, epoch, learning_rate):
        message = (
            f"{name} became {value} in epoch {epoch}, which started with a learning "
            f"rate of {learning_rate:.4g}"
        )
        super().__init__(message)
        self.where = {
            "epoch": epoch,
            "learning_rate": learning_rate,
            "message": message,
        }


class StopWhereDiverged(keras.callbacks.Callback):
    """Raises `Diverged` as soon as a metric is not finite. Later callbacks see only
    finite values."""

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch + 1
        # During an epoch JAX's trainer holds the variables.
        self.learning_rate = float(
            keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)
        )

    def on_train_batch_end(self, batch, logs=None):
        # Elsewhere the metrics of a batch differ between processes that wait for each
        # other.
        if not distribution.current.is_apart:
            self._check(logs)

    def on_epoch_end(self, epoch, logs=None):
        self._check(logs)

    def _check(self, logs):
        for name, value in logs.items():
            if not math.isfinite(value):
                raise Diverged(
                    name.replace("val_", "test_"), value, self.epoch, self.learning_rate
                )


class Checkpoint(keras.callbacks.Callback):
    """Adds each epoch to the progress of a run; saves model and optimizer, again if it
    is the best so far; then writes the log.

    Args:
        trained: The model of the run, which is the fitted one or a part of it.
        progress: The `Progress` of the run, to which each epoch is added.
        folder: The `RunFolder`, where only the first process writes.
    """

    def __init__(self, trained, progress, folder):
        super().__init__()
        self.trained, self.progress, self.folder = trained, progress, folder

    def on_epoch_end(self, epoch, logs=None):
        self.progress.add(logs)
        if distribution.current.is_first:
            run_folder.save(self.trained, self.progress, self.folder.last, self.model)
            self.folder.follow_last(self.progress)
        elif not distribution.current.is_apart:
            # On JAX and TensorFlow all processes must take part when one saves.
            with tempfile.TemporaryDirectory() as folder:
                path = pathlib.Path(folder, run_folder.LAST)
                run_folder.save(self.trained, self.progress, path, self.model)
