"""Networks of integers that stop when they are sure: the same integers as by hand, and
their calibration."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import keras_ratesnn as rsnn
from keras_ratesnn._steps.conformal import largest_allowed, scores
from tests.integers.drawn import draw
from tests.integers.test_integer import frames


def leads(sums):
    """By how much the largest of the sums over time exceeds the second, after each
    step."""
    ordered = np.sort(sums.astype("int64"), axis=-1)
    return ordered[..., -1] - ordered[..., -2]


@pytest.mark.parametrize("time", [False, True])
def test_a_sample_stops_at_the_first_step_at_which_its_class_leads(time):
    chip, x = rsnn.integer(draw(4), verbose=False), frames(0, 11, time)
    sums = np.cumsum(chip.layer_outputs(x)[chip.plan.layers[-1].name], axis=1)
    steps_so_far = np.arange(1, chip.timesteps + 1)
    margin = int(np.median(leads(sums)[:, 0]))
    expected = [
        next((t for t in steps_so_far if row[t - 1] >= margin * t), chip.timesteps)
        for row in leads(sums)
    ]
    logits, steps = chip.logits_until_sure(x, margin, batch_size=8)
    assert_array_equal(steps, expected)
    assert_array_equal(logits, sums[np.arange(11), steps - 1])
    assert (logits.dtype, steps.dtype, len(set(steps)) > 1) == ("int32", "int32", True)
    assert_array_equal(chip.logits_until_sure(x, 2**31 - 1)[0], chip.integer_logits(x))


@pytest.mark.runs_once
def test_a_margin_is_calibrated_and_wrong_ones_are_errors():
    chip, x = rsnn.integer(draw(4), verbose=False), frames(0, 40)
    sums = np.cumsum(chip.layer_outputs(x)[chip.plan.layers[-1].name], axis=1)
    # Where answers change, those of the last step are right.
    labels = sums[:, -1].argmax(axis=1)
    per_step = leads(sums) // np.arange(1, chip.timesteps + 1)
    found = scores(
        per_step, sums.argmax(axis=2) == labels[:, None], np.full(40, chip.timesteps)
    )
    margin = chip.calibrate_margin(x, labels, error=0.03)
    allowed = largest_allowed(found, 0.03)
    assert margin == (int(allowed) + 1 if np.isfinite(allowed) else 0)
    lost = chip.logits_until_sure(x, margin)[0].argmax(axis=1) != labels
    assert lost.sum() <= 0.03 * 41
    for wrong in (-1, 2**31):
        with pytest.raises(ValueError, match="`margin` must be from 0 to 2147483647"):
            chip.logits_until_sure(x, wrong)
    with pytest.raises(TypeError, match="`margin` must be an integer"):
        chip.logits_until_sure(x, 0.9)
    with pytest.raises(ValueError, match="`x` must have samples, at least one"):
        chip.logits_until_sure(x[:0], 1)
    with pytest.raises(TypeError, match="`x` must be integers"):
        chip.logits_until_sure(x / 255, 1)
