"""How a rule sees time steps: all at once (`step_mode="multi"`), or one after the other (`step_mode="single"`).

Both step modes have the same interface, so a training method is written only once. What passes from one step to the next, or
from one walk to another (membranes, sums for time means, statistics, masks), is in the step mode's `Record`, by the key of the
call, because a layer may be used in several places. Operations whose inputs are the same at every step run once, and their
results are stored as constants.
"""

from collections.abc import Sequence

from keras_ratesnn.gradients.run import Run
from keras_ratesnn.gradients.step_modes.multi_step import MultiStep
from keras_ratesnn.gradients.step_modes.single_step import SingleStep
from keras_ratesnn.gradients.step_modes.step_mode import StepMode

BY_NAME = {"multi": MultiStep, "single": SingleStep}


def step_mode_of(run: Run, windows: Sequence[int] | None = None) -> StepMode:
    """The step mode of a run, in its initial state, for the rules of this run.

    Args:
        run: `Run`.
        windows: See `StepMode`. Defaults to `None`, one window.
    """
    return BY_NAME[run.step_mode](run.timesteps, windows, run.mask)


__all__ = ["BY_NAME", "MultiStep", "SingleStep", "StepMode", "step_mode_of"]
