"""The threshold with which a sample may stop early, from what held-out samples would
have answered at each step."""

import fractions
import math
from typing import Any

import numpy as np

from keras_ratesnn._core import checks


def _scores(answers):
    """For each sample the largest threshold with which its early answer is wrong, where
    that after all steps is right.

    A sample stops at the first step whose certainty reaches the threshold. So a step is
    the one at which it stops with some threshold only if its certainty exceeds all
    earlier ones, and that certainty is the largest such threshold. Whether the answer
    is wrong need not be monotone in the threshold: with one at or above the result it
    may be right or wrong, but with one above the result it is never wrong.

    Args:
        answers: As in `largest_allowed`.

    Returns:
        Array `(samples,)` of floats, minus infinity where no threshold does harm.
    """
    right, last = answers.right, answers.last
    certainty = np.asarray(answers.certainty, "float64")
    before = np.maximum.accumulate(
        np.pad(certainty, ((0, 0), (1, 0)), constant_values=-np.inf), axis=1
    )[:, :-1]
    in_the_end = np.take_along_axis(right, last[:, None] - 1, axis=1)
    is_early = np.arange(1, certainty.shape[1] + 1) < last[:, None]
    harms = (certainty > before) & ~right & in_the_end & is_early
    return np.where(harms, certainty, -np.inf).max(axis=1)


def largest_allowed(answers: Any, error: float) -> float:
    """The score that a new sample exceeds with probability `error` at most: of n scores
    the ⌈(n + 1)(1 − error)⌉-th smallest.

    Args:
        answers: `Answers` of held-out samples, or what has their attributes.
        error: Float.

    Raises:
        TypeError: If `error` is not a number.
        ValueError: If `error` is not between 0 and 1, or n samples are too few for it.
    """
    values = _scores(answers)
    error = checks.real("error", error, above=0, below=1, advice="It is a probability.")
    # Exactly the decimal number that was typed: rounding must not take a sample away.
    exact = fractions.Fraction(repr(error))
    rank = math.ceil((len(values) + 1) * (1 - exact))
    if rank > len(values):
        raise ValueError(
            "`error` must be at least 1 / (number of samples + 1). Received: "
            f"error={error} with {len(values)} samples. Pass at least "
            f"{math.ceil((1 - exact) / exact)} samples, or a larger error."
        )
    return float(np.sort(values)[rank - 1])
