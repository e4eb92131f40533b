"""Training with another number of time steps in each batch, so that one network serves every number."""

import numpy as np

from keras_ratesnn._core import checks
from keras_ratesnn.callbacks._timesteps_of_batches import TimestepsOfBatches

_MOST_NUMBERS = 10_000


class RandomTimesteps(TimestepsOfBatches):
    """Trains each batch with another number of time steps T, drawn uniformly: one network for every T from `low` to `high`.

    Between batches the model has its own T again: in validation, for other callbacks, and after `fit`, also if that ends with
    an error. Each T is compiled when it is drawn for the first time, and never again. For a `Distiller`, the student changes.
    With `steps_per_execution`, the batches of an execution share a T.

    The T of a batch depends only on the seed, the number of the epoch and that of the batch. So a resumed run draws the same,
    and so do all processes of a distributed run.

    Example:

    >>> inputs = keras.Input((4,))
    >>> network = keras.Model(inputs, keras.layers.Dense(2)(keras_ratesnn.layers.LIF()(inputs)))
    >>> model = keras_ratesnn.SpikingModel(network, timesteps=4)
    >>> model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    >>> random = keras_ratesnn.callbacks.RandomTimesteps(1, 6)
    >>> history = model.fit(np.ones((8, 4)), np.zeros(8), batch_size=2, callbacks=[random], verbose=0)
    >>> model.timesteps
    4

    Args:
        low: Integer >= 1, the smallest T.
        high: Integer >= `low`, the largest T.
        seed: Integer >= 0. Defaults to `0`.

    Raises:
        TypeError: If an argument is not an integer; when `fit` starts, if it does not train a `SpikingModel`.
        ValueError: If an argument is out of range; when `fit` starts, if the network or the training method does not support
            one of the T, the inputs have time, or a metric is an `AnytimeAccuracy` of another T.
    """

    def __init__(self, low: int, high: int, seed: int = 0) -> None:
        super().__init__()
        self.low = checks.positive_integer("low", low, advice="It is the smallest number of time steps.")
        self.high = checks.positive_integer("high", high, advice="It is the largest number of time steps.")
        if self.high < self.low:
            raise ValueError(f"`high` must be `low` or more. Received: low={low}, high={high}.")
        if self.high - self.low >= _MOST_NUMBERS:
            raise ValueError(
                f"`high` must be below `low` + {_MOST_NUMBERS}, since each number of time steps is compiled. Received: "
                f"low={low}, high={high}."
            )
        self.seed = checks.integer("seed", seed, at_least=0)
        self.numbers = range(self.low, self.high + 1)
        self.arguments = {"low": self.low, "high": self.high}

    def timesteps_of(self, epoch: int, batch: int) -> int:
        """The T of a batch: a function of the seed and these numbers, which count from 0."""
        return int(np.random.default_rng((self.seed, epoch, batch)).integers(self.low, self.high, endpoint=True))
