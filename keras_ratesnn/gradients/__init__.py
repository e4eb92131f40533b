"""Training methods, one file each; `method.py` defines their interface."""

from keras_ratesnn._core import docstrings, registry
from keras_ratesnn._core.annotations import Config
from keras_ratesnn._graph import PlannedCall
from keras_ratesnn.gradients.bptt import BPTT
from keras_ratesnn.gradients.handlers import (
    Context,
    EligibilityHandler,
    EncoderHandler,
    Handler,
    MaskHandler,
    MixingHandler,
    NeuronHandler,
    NormalizationHandler,
    OperationHandler,
    RandomHandler,
)
from keras_ratesnn.gradients.handlers.handler import graft, stopped
from keras_ratesnn.gradients.handlers.looped import LoopedHandler
from keras_ratesnn.gradients.method import GradientMethod
from keras_ratesnn.gradients.network import (
    Network,
    Node,
    after_neurons,
    in_time,
    plain,
    plain_nodes,
    with_neurons,
)
from keras_ratesnn.gradients.ottt import OTTT
from keras_ratesnn.gradients.rate import Rate
from keras_ratesnn.gradients.run import Run
from keras_ratesnn.gradients.sltt import SLTT

BY_NAME = {"rate": Rate, "bptt": BPTT, "sltt": SLTT, "ottt": OTTT}


def get(identifier: str | GradientMethod | Config) -> GradientMethod:
    """Returns the training method for `identifier`.

    >>> get("rate")
    Rate(windows=1, last_step_statistics=False)

    Args:
        identifier: `"rate"`, `"bptt"`, `"sltt"`, `"ottt"`, a `GradientMethod` or a
            serialised one.

    Returns:
        A `GradientMethod`.

    Raises:
        ValueError: If the name is unknown.
        TypeError: If it is none of these.
    """
    advice = " For two windows, pass keras_ratesnn.gradients.Rate(windows=2)."
    return registry.resolve("gradient", identifier, GradientMethod, BY_NAME, advice)


__all__ = [
    "BPTT",
    "BY_NAME",
    "OTTT",
    "SLTT",
    "Context",
    "EligibilityHandler",
    "EncoderHandler",
    "GradientMethod",
    "Handler",
    "LoopedHandler",
    "MaskHandler",
    "MixingHandler",
    "Network",
    "NeuronHandler",
    "Node",
    "NormalizationHandler",
    "OperationHandler",
    "PlannedCall",
    "RandomHandler",
    "Rate",
    "Run",
    "after_neurons",
    "get",
    "graft",
    "in_time",
    "plain",
    "plain_nodes",
    "stopped",
    "with_neurons",
]

docstrings.write_out(globals())
