"""What some neurons of a layer do at each step."""

from collections.abc import Sequence

import numpy as np

from keras_ratesnn import _graph
from keras_ratesnn._core import backend, checks
from keras_ratesnn._core.annotations import Structure
from keras_ratesnn._model.call_inputs import call_inputs, starting_at
from keras_ratesnn.analysis import _observation
from keras_ratesnn.layer_kinds import NEURON, kind_of
from keras_ratesnn.observed_model import named_calls, observed
from keras_ratesnn.spiking_model import SpikingModel, checked_model

ADVICE = "Pass how many neurons to show, evenly spaced, or a list of their indices in the flattened layer."


def recorded(
    model: SpikingModel, x: Structure, layer: str, neurons: int | Sequence[int], membranes: bool
) -> tuple[np.ndarray, ...]:
    """The indices of chosen neurons, `(N,)`, their spikes, and if wanted their membranes, `(samples, T, N)`.

    The model runs in inference mode, and is not changed.

    Args:
        model: A `SpikingModel`.
        x: A batch of inputs, which is processed as one batch.
        layer: String, the name of a neuron layer.
        neurons: How many neurons, or a list of indices in the flattened layer.
        membranes: Boolean.
    """
    x = _observation.tensors(checked_model(model), x)
    checks.instance("layer", layer, str)
    calls = {name: call for name, call in named_calls(model.network).items() if kind_of(call.operation).role == NEURON}
    checks.one_of("layer", layer, calls)
    watched = observed(model, [layer] if membranes else [], [layer])
    watched.compile(jit_compile=False)
    with backend.no_gradient():
        found = watched(x, training=False)
    # Steps count from the first one of each sample that is not padding.
    first = call_inputs(_graph.as_graph(model.network), x, model.timesteps, None, model.mask_value)[2]
    tensors = [found[kind][layer] for kind in ("spikes", "membrane") if kind in found]
    steps = [_observation.array(tensor if first is None else starting_at(first, tensor)) for tensor in tensors]
    # Half precision rounds normalised spikes.
    steps[0] = np.rint(steps[0] / calls[layer].operation.cell.spike_size)
    flat = [values.reshape(*values.shape[:2], -1) for values in steps]
    indices = _indices(neurons, flat[0].shape[-1])
    return indices, *(values[..., indices] for values in flat)


def _indices(neurons, size):
    if not isinstance(neurons, (list, tuple, np.ndarray)) or np.ndim(neurons) == 0:
        count = min(checks.positive_integer("neurons", neurons, advice=ADVICE), size)
        return np.unique(np.linspace(0, size - 1, count, dtype=int))
    indices = [checks.integer("neurons", index, advice=ADVICE) for index in neurons]
    if not indices or not all(0 <= index < size for index in indices):
        raise ValueError(f"`neurons` must be from 0 to {size - 1} in this layer. Received: neurons={list(neurons)}. {ADVICE}")
    return np.array(indices)
