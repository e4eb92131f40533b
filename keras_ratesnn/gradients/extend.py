"""The parts of training methods of your own: the nodes of a network, and the handlers
of operations."""

from keras_ratesnn._core import docstrings
from keras_ratesnn._graph import PlannedCall
from keras_ratesnn.gradients.handlers import (
    Context,
    EligibilityHandler,
    EncoderHandler,
    Handler,
    MixingHandler,
    NeuronHandler,
    NormalizationHandler,
    OperationHandler,
    RandomHandler,
    RandomMaskHandler,
)
from keras_ratesnn.gradients.handlers.handler import graft, stopped
from keras_ratesnn.gradients.handlers.looped import LoopedHandler
from keras_ratesnn.gradients.network import (
    Network,
    Node,
    in_time,
    plain,
    plain_nodes,
)
from keras_ratesnn.gradients.nodes_for_neurons import after_neurons, with_neurons
from keras_ratesnn.gradients.run import Run

__all__ = [
    "Context",
    "EligibilityHandler",
    "EncoderHandler",
    "Handler",
    "LoopedHandler",
    "MixingHandler",
    "Network",
    "NeuronHandler",
    "Node",
    "NormalizationHandler",
    "OperationHandler",
    "PlannedCall",
    "RandomHandler",
    "RandomMaskHandler",
    "Run",
    "after_neurons",
    "graft",
    "in_time",
    "plain",
    "plain_nodes",
    "stopped",
    "with_neurons",
]

docstrings.write_out(globals())
