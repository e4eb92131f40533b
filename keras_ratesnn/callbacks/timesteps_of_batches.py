"""Give each batch of training its own number of time steps."""

import abc
import bisect
from collections.abc import Collection, Sequence
from typing import Any

import keras
import numpy as np

from keras_ratesnn import _graph
from keras_ratesnn._core import checks, keras_internals
from keras_ratesnn._core.annotations import Structure
from keras_ratesnn._model.input_checks import inputs_with_time
from keras_ratesnn.callbacks._measured import measured
from keras_ratesnn.metrics import AnytimeAccuracy

_MOST_NUMBERS = 10_000


class TimestepsOfBatches(keras.callbacks.Callback, abc.ABC):
    """Trains each batch with the number of time steps that `timesteps_of` returns;
    between batches, and in validation, the model has its own.

    Attributes:
        numbers: The numbers of time steps that `timesteps_of` can return.
        arguments: Dictionary, the arguments of the callback that determine them, for
            messages.
    """

    numbers: Collection[int]
    arguments: dict[str, Any]
    changes_timesteps = True

    def __init__(self) -> None:
        super().__init__()
        self._in_fit = False

    @abc.abstractmethod
    def timesteps_of(self, epoch: int, batch: int) -> int:
        """The T of a batch; the numbers of the epoch and of the batch count from 0."""

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
            received = ", ".join(
                f"{name}={value}" for name, value in self.arguments.items()
            )
            raise ValueError(
                f"{names} of {type(self).__name__} must be such that the network can "
                "be trained with all their numbers of time steps. Received: "
                f"{received}. {error}"
            ) from error
        for metric in keras_internals.compiled_metrics(model):
            if isinstance(metric, AnytimeAccuracy) and any(
                timesteps != metric.timesteps for timesteps in self.numbers
            ):
                raise ValueError(
                    "`metrics` must be without AnytimeAccuracy with "
                    f"{type(self).__name__}, since it takes the outputs of "
                    f"{metric.timesteps} steps, and other numbers are trained. "
                    f"Received: {metric.name!r}. Use "
                    "keras_ratesnn.callbacks.AccuracyOverTime instead, which measures "
                    "after an epoch."
                )
        timed = inputs_with_time(self._spiking, x)
        if timed:
            raise ValueError(
                f"`x` must have no time axis with {type(self).__name__}, since it "
                "holds a fixed number of frames. Received: time in "
                f"{', '.join(map(repr, timed))}. Pass inputs that are the same at "
                "every step, or leave it out."
            )
        self._in_fit = True

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if not self._in_fit:
            raise TypeError(
                f"`callbacks` may have {type(self).__name__} in `fit` of a "
                "SpikingModel or a keras_ratesnn.distillation.Distiller. Received: a "
                f"model of type {type(self.model).__name__}, whose compiled functions "
                "do not follow the number of time steps."
            )

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch = epoch

    def on_train_batch_begin(
        self, batch: int, logs: dict[str, Any] | None = None
    ) -> None:
        self._spiking.timesteps = self.timesteps_of(self._epoch, batch)

    def on_train_batch_end(
        self, batch: int, logs: dict[str, Any] | None = None
    ) -> None:
        self._spiking.timesteps = self._own

    def on_fit_end(self, error: BaseException | None) -> None:
        """Gives the model its own T again, also after an error."""
        trained = self._spiking.timesteps
        self._spiking.timesteps = self._own
        self._in_fit = False
        # Only errors about shapes name the number of time steps.
        if (
            isinstance(error, ValueError)
            and f"timesteps={trained}" in str(error)
            and trained != self._own
        ):
            error.add_note(
                f"{type(self).__name__} had set timesteps={trained} for this batch; "
                "inputs must then have no time axis."
            )


class RandomTimesteps(TimestepsOfBatches):
    """Trains each batch with another number of time steps T, drawn uniformly: one
    network for every T from `low` to `high`.

    Between batches the model has its own T again: in validation, for other callbacks,
    and after `fit`, also if that ends with an error. Each T is compiled when it is
    drawn for the first time, and never again. For a `Distiller`, the student changes.
    With `steps_per_execution`, the batches of an execution share a T.

    The T of a batch depends only on the seed, the number of the epoch and that of the
    batch. So a resumed run draws the same, and so do all processes of a distributed
    run.

    Example:

    >>> inputs = keras.Input((4,))
    >>> network = keras.Model(
    ...     inputs, keras.layers.Dense(2)(keras_ratesnn.layers.LIF()(inputs))
    ... )
    >>> model = keras_ratesnn.SpikingModel(network, timesteps=4)
    >>> model.compile(
    ...     "sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    ... )
    >>> random = keras_ratesnn.callbacks.RandomTimesteps(1, 6)
    >>> history = model.fit(
    ...     np.ones((8, 4)), np.zeros(8), batch_size=2, callbacks=[random], verbose=0
    ... )
    >>> model.timesteps
    4

    Args:
        low: Integer >= 1, the smallest T.
        high: Integer >= `low`, the largest T.
        seed: Integer >= 0. Defaults to `0`.

    Raises:
        TypeError: If an argument is not an integer; when `fit` starts, if it does not
            train a `SpikingModel`.
        ValueError: If an argument is out of range; when `fit` starts, if the network or
            the training method does not support one of the T, the inputs have time, or
            a metric is an `AnytimeAccuracy` of another T.
    """

    def __init__(self, low: int, high: int, seed: int = 0) -> None:
        super().__init__()
        self.low = checks.positive_integer(
            "low", low, advice="It is the smallest number of time steps."
        )
        self.high = checks.positive_integer(
            "high", high, advice="It is the largest number of time steps."
        )
        if self.high < self.low:
            raise ValueError(
                f"`high` must be `low` or more. Received: low={low}, high={high}."
            )
        if self.high - self.low >= _MOST_NUMBERS:
            raise ValueError(
                f"`high` must be below `low` + {_MOST_NUMBERS}, since each number of "
                f"time steps is compiled. Received: low={low}, high={high}."
            )
        self.seed = checks.integer("seed", seed, at_least=0)
        self.numbers = range(self.low, self.high + 1)
        self.arguments = {"low": self.low, "high": self.high}

    def timesteps_of(self, epoch: int, batch: int) -> int:
        """The T of a batch: a function of the seed and these numbers, which count
        from 0."""
        return int(
            np.random.default_rng((self.seed, epoch, batch)).integers(
                self.low, self.high, endpoint=True
            )
        )


class TimestepSchedule(TimestepsOfBatches):
    """Trains with few time steps T first, which cost less, and with more later.

    A step of training with T = 1 costs a third to a half of one with T = 4 by the rate
    gradient, whose forward pass runs all steps. The weights carry over, since a rate
    means the same for every T; the moving statistics of normalisation adapt in the
    first batches.

    Outside of training the model has its own T: in validation, for other callbacks, and
    after `fit`, also if that ends with an error. Each T is compiled once. For a
    `Distiller`, the student changes.

    Example:

    >>> inputs = keras.Input((4,))
    >>> network = keras.Model(
    ...     inputs, keras.layers.Dense(2)(keras_ratesnn.layers.LIF()(inputs))
    ... )
    >>> model = keras_ratesnn.SpikingModel(network, timesteps=4)
    >>> model.compile(
    ...     "sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    ... )
    >>> schedule = keras_ratesnn.callbacks.TimestepSchedule(
    ...     boundaries=[2], values=[1, 4]
    ... )
    >>> [schedule.timesteps_of(epoch, 0) for epoch in range(4)]
    [1, 1, 4, 4]
    >>> history = model.fit(
    ...     np.ones((8, 4)), np.zeros(8), epochs=4, callbacks=[schedule], verbose=0
    ... )

    Args:
        boundaries: List or tuple of integers >= 1 that grow, the numbers of epochs
            after which T changes, as in
            `keras.optimizers.schedules.PiecewiseConstantDecay`. A run that is resumed
            with `initial_epoch` counts on.
        values: List or tuple of integers >= 1, the T before, between and after the
            boundaries: one more than these.

    Raises:
        TypeError: If an argument is not a list or tuple of integers; when `fit` starts,
            if it does not train a `SpikingModel`.
        ValueError: If a number is out of range, or there are not as many as needed;
            when `fit` starts, if the network or the training method does not support
            one of the T, the inputs have time, or a metric is an `AnytimeAccuracy` of
            another T.
    """

    def __init__(self, boundaries: Sequence[int], values: Sequence[int]) -> None:
        super().__init__()
        self.boundaries = _numbers(
            "boundaries", boundaries, "They are numbers of epochs."
        )
        if any(
            later <= earlier
            for earlier, later in zip(
                self.boundaries, self.boundaries[1:], strict=False
            )
        ):
            raise ValueError(
                f"`boundaries` must grow. Received: boundaries={list(boundaries)}."
            )
        self.values = _numbers("values", values, "They are numbers of time steps.")
        if len(self.values) != len(self.boundaries) + 1:
            raise ValueError(
                "`values` must have one number of time steps more than `boundaries`. "
                f"Received: boundaries={list(boundaries)}, values={list(values)}."
            )
        self.numbers = set(self.values)
        self.arguments = {"values": self.values}

    def timesteps_of(self, epoch: int, batch: int) -> int:
        """The T of an epoch, for all its batches; the epochs count from 0."""
        return self.values[bisect.bisect_right(self.boundaries, epoch)]


def _numbers(name: str, values: Any, advice: str) -> list[int]:
    if not isinstance(values, (list, tuple)):
        raise checks.wrong_type(name, "a list or tuple of integers", values, advice)
    return [checks.positive_integer(name, value, advice=advice) for value in values]
