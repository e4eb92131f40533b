"""Callbacks that give each batch of training its own number of time steps."""

from collections.abc import Collection
from typing import Any

import keras

from keras_ratesnn import _graph
from keras_ratesnn._core import keras_internals
from keras_ratesnn._core.annotations import Structure
from keras_ratesnn._model.input_checks import inputs_with_time
from keras_ratesnn.callbacks._measured import measured
from keras_ratesnn.metrics import AnytimeAccuracy


class TimestepsOfBatches(keras.callbacks.Callback):
    """Trains each batch with the number of time steps that `timesteps_of` returns; else the model has its own.

    Attributes:
        numbers: The numbers of time steps that `timesteps_of` can return.
        arguments: Dictionary, the arguments of the callback that determine them, for messages.
    """

    numbers: Collection[int]
    arguments: dict[str, Any]
    changes_timesteps = True

    def __init__(self) -> None:
        super().__init__()
        self._in_fit = False

    def timesteps_of(self, epoch: int, batch: int) -> int:
        """The T of a batch; the numbers of the epoch and of the batch count from 0."""
        raise NotImplementedError

    def on_fit_begin(self, model: keras.Model, x: Structure) -> None:
        """Checks the model and the data of `fit`, before Keras starts."""
        self._spiking = measured(model)
        self._own = self._spiking.timesteps
        network = _graph.as_graph(self._spiking.network)
        try:
            for timesteps in self.numbers:
                _graph.check_timesteps(network, timesteps)
                self._spiking.gradient.check_timesteps(timesteps)
        except ValueError as error:
            names = " and ".join(f"`{name}`" for name in self.arguments)
            received = ", ".join(f"{name}={value}" for name, value in self.arguments.items())
            raise ValueError(
                f"{names} of {type(self).__name__} must be such that the network can be trained with all their numbers of time "
                f"steps. Received: {received}. {error}"
            ) from error
        for metric in keras_internals.compiled_metrics(model):
            if isinstance(metric, AnytimeAccuracy) and any(timesteps != metric.timesteps for timesteps in self.numbers):
                raise ValueError(
                    f"`metrics` must be without AnytimeAccuracy with {type(self).__name__}, since it takes the outputs of "
                    f"{metric.timesteps} steps, and other numbers are trained. Received: {metric.name!r}. Use "
                    "keras_ratesnn.callbacks.AccuracyOverTime instead, which measures after an epoch."
                )
        timed = inputs_with_time(network, x, self._own)
        if timed:
            raise ValueError(
                f"`x` must have no time axis with {type(self).__name__}, since it holds a fixed number of frames. Received: "
                f"time in {', '.join(map(repr, timed))}. Pass inputs that are the same at every step, or leave it out."
            )
        self._in_fit = True

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if not self._in_fit:
            raise TypeError(
                f"`callbacks` may have {type(self).__name__} in `fit` of a SpikingModel or a "
                f"keras_ratesnn.distillation.Distiller. Received: a model of type {type(self.model).__name__}, whose compiled "
                "functions do not follow the number of time steps."
            )

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._spiking.timesteps = self.timesteps_of(self._epoch, batch)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._spiking.timesteps = self._own

    def on_fit_end(self, error: BaseException | None) -> None:
        """Gives the model its own T again, also after an error."""
        trained, self._spiking.timesteps, self._in_fit = self._spiking.timesteps, self._own, False
        # Only errors about shapes name the number of time steps.
        if isinstance(error, ValueError) and f"timesteps={trained}" in str(error) and trained != self._own:
            error.add_note(
                f"{type(self).__name__} had set timesteps={trained} for this batch; inputs must then have no time axis."
            )
