"""Results that layers compute from their weights alone, such as standardised kernels:
once for all time steps of a call."""

import contextvars
import types
from typing import Any

from keras import ops

from keras_ratesnn._core import time_axis, tree
from keras_ratesnn._core.contexts import setting

_kernels = contextvars.ContextVar[Any](
    "keras_ratesnn_kernels", default=types.MappingProxyType({})
)


def using(kernels):
    """A context in which `of` finds these kernels: tensors by names, for each layer."""
    return setting(_kernels, kernels)


def stopped():
    """A context in which the kernels that `of` finds carry no gradient."""
    return using(
        {
            layer: tree.map_leaves(ops.stop_gradient, kernels)
            for layer, kernels in _kernels.get().items()
        }
    )


def of(layer, name, compute):
    """The kernel of a layer with a name, in the dtype of its calls: the one that the
    network has computed before, or else `compute()`."""
    kernels = _kernels.get().get(layer)
    kernel = compute() if kernels is None else kernels[name]
    # Cast in each call, so that gradients of all steps add up in full precision.
    return time_axis.cast(kernel, layer.compute_dtype)
