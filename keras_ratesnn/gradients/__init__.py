"""Training methods, one file each; `method.py` defines their interface."""

from keras_ratesnn._core import registry
from keras_ratesnn._core.annotations import Config
from keras_ratesnn._core.backend import graft
from keras_ratesnn._graph import Call
from keras_ratesnn.gradients.bptt import BPTT
from keras_ratesnn.gradients.forward import ForwardRule
from keras_ratesnn.gradients.method import GradientMethod
from keras_ratesnn.gradients.neuron_pass import NeuronPass
from keras_ratesnn.gradients.ottt import OTTT
from keras_ratesnn.gradients.rate import Rate
from keras_ratesnn.gradients.record import Record
from keras_ratesnn.gradients.rule import Rule
from keras_ratesnn.gradients.run import Run
from keras_ratesnn.gradients.signals import Signal
from keras_ratesnn.gradients.sltt import SLTT
from keras_ratesnn.gradients.step_modes import MultiStep, SingleStep, StepMode, step_mode_of

BY_NAME = {"rate": Rate, "bptt": BPTT, "sltt": SLTT, "ottt": OTTT}


def get(identifier: str | GradientMethod | Config) -> GradientMethod:
    """Returns the training method for `identifier`.

    >>> get("rate")
    Rate(windows=1, last_step_statistics=False)

    Args:
        identifier: `"rate"`, `"bptt"`, `"sltt"`, `"ottt"`, a `GradientMethod` or a serialised one.

    Returns:
        A `GradientMethod`.

    Raises:
        ValueError: If the name is unknown.
        TypeError: If it is none of these.
    """
    return registry.resolve("gradient", identifier, GradientMethod, BY_NAME)


__all__ = [
    "BPTT",
    "BY_NAME",
    "OTTT",
    "SLTT",
    "Call",
    "ForwardRule",
    "GradientMethod",
    "MultiStep",
    "NeuronPass",
    "Rate",
    "Record",
    "Rule",
    "Run",
    "Signal",
    "SingleStep",
    "StepMode",
    "get",
    "graft",
    "step_mode_of",
]
