"""Callbacks of a run: measurements, detection of divergence, checkpoints, logs for
TensorBoard."""

import math
import pathlib
import tempfile
import time

import keras
import numpy as np

from keras_ratesnn.callbacks import Throughput
from recipes import checkpoint
from recipes.atomic_files import cannot_be_written
from recipes.packages import tensorflow_for_data


class EpochMeasures(Throughput):
    """Adds seconds, images/s and learning rate to the logs of an epoch.

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
        logs["seconds"] = time.perf_counter() - self.started
        logs["learning_rate"] = float(
            keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)
        )


class SeedOfEpoch(keras.callbacks.Callback):
    """Seeds PyTorch's own generators anew in each epoch: Keras draws dropout from them,
    and no checkpoint holds their states.

    Args:
        seed: Integer, that of the run.
        process: Integer, the number of this process, whose noise is its own.
    """

    def __init__(self, seed, process):
        super().__init__()
        self.seed, self.process = seed, process

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        # Not before: PyTorch's loaders draw when they start, in the first epoch after
        # an interruption as well.
        if batch == 0 and keras.backend.backend() == "torch":
            import torch

            torch.manual_seed(
                int(
                    np.random.SeedSequence(
                        (self.seed, self.epoch, self.process)
                    ).generate_state(1)[0]
                )
            )


class Diverged(ArithmeticError):
    """Raised if a metric of a run is not finite, with the `epoch`, counted from 1, and
    the `learning_rate`."""

    def __init__(self, name, value, epoch, learning_rate):
        super().__init__(
            f"{name} became {value} in epoch {epoch}, which started with a learning "
            f"rate of {learning_rate:.4g}"
        )
        self.epoch = epoch
        self.learning_rate = learning_rate


class StopWhereDiverged(keras.callbacks.Callback):
    """Raises `Diverged` as soon as a metric is not finite. Later callbacks see only
    finite values.

    Args:
        each_batch: Boolean, whether to look at each batch, or only at each epoch, where
            the metrics of a batch differ between processes that wait for each other.
    """

    def __init__(self, each_batch):
        super().__init__()
        self.each_batch = each_batch

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch + 1
        # During an epoch JAX's trainer holds the variables.
        self.learning_rate = float(
            keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)
        )

    def on_train_batch_end(self, batch, logs=None):
        if self.each_batch:
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
        folder: The `RunFolder`, or None in another process than the first, which writes
            nothing there.
        is_apart: Boolean, as `engine.Engine.is_apart`.
    """

    def __init__(self, trained, progress, folder, is_apart):
        super().__init__()
        self.trained, self.progress, self.folder, self.is_apart = (
            trained,
            progress,
            folder,
            is_apart,
        )

    def on_epoch_end(self, epoch, logs=None):
        self.progress.add(logs)
        if self.folder is not None:
            checkpoint.save(self.trained, self.progress, self.folder.last, self.model)
            self.folder.follow_last(self.progress)
        elif not self.is_apart:
            # On JAX and TensorFlow all processes must take part when one saves.
            with tempfile.TemporaryDirectory() as folder:
                checkpoint.save(
                    self.trained,
                    self.progress,
                    pathlib.Path(folder, checkpoint.LAST),
                    self.model,
                )


class TensorBoard(keras.callbacks.Callback):
    """Writes the logs of each epoch for TensorBoard, to the folders `train` and
    `validation`, as Keras' callback does.

    Keras' callback creates its files when training and validation begin: on a full disk
    it would end a run before its first checkpoint, with an error of TensorFlow.

    Args:
        folder: Path.
    """

    def __init__(self, folder):
        super().__init__()
        self.folder = folder
        self.writers = {}

    def on_epoch_end(self, epoch, logs=None):
        tf = tensorflow_for_data()
        try:
            for name, value in logs.items():
                part = "validation" if name.startswith("val_") else "train"
                if part not in self.writers:
                    self.writers[part] = tf.summary.create_file_writer(
                        str(self.folder / part)
                    )
                with self.writers[part].as_default():
                    tf.summary.scalar(
                        f"epoch_{name.removeprefix('val_')}", value, step=epoch
                    )
            for writer in self.writers.values():
                writer.flush()
        except tf.errors.OpError as error:
            # The rest of the message tells TensorFlow's own operations.
            reason = error.message.splitlines()[0].rpartition("; ")[2]
            raise cannot_be_written(self.folder, reason) from error

    def on_train_end(self, logs=None):
        for writer in self.writers.values():
            writer.close()
