"""Causes of neurons that do not spike or learn, other than small currents: numbers that
are NaN, currents that are too large; and where normalisation is in place already."""

import math

import keras
import numpy as np
from keras import ops

from keras_ratesnn import _graph
from keras_ratesnn._core.names import listed
from keras_ratesnn._model.weight_checks import not_finite
from keras_ratesnn.layer_kinds import NEURON, kind_of


def is_broken(tensors):
    """Whether any value of tensors is NaN or infinite, a boolean tensor."""
    return ops.any(
        ops.stack(
            [ops.any(ops.logical_not(ops.isfinite(tensor))) for tensor in tensors]
        )
    )


def any_nan(outputs):
    """Whether any output of a model is NaN."""
    return any(
        bool(ops.any(ops.isnan(output))) for output in keras.tree.flatten(outputs)
    )


LARGE_CURRENT = 16
"""A root mean square of currents of so many thresholds is too large; that of normalised
ones is about one."""


def are_large(cell, currents):
    """Whether currents are so large for a cell that hardly any neuron is ever near its
    threshold, where the surrogate passes gradient, a boolean tensor."""
    size = ops.sqrt(ops.mean(ops.square(ops.cast(currents, "float32"))))
    # The threshold of parallel cells is 0: a bias, which starts at about -1, has its
    # place.
    threshold = ops.mean(cell.independent_cell().effective_threshold())
    return size > LARGE_CURRENT * ops.maximum(threshold, 1.0)


def origin_of_nan(model, x):
    """A sentence about where values come from that are NaN or infinite, and what to do.

    Args:
        model: A `SpikingModel`.
        x: Structure of its inputs.
    """
    is_padding = model.mask_value is not None and math.isnan(model.mask_value)
    leaves = [
        ops.convert_to_numpy(leaf) for leaf in keras.tree.flatten(x) if leaf is not None
    ]
    if not is_padding and not all(np.isfinite(leaf).all() for leaf in leaves):
        return (
            "`x` has values that are NaN or infinite: leave out such samples, or "
            "fill the gaps, np.nan_to_num(x)."
        )
    broken = not_finite(model.network.weights)
    if broken:
        return (
            f"The weights {listed(broken)} are NaN or infinite, and stay so: "
            "initialise or load them again. If training caused this, look for NaN in "
            "the inputs and labels, lower the learning rate, or set clipnorm in the "
            "optimizer."
        )
    return (
        "`x` and the weights are finite: some operation makes NaN of them, as a "
        "division by zero does."
    )


def normalized_neurons(network):
    """The layers of neurons whose current is normalised in training, with no weights in
    between: a set.

    Args:
        network: A Functional or Sequential model.
    """
    neurons, normalized = set(), set()
    for call in _graph.whole_of(_graph.as_graph(network)).calls:
        kind = kind_of(call.operation)
        follows = any(before in normalized for before in call.sources)
        if kind.role == NEURON:
            neurons.update([call.operation] if follows else [])
        elif kind.normalization is not None or (
            follows
            and (
                kind.moves
                or kind.random_mask
                or kind.parameter_free
                or kind.keeps_order
            )
        ):
            normalized.add(call)
    return neurons
