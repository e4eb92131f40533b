"""Handlers: one file for each kind of operation. `handler_class` tells which one an
operation has, by its facts."""

from keras_ratesnn import layer_kinds
from keras_ratesnn._graph import PlannedCall
from keras_ratesnn.gradients.handlers.eligibility import EligibilityHandler
from keras_ratesnn.gradients.handlers.encoder import EncoderHandler
from keras_ratesnn.gradients.handlers.feedback import FeedbackHandler
from keras_ratesnn.gradients.handlers.handler import Context, Handler
from keras_ratesnn.gradients.handlers.mixing import MixingHandler
from keras_ratesnn.gradients.handlers.neuron import NeuronHandler
from keras_ratesnn.gradients.handlers.normalization import NormalizationHandler
from keras_ratesnn.gradients.handlers.operation import OperationHandler
from keras_ratesnn.gradients.handlers.parallel import (
    AllStepsHandler,
    PartialSumsHandler,
)
from keras_ratesnn.gradients.handlers.random import RandomHandler
from keras_ratesnn.gradients.handlers.random_mask import RandomMaskHandler
from keras_ratesnn.gradients.handlers.readout import ReadoutHandler
from keras_ratesnn.gradients.handlers.time_mean import TimeMeanHandler
from keras_ratesnn.gradients.time.derivative import has_written_derivative

_BY_ROLE = {
    layer_kinds.ENCODER: EncoderHandler,
    layer_kinds.TIME_MIXING: MixingHandler,
    layer_kinds.READOUT: ReadoutHandler,
}


def handler_class(
    call: PlannedCall, context: Context, follows_a_mean: bool = False
) -> type[Handler]:
    """The class of the handler of a call. In a stream a time mean that follows another
    one is an ordinary operation."""
    kind = layer_kinds.kind_of(call.operation)
    training = call.kwargs.get("training", context.training)
    if kind.role == layer_kinds.NEURON:
        if not context.records:
            return NeuronHandler
        return _recording_class(call.operation.cell)
    if kind.role in _BY_ROLE:
        return _BY_ROLE[kind.role]
    if kind.role == layer_kinds.TIME_MEAN and context.streams and not follows_a_mean:
        return TimeMeanHandler
    # A frozen normalisation is affine.
    if training and kind.normalization is not None and call.operation.trainable:
        return NormalizationHandler
    if training and kind.random_mask:
        return RandomMaskHandler
    if layer_kinds.is_random(call.operation, training):
        return RandomHandler
    return OperationHandler


def _recording_class(cell):
    """The class of the handler of neurons that record what their rates need."""
    if cell.feedback is not None:
        return FeedbackHandler
    if cell.in_parallel and not has_written_derivative(cell):
        # Their weights belong to time steps.
        return AllStepsHandler
    if cell.in_parallel and has_written_derivative(cell, "over_time_derivatives"):
        return PartialSumsHandler
    return EligibilityHandler
