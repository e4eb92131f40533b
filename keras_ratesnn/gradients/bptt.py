"""Backpropagation through time: all steps are stored, and gradients flow back through
layers and steps."""

from keras_ratesnn._core import registry
from keras_ratesnn._core.annotations import Structure
from keras_ratesnn.gradients.method import GradientMethod
from keras_ratesnn.gradients.network import plain
from keras_ratesnn.gradients.run import Run


@registry.register
class BPTT(GradientMethod):
    """Backpropagation through time with surrogate derivatives: the reference method,
    exact except for the surrogate.

    Memory and time of a training step grow with T: every layer stores the activations
    of all steps.

    Source: Neftci, Mostafa and Zenke, "Surrogate Gradient Learning in Spiking Neural
    Networks", 2019.
    """

    def call(self, run: Run) -> Structure:
        return plain(run)
