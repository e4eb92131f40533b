"""Watching the plain spiking network: what its operations compute, and what could be changed about it."""

from collections.abc import Callable

from keras_ratesnn._core.annotations import Structure
from keras_ratesnn._graph import Call
from keras_ratesnn.gradients.forward import ForwardRule
from keras_ratesnn.gradients.method import GradientMethod
from keras_ratesnn.gradients.run import Run
from keras_ratesnn.gradients.step_modes import StepMode, step_mode_of


class ObservingRule(ForwardRule):
    """The plain spiking network, with an observer that sees each operation and may change its outputs.

    Args:
        step_mode: See `Rule`.
        training: See `Rule`.
        with_gradient: See `ForwardRule`.
        observe: Function `(call, outputs) -> outputs`, called after each operation with signals; the network continues with
            what it returns.
    """

    def __init__(
        self, step_mode: StepMode, training: bool, with_gradient: bool, observe: Callable[[Call, Structure], Structure]
    ) -> None:
        super().__init__(step_mode, training, with_gradient)
        self.observe = observe

    def __call__(self, call: Call) -> Structure:
        return self.observe(call, super().__call__(call))


class Observing(GradientMethod):
    """BPTT with a rule of choice: not for saved models.

    Args:
        make_rule: Function `(step_mode, training, with_gradient) -> rule`.
    """

    runs_means = True

    def __init__(self, make_rule: Callable[[StepMode, bool, bool], ForwardRule]) -> None:
        self.make_rule = make_rule

    def call(self, run: Run) -> Structure:
        step_mode = step_mode_of(run)
        return step_mode.run(self.make_rule(step_mode, run.training, run.with_gradient), run)
