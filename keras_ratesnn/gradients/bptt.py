"""Backpropagation through time: all steps are stored, or run again, and gradients flow
back through layers and steps."""

from keras_ratesnn._core import checks, keras_internals, registry
from keras_ratesnn._core.annotations import Structure
from keras_ratesnn.gradients.method import GradientMethod
from keras_ratesnn.gradients.network import plain
from keras_ratesnn.gradients.run import Run
from keras_ratesnn.gradients.segments import in_segments


@registry.register
class BPTT(GradientMethod):
    """Backpropagation through time with surrogate derivatives: the reference method,
    exact except for the surrogate.

    Memory and time of a training step grow with T: every layer stores the activations
    of all steps, or with `recompute=True` its spikes as bits.

    Args:
        recompute: Boolean. If `True`, the layers between two layers of neurons run
            again in the backward pass, and only spikes are stored, eight in a byte
            (integers of `ILIF` one in a byte). The gradient is the same. A training
            step then costs about 4T forward passes, otherwise 3T. Needs
            `step_mode="multi"`. Defaults to `False`.

    Raises:
        TypeError: If `recompute` is not a boolean.
        ValueError: In training, if `recompute=True` is combined with
            `step_mode="single"`, or with layers made in a `keras.RematScope`.

    Source: Neftci, Mostafa and Zenke, "Surrogate Gradient Learning in Spiking Neural
    Networks", 2019.
    """

    in_config = ("recompute",)

    def __init__(self, recompute: bool = False) -> None:
        self.recompute = checks.boolean("recompute", recompute)

    def call(self, run: Run) -> Structure:
        if not (self.recompute and run.with_gradient):
            return plain(run)
        if run.step_mode == "single":
            raise ValueError(
                "BPTT(recompute=True) runs all steps of a few layers again, so layers "
                'must see all steps at once. Received: step_mode="single". Set '
                'step_mode="multi", or train with gradient="bptt", which stores all '
                "activations."
            )
        if keras_internals.is_rematerialized(run.network):
            raise ValueError(
                "BPTT(recompute=True) runs layers again itself. Received: network "
                f"{run.network.name!r} with layers made in a keras.RematScope, which "
                "would run three times. Make them outside of it, or train with "
                'gradient="bptt".'
            )
        return in_segments(run)
