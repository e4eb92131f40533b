"""Samples in batches, which become smaller as samples leave them."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
from keras import ops

from keras_ratesnn._core import checks
from keras_ratesnn._core.annotations import Tensor

Leaves = Callable[[np.ndarray, np.ndarray, np.ndarray, int], np.ndarray]
"""`(totals, counts, samples, steps) -> booleans`: which of some samples stop after so
many steps, given the sums of their outputs, `(rows, classes)`, the numbers of outputs
in these, `(rows,)`, and the numbers of the samples, `(rows,)`."""


class Running(Protocol):
    """A batch that is run step by step."""

    def advance(self, t: int) -> Tensor:
        """The outputs of step t, `(rows, classes)`."""
        ...

    def keep(self, rows: Tensor) -> None:
        """Goes on with these rows alone, in this order."""
        ...


class Stopped(NamedTuple):
    """Of each sample the sum of its outputs, `(samples, classes)`, the number of these,
    and that of the steps that it ran."""

    totals: np.ndarray
    counts: np.ndarray
    steps: np.ndarray


def run(
    begin: Callable[[np.ndarray], tuple[Running, np.ndarray]],
    samples: int,
    batch_size: int,
    leaves: Leaves,
) -> Stopped:
    """Runs all samples, each until it leaves or its steps end.

    A batch has `batch_size` rows or a power of two, so that few sizes are compiled. In
    surplus rows a sample is repeated.

    Args:
        begin: Function of the numbers of samples, `(rows,)`, which makes a batch of
            them; it also returns a boolean array `(rows, T)`, false where a step is
            padding.
        samples: Integer >= 1, how many there are.
        batch_size: Integer >= 1.
        leaves: See `Leaves`.
    """
    batch_size = checks.positive_integer(
        "batch_size",
        batch_size,
        advice="It is the number of samples processed at once.",
    )
    parts = (
        np.arange(first, min(first + batch_size, samples))
        for first in range(0, samples, batch_size)
    )
    stopped = [_run_batch(begin, part, batch_size, leaves) for part in parts]
    return Stopped(*map(np.concatenate, zip(*stopped, strict=True)))


def _run_batch(begin, samples, batch_size, leaves):
    number = len(samples)
    rows = _size(number, batch_size)
    running, valid = begin(_filled(samples, rows))
    counts, last = np.cumsum(valid[:number], axis=1), _last_steps(valid[:number])
    steps, totals = np.zeros(number, "int32"), None
    # Those of the samples that still run, and their rows in the batch.
    active, places = np.arange(number), np.arange(number)
    for t in range(valid.shape[1]):
        outputs: Any = np.asarray(ops.convert_to_numpy(running.advance(t)))[places]
        totals = (
            np.zeros((number, outputs.shape[1]), outputs.dtype)
            if totals is None
            else totals
        )
        totals[active] += outputs
        gone = leaves(totals[active], counts[active, t], samples[active], t + 1) | (
            last[active] == t + 1
        )
        steps[active[gone]] = t + 1
        active, places = active[~gone], places[~gone]
        if not len(active):
            break
        if _size(len(active), batch_size) < rows:
            rows = _size(len(active), batch_size)
            running.keep(ops.convert_to_tensor(_filled(places, rows), "int32"))
            places = np.arange(len(active))
    return totals, counts[np.arange(number), steps - 1], steps


def _last_steps(valid):
    """The number of steps of each sample up to the last one that is not padding, at
    least 1."""
    return np.maximum((valid * np.arange(1, valid.shape[1] + 1)).max(axis=1), 1)


def _size(rows, batch_size):
    """The number of rows of a batch of so many samples."""
    return min(1 << (rows - 1).bit_length(), batch_size)


def _filled(places, rows):
    return np.pad(places, (0, rows - len(places)), mode="edge")
