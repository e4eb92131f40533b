"""How many samples are trained in a second, in the logs of each epoch."""

import time
from typing import Any

import keras

from keras_ratesnn._core import checks


class Throughput(keras.callbacks.Callback):
    """Adds to the logs, as `"samples_per_second"`, how many samples are trained in a second; the progress bar shows it.

    During an epoch the bar shows the mean since the epoch began. Validation is not counted. The first epoch includes the time
    in which the training step is compiled. The callback does not wait for the device, and costs next to nothing.

    Example:

    >>> inputs = keras.Input((4,))
    >>> network = keras.Model(inputs, keras.layers.Dense(2)(keras_ratesnn.layers.LIF()(inputs)))
    >>> model = keras_ratesnn.SpikingModel(network, timesteps=4)
    >>> model.compile("sgd", "mse")
    >>> x, y = np.ones((8, 4)), np.ones((8, 2))
    >>> history = model.fit(x, y, callbacks=[keras_ratesnn.callbacks.Throughput(len(x))], verbose=0).history
    >>> history["samples_per_second"][0] > 0
    True

    Args:
        samples: Integer >= 1, the number of samples in an epoch.

    Raises:
        TypeError: If `samples` is not an integer.
        ValueError: If it is not >= 1.
    """

    async_safe = True
    """Whether Keras may go on with the next step before this callback has run."""

    name = "samples_per_second"
    """The name in the logs."""

    def __init__(self, samples: int) -> None:
        super().__init__()
        self.samples = checks.positive_integer("samples", samples, advice="It is the number of samples in an epoch.")

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._began = time.perf_counter()
        self._validation = 0.0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        steps = self.params.get("steps")
        if logs is not None and steps:
            logs[self.name] = self.samples * (batch + 1) / steps / self.seconds

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._validation_began = time.perf_counter()

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        self._validation += time.perf_counter() - self._validation_began

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if logs is not None:
            logs[self.name] = self.samples / self.seconds

    @property
    def seconds(self) -> float:
        """The time since the epoch began, without validation."""
        return time.perf_counter() - self._began - self._validation
