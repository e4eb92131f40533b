"""Decays of neurons that remember for different times."""

import math

import keras
import numpy as np
from keras import ops

from keras_ratesnn._core import checks, registry
from keras_ratesnn._core.annotations import Config, Sizes, Tensor


@registry.register
class TimeConstants(keras.initializers.Initializer):
    """Decays of neurons some of which forget soon, and others late: the time constants
    are spread evenly in their logarithm.

        decay = 1 − 1/τ,  τ = shortest … longest steps

    Networks whose neurons have time constants of their own learn more of data with time
    (Perez-Nieves et al., "Neural heterogeneity promotes robust learning", 2021). The
    values are the same each time: the first has the shortest time constant, the last
    the longest.

    Example:

    >>> lif = keras_ratesnn.layers.LIF(decay=TimeConstants(2, 200))
    >>> _ = lif(np.zeros((1, 3), "float32"))
    >>> print(lif.decay)
    [0.5   0.95  0.995]

    Args:
        shortest: Float >= 1, in time steps: a neuron with 1 remembers nothing.
        longest: Float >= `shortest`.
    """

    def __init__(self, shortest: float, longest: float) -> None:
        self.shortest = checks.real("shortest", shortest, at_least=1)
        self.longest = checks.real("longest", longest, at_least=self.shortest)

    def __call__(self, shape: Sizes, dtype: str | None = None) -> Tensor:
        taus = np.geomspace(self.shortest, self.longest, math.prod(shape))
        return ops.convert_to_tensor((1.0 - 1.0 / taus).reshape(shape), dtype=dtype)

    def get_config(self) -> Config:
        return {"shortest": self.shortest, "longest": self.longest}
