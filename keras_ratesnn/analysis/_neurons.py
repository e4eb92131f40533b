"""The choice of neurons to look at."""

from collections.abc import Sequence

import numpy as np

from keras_ratesnn._core import checks

ADVICE = "Pass how many neurons to show, evenly spaced, or a list of their indices in the flattened layer."


def chosen(neurons: int | Sequence[int], arrays: Sequence[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
    """The indices of chosen neurons, `(N,)`, and their values in each array, `(samples, T, N)` of `(samples, T, ...)`."""
    flat = [values.reshape(*values.shape[:2], -1) for values in arrays]
    indices = _indices(neurons, flat[0].shape[-1])
    return indices, [values[..., indices] for values in flat]


def _indices(neurons, size):
    if not isinstance(neurons, (list, tuple, np.ndarray)) or np.ndim(neurons) == 0:
        count = min(checks.positive_integer("neurons", neurons, advice=ADVICE), size)
        return np.unique(np.linspace(0, size - 1, count, dtype=int))
    indices = [checks.integer("neurons", index, advice=ADVICE) for index in neurons]
    if not indices or not all(0 <= index < size for index in indices):
        raise ValueError(f"`neurons` must be from 0 to {size - 1} in this layer. Received: neurons={list(neurons)}. {ADVICE}")
    return np.array(indices)
