"""Watching the plain spiking network: what its operations compute, and what could be changed about it."""

from collections.abc import Callable

from keras_ratesnn._core.annotations import Structure
from keras_ratesnn._graph import Call
from keras_ratesnn.gradients.base import GradientMethod, Run
from keras_ratesnn.gradients.forward import ForwardRule
from keras_ratesnn.gradients.orders import Order


class ObservingRule(ForwardRule):
    """The plain spiking network, with an observer that sees each operation and may change its outputs.

    Args:
        order: See `Rule`.
        training: See `Rule`.
        with_gradient: See `ForwardRule`.
        observe: Function `(call, outputs) -> outputs`, called after each operation with signals; the network continues with
            what it returns.
    """

    def __init__(
        self, order: Order, training: bool, with_gradient: bool, observe: Callable[[Call, Structure], Structure]
    ) -> None:
        super().__init__(order, training, with_gradient)
        self.observe = observe

    def __call__(self, call: Call) -> Structure:
        return self.observe(call, super().__call__(call))


class Observing(GradientMethod):
    """BPTT with a rule of choice: not for saved models.

    Args:
        make_rule: Function `(order, training, with_gradient) -> rule`.
    """

    runs_means = True

    def __init__(self, make_rule: Callable[[Order, bool, bool], ForwardRule]) -> None:
        self.make_rule = make_rule

    def call(self, run: Run) -> Structure:
        order = run.new_order()
        return order.run(self.make_rule(order, run.training, run.with_gradient), run)
