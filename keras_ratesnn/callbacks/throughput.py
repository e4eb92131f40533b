"""How many samples are trained in a second, in the logs of each epoch."""

import time
from typing import Any

import keras

from keras_ratesnn._core import checks


class Throughput(keras.callbacks.Callback):
    """Adds to the logs, as `"samples_per_second"`, how many samples are trained in a
    second; the progress bar shows it.

    During an epoch the bar shows the mean since the epoch began. Validation and what
    other callbacks do at the end of an epoch are not counted. The first epoch includes
    the time in which the training step is compiled. The callback does not make Keras
    wait for the device, and costs next to nothing.

    Example:

    >>> inputs = keras.Input((4,))
    >>> network = keras.Model(
    ...     inputs, keras.layers.Dense(2)(keras_ratesnn.layers.LIF()(inputs))
    ... )
    >>> model = keras_ratesnn.SpikingModel(network, timesteps=4)
    >>> model.compile("sgd", "mse")
    >>> x, y = np.ones((8, 4)), np.ones((8, 2))
    >>> history = model.fit(
    ...     x, y, callbacks=[keras_ratesnn.callbacks.Throughput(len(x))], verbose=0
    ... ).history
    >>> history["samples_per_second"][0] > 0
    True

    Args:
        samples: Integer >= 1, the number of samples in an epoch.

    Raises:
        TypeError: If `samples` is not an integer.
        ValueError: If it is not >= 1.
    """

    # Keras may go on with the next step before this callback has run. Otherwise it
    # would wait for the device in each step.
    async_safe = True

    adds_to_logs = True

    name = "samples_per_second"
    """The name in the logs; a subclass may choose another."""

    def __init__(self, samples: int) -> None:
        super().__init__()
        self.samples = checks.positive_integer(
            "samples", samples, advice="It is the number of samples in an epoch."
        )

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._began = time.perf_counter()

    def on_train_batch_end(
        self, batch: int, logs: dict[str, Any] | None = None
    ) -> None:
        self._seconds = time.perf_counter() - self._began
        steps = self.params.get("steps")
        if logs is not None and steps:
            logs[self.name] = self.samples * (batch + 1) / steps / self._seconds

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        # Up to the last step: neither validation nor other callbacks are counted.
        if logs is not None:
            logs[self.name] = self.samples / self._seconds
