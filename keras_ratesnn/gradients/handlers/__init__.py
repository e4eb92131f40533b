"""Handlers: one file for each kind of operation. `handler_class` tells which one an operation has, by its facts."""

from keras_ratesnn import layer_kinds
from keras_ratesnn._graph import PlannedCall
from keras_ratesnn.gradients.handlers.encoder import EncoderHandler
from keras_ratesnn.gradients.handlers.handler import Context, Handler, LoopedHandler, State, Time
from keras_ratesnn.gradients.handlers.mask import MaskHandler
from keras_ratesnn.gradients.handlers.mixing import MixingHandler
from keras_ratesnn.gradients.handlers.neuron import NeuronHandler
from keras_ratesnn.gradients.handlers.normalization import NormalizationHandler
from keras_ratesnn.gradients.handlers.operation import OperationHandler
from keras_ratesnn.gradients.handlers.random import RandomHandler
from keras_ratesnn.gradients.handlers.time_mean import TimeMeanHandler

_OF_ROLE = {layer_kinds.NEURON: NeuronHandler, layer_kinds.ENCODER: EncoderHandler, layer_kinds.TIME_MIXING: MixingHandler}


def handler_class(call: PlannedCall, context: Context, follows_a_mean: bool = False) -> type[Handler]:
    """The class of the handler of a call. In a stream a time mean that follows another one is an ordinary operation."""
    kind = layer_kinds.kind_of(call.operation)
    training = call.kwargs.get("training", context.training)
    if kind.role in _OF_ROLE:
        return _OF_ROLE[kind.role]
    if kind.role == layer_kinds.TIME_MEAN and context.streams and not follows_a_mean:
        return TimeMeanHandler
    # A frozen normalisation is affine.
    if training and kind.normalization is not None and call.operation.trainable:
        return NormalizationHandler
    if training and kind.masks:
        return MaskHandler
    return RandomHandler if layer_kinds.is_random(call.operation, training) else OperationHandler


__all__ = [
    "Context",
    "EncoderHandler",
    "Handler",
    "LoopedHandler",
    "MaskHandler",
    "MixingHandler",
    "NeuronHandler",
    "NormalizationHandler",
    "OperationHandler",
    "RandomHandler",
    "State",
    "Time",
    "TimeMeanHandler",
    "handler_class",
]
