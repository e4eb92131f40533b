"""Runs the network of a model with an observer, without changing the model."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_ratesnn import _graph, layer_kinds
from keras_ratesnn._core import time_axis
from keras_ratesnn._core.annotations import Structure, Tensor
from keras_ratesnn._core.backend import engine
from keras_ratesnn._graph import Signal
from keras_ratesnn._model.call_inputs import call_inputs
from keras_ratesnn._model.time_masks import check_samples
from keras_ratesnn.gradients.handlers import Handler
from keras_ratesnn.gradients.network import NodesOf, plain_nodes
from keras_ratesnn.gradients.observing import ObservedCall, Observer, Observing
from keras_ratesnn.spiking_model import SpikingModel, twin_of


def tensors(model: SpikingModel, x: Structure) -> Structure:
    """A batch as tensors; for the errors see `check_samples`."""
    check_samples(model, x)
    return keras.tree.map_structure(ops.convert_to_tensor, x)


def samples(x: Structure) -> int:
    """The number of samples in a batch."""
    return keras.tree.flatten(x)[0].shape[0]


def steps_that_count(model: SpikingModel, x: Structure) -> np.ndarray:
    """Which steps of each sample of a batch are not padding by the model's
    `mask_value`, `(batch, T)`."""
    network = _graph.as_graph(model.network)
    _, mask, _ = call_inputs(network, x, model.timesteps, None, model.mask_value)
    if mask is None:
        return np.ones((samples(x), model.timesteps), bool)
    return np.asarray(ops.convert_to_numpy(mask))


def without_padding(rows: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The rows of an array of all steps, `(batch * T, ...)`, that are not padding, see
    `steps_that_count`."""
    # An index would copy them.
    return rows if counts.all() else rows[counts.reshape(-1)]


def observed(
    model: SpikingModel,
    x: Structure,
    observe: Observer | None = None,
    nodes: NodesOf = plain_nodes,
    programs: dict[Any, Any] | None = None,
) -> Structure:
    """The outputs of a model for a batch, in inference mode.

    Args:
        model: A `SpikingModel`.
        x: Structure of tensors, processed as one batch.
        observe: See `Observing`. Signals hold all steps. Defaults to `None`.
        nodes: See `Network`. Defaults to `plain_nodes`.
        programs: See `Observing`. Defaults to `None`.
    """
    with engine.no_gradient():
        return twin_of(model, Observing(observe, nodes, programs))(x, training=False)


def any_nan(outputs: Structure) -> bool:
    """Whether any output of a model is NaN."""
    return any(
        bool(ops.any(ops.isnan(output))) for output in keras.tree.flatten(outputs)
    )


def is_neuron(call: ObservedCall) -> bool:
    """Whether a call is that of a neuron layer."""
    return call.kind.role == layer_kinds.NEURON


def unfolded(tensor: Tensor, timesteps: int) -> np.ndarray:
    """The steps of a signal as an array, `(batch, T, ...)` in float32 or wider."""
    return array(time_axis.unfold(tensor, timesteps))


def spikes(call: ObservedCall | Handler, signal: Signal, timesteps: int) -> np.ndarray:
    """How often each neuron of a neuron layer spikes at each step, `(batch, T, ...)`: 0
    or 1, or integers."""
    values, size = unfolded(signal.value, timesteps), call.operation.cell.spike_size
    # Half precision rounds normalised spikes.
    return values if size == 1.0 else np.rint(values / size)


def array(tensor: Tensor) -> np.ndarray:
    """A tensor as an array, in float32 or wider."""
    return np.asarray(ops.convert_to_numpy(time_axis.widen(tensor)))
