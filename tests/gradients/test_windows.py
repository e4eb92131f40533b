"""Arguments of rate training with time windows. Its gradient is that of a slow loop in
tests/contract/test_drawn.py, and BPTT's with a window for each step in the contract."""

import numpy as np
import pytest
from helpers import compiled, data, spiking, to_numpy

from keras_ratesnn.gradients import Rate


@pytest.mark.parametrize(
    ("windows", "timesteps", "step_mode"), [(5, 4, "multi"), ((1, 2), 4, "single")]
)
def test_windows_that_do_not_fit_the_steps_are_an_error_in_training_alone(
    windows, timesteps, step_mode
):
    method = Rate(windows=windows)
    model = compiled(spiking(None, timesteps, method, step_mode=step_mode))
    x, y = data()
    outputs = model.predict(x, verbose=0)
    np.testing.assert_allclose(to_numpy(model(x)), outputs, rtol=1e-5)
    model.evaluate(x, y, verbose=0)
    with pytest.raises(ValueError, match=r"`windows` must be .*timesteps=4"):
        model.fit(x, y, verbose=0)
    model.timesteps = sum(windows) if isinstance(windows, tuple) else windows
    model.fit(x, y, verbose=0)


@pytest.mark.parametrize("windows", [0, 1.5, (), (1, 0)])
def test_invalid_windows_are_refused(windows):
    with pytest.raises((TypeError, ValueError), match=r"`windows(\[1\])?` must "):
        Rate(windows=windows)


def test_last_step_statistics_need_one_window():
    with pytest.raises(ValueError, match=r"last_step_statistics=True.*windows=2"):
        Rate(windows=2, last_step_statistics=True)
