"""A training step on several devices, timed in a process of its own, or one for each device: see `scaling`."""

import dataclasses
import json
import pathlib
import statistics
import sys
import time

import keras
import numpy as np

from recipes import device, engine
from recipes.benchmark import cases
from recipes.benchmark.settings import Settings

STEPS = 8
"""Steps in an epoch."""

WARM_UP_EPOCHS = 5
"""On PyTorch a step is recorded after 32 calls; elsewhere the first epoch compiles it."""


class Times(keras.callbacks.Callback):
    """The durations of epochs, in seconds."""

    def on_train_begin(self, logs=None):
        self.seconds = []

    def on_epoch_begin(self, epoch, logs=None):
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        device.synchronize()
        self.seconds.append(time.perf_counter() - self.started)


def main(settings, method, devices, file):
    """Writes seconds a step, and on JAX bytes, to a JSON file.

    Args:
        settings: String, `Settings` as a JSON object, with one T and the global batch.
        method: Name of the method.
        devices: String, the number of devices.
        file: Path of the file.
    """
    this_process = engine.start(int(devices))
    settings = Settings(**json.loads(settings))
    cases.configure(settings)
    number, parts = this_process.part
    images, labels = (keras.ops.convert_to_numpy(array) for array in cases.batch(settings))
    with this_process.scope():
        model = cases.trainer(settings, method, settings.timesteps[0])
        times = Times()
        model.fit(
            np.concatenate([images[number::parts]] * STEPS),
            np.concatenate([labels[number::parts]] * STEPS),
            batch_size=settings.batch // parts,
            epochs=WARM_UP_EPOCHS + settings.rounds,
            shuffle=False,
            verbose=0,
            callbacks=[times],
        )
        seconds = statistics.median(times.seconds[WARM_UP_EPOCHS:]) / STEPS
        row = {"seconds": seconds, "settings": dataclasses.asdict(settings), "device": device.name()}
        if keras.backend.backend() == "jax" and this_process.devices > 1:
            from recipes.benchmark import communication

            row["bytes"] = communication.in_step(model, images, labels)
    if this_process.is_first:
        pathlib.Path(file).write_text(json.dumps(row))


if __name__ == "__main__":
    main(*sys.argv[1:])
