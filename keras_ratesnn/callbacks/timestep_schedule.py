"""Training with a number of time steps that changes from epoch to epoch."""

import bisect
from collections.abc import Sequence
from typing import Any

from keras_ratesnn._core import checks
from keras_ratesnn.callbacks._timesteps_of_batches import TimestepsOfBatches


class TimestepSchedule(TimestepsOfBatches):
    """Trains with few time steps T first, which cost less, and with more later.

    A step of training with T = 1 costs a third to a half of one with T = 4 by the rate gradient, whose forward pass runs all
    steps. The weights carry over, since a rate means the same for every T; the moving statistics of normalisation adapt in the
    first batches.

    Outside of training the model has its own T: in validation, for other callbacks, and after `fit`, also if that ends with an
    error. Each T is compiled once. For a `Distiller`, the student changes.

    Example:

    >>> inputs = keras.Input((4,))
    >>> network = keras.Model(inputs, keras.layers.Dense(2)(keras_ratesnn.layers.LIF()(inputs)))
    >>> model = keras_ratesnn.SpikingModel(network, timesteps=4)
    >>> model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    >>> schedule = keras_ratesnn.callbacks.TimestepSchedule(boundaries=[2], values=[1, 4])
    >>> [schedule.timesteps_of(epoch, 0) for epoch in range(4)]
    [1, 1, 4, 4]
    >>> history = model.fit(np.ones((8, 4)), np.zeros(8), epochs=4, callbacks=[schedule], verbose=0)

    Args:
        boundaries: List or tuple of integers >= 1 that grow, the numbers of epochs after which T changes, as in
            `keras.optimizers.schedules.PiecewiseConstantDecay`. A resumed run counts from its first epoch.
        values: List or tuple of integers >= 1, the T before, between and after the boundaries: one more than these.

    Raises:
        TypeError: If an argument is not a list or tuple of integers; when `fit` starts, if it does not train a `SpikingModel`.
        ValueError: If a number is out of range, or there are not as many as needed; when `fit` starts, if the network or the
            training method does not support one of the T, the inputs have time, or a metric is an `AnytimeAccuracy` of another
            T.
    """

    def __init__(self, boundaries: Sequence[int], values: Sequence[int]) -> None:
        super().__init__()
        self.boundaries = _numbers("boundaries", boundaries, "They are numbers of epochs.")
        if any(later <= earlier for earlier, later in zip(self.boundaries, self.boundaries[1:], strict=False)):
            raise ValueError(f"`boundaries` must grow. Received: boundaries={list(boundaries)}.")
        self.values = _numbers("values", values, "They are numbers of time steps.")
        if len(self.values) != len(self.boundaries) + 1:
            raise ValueError(
                "`values` must have one number of time steps more than `boundaries`. Received: "
                f"boundaries={list(boundaries)}, values={list(values)}."
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
