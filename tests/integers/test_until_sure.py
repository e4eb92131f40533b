"""Networks of integers that stop when they are sure: the same integers as by hand, and
their calibration."""

import numpy as np
import pytest
from helpers import chain
from numpy.testing import assert_array_equal

import keras_ratesnn as rsnn
from tests.integers.drawn import draw, integers
from tests.integers.test_integer import frames


def sums_and_leads(chip, x):
    """The logits after each step, and by how much the largest exceeds the second."""
    logits = chip.layer_outputs(x)[chip.network.layers[-1].name]
    sums = np.cumsum(logits, axis=1)
    ordered = np.sort(sums.astype("int64"), axis=-1)
    return sums, ordered[..., -1] - ordered[..., -2]


@pytest.mark.parametrize("time", [False, True])
def test_a_sample_stops_at_the_first_step_at_which_its_class_leads(time):
    chip, x = integers(draw(6)), frames(0, 11, time)
    sums, leads = sums_and_leads(chip, x)
    margin = int(np.median(leads[:, 0]))
    is_sure = leads >= margin * np.arange(1, chip.timesteps + 1)
    is_sure[:, -1] = True
    logits, steps = chip.logits_until_sure(x, margin, batch_size=8)
    assert_array_equal(steps, is_sure.argmax(axis=1) + 1)
    assert_array_equal(logits, sums[np.arange(11), steps - 1])
    assert (logits.dtype, steps.dtype, len(set(steps)) > 1) == ("int32", "int32", True)
    assert_array_equal(chip.logits_until_sure(x, 2**31 - 1)[0], chip.integer_logits(x))


@pytest.mark.backends(1)
def test_a_margin_is_calibrated_and_wrong_ones_are_errors():
    chip, x = integers(draw(6)), frames(0, 40)
    sums, leads = sums_and_leads(chip, x)
    # Where answers change, those of the last step are right.
    labels = sums[:, -1].argmax(axis=1)

    def lost(margin):
        logits, _ = chip.logits_until_sure(x, int(margin))
        return np.any(logits.argmax(axis=1) != labels)

    # Of 40 samples none is lost with it or a larger one.
    margin = chip.calibrate_margin(x, labels, error=0.03)
    assert lost(margin - 1)
    margins = np.unique(leads // np.arange(1, chip.timesteps + 1))
    assert not any(lost(larger) for larger in (margin, *margins[margins > margin]))
    with pytest.raises(ValueError, match="`margin` must be from 0 to 2147483647"):
        chip.logits_until_sure(x, 2**31)
    with pytest.raises(ValueError, match="`x` must have samples, at least one"):
        chip.logits_until_sure(x[:0], 1)
    single = rsnn.SpikingModel(chain(rsnn.layers.IF(), shape=(1,)), 2)
    with pytest.raises(ValueError, match="must have two classes or more"):
        integers(single).logits_until_sure(x[:, 0, 0, :1], 1)
