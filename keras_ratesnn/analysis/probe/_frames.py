"""Inputs whose frames are averaged over time, or in another order. Padding counts in no
mean, and stays where it is."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_ratesnn import _graph
from keras_ratesnn._core import keras_internals
from keras_ratesnn._core.annotations import Structure
from keras_ratesnn._model.input_checks import check_batch, with_time
from keras_ratesnn._model.time_masks import masked
from keras_ratesnn.spiking_model import SpikingModel

_AT_ONCE = 1024
"""Samples whose padding is found at once."""


class Frames:
    """The inputs of a model as arrays, those with time as floats.

    Args:
        model: A `SpikingModel`.
        x: A structure of arrays, as for `model.fit`.

    Attributes:
        given: The structure as it is.
        in_time: Boolean, whether an input has time.

    Raises:
        ValueError: If `x` does not fit the model or has no samples, or an input with
            time holds integers.
    """

    def __init__(self, model: SpikingModel, x: Structure) -> None:
        network = _graph.as_graph(model.network)
        check_batch(model, x)
        frames = _graph.frames_of(network, model.timesteps)
        pairs = with_time(model, x)
        timed = {
            id(leaf): wanted
            for (leaf, in_time), wanted in zip(pairs, network.inputs, strict=True)
            if in_time
        }
        for wanted in timed.values():
            if not wanted.dtype.startswith(("float", "bfloat")):
                raise ValueError(
                    "`x` must have frames of which there is a mean. Received: frames "
                    f"for input {keras_internals.name_of_input(wanted)!r} of the "
                    f"network, which takes {wanted.dtype}."
                )
        self.in_time = bool(timed)
        self._is_timed = keras.tree.map_structure(lambda leaf: id(leaf) in timed, x)
        self._counts = (
            _counts(model, pairs, frames) if timed else np.ones((0, frames), bool)
        )
        self.given = self._with_time(lambda leaf: leaf.astype("float32"), x)

    def mean(self) -> Structure:
        """The mean frame of each sample, without time."""
        return self._with_time(self._mean, self.given)

    def mean_at_each_step(self) -> Structure:
        """The mean frame of each sample in place of its frames."""

        def in_place(leaf):
            return np.where(_like(self._counts, leaf), self._mean(leaf)[:, None], leaf)

        return self._with_time(in_place, self.given)

    def shuffled(self, random: np.random.Generator) -> Structure:
        """The frames of each sample in an order of its own, the same for all inputs."""
        order = np.tile(np.arange(self._counts.shape[1]), (len(self._counts), 1))
        for steps, counting in zip(order, self._counts, strict=True):
            steps[counting] = random.permutation(steps[counting])
        return self._with_time(
            lambda leaf: np.take_along_axis(leaf, _like(order, leaf), axis=1),
            self.given,
        )

    def _with_time(self, function, x):
        """A structure with a function of each input with time in its place."""
        return keras.tree.map_structure(
            lambda leaf, timed: function(leaf) if timed else leaf, x, self._is_timed
        )

    def _mean(self, leaf):
        counts = _like(self._counts, leaf)
        sums = np.where(counts, leaf, 0).sum(axis=1, dtype="float64")
        return (sums / np.maximum(counts.sum(axis=1), 1)).astype("float32")


def _counts(model: SpikingModel, pairs: Any, frames: int) -> np.ndarray:
    """Which frames of each sample are not padding, `(samples, T)`."""
    samples = len(pairs[0][0])
    if model.mask_value is None:
        return np.ones((samples, frames), bool)
    masks = []
    for start in range(0, samples, _AT_ONCE):
        few = [(leaf[start : start + _AT_ONCE], timed) for leaf, timed in pairs]
        masks.append(ops.convert_to_numpy(masked(model, few, None)[1]))
    return np.concatenate(masks)


def _like(steps, leaf):
    """An array `(samples, T)` with as many axes as another one."""
    return steps.reshape(*steps.shape, *[1] * (leaf.ndim - 2))
