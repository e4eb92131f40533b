"""A pass over graphs: ways around kernels of PyTorch that are slow on CPUs, with the
same results.

They matter most in half precision, where convolutions take less time, and each layer
has casts.
"""

import math

import torch

from keras_ratesnn._core.backend.torch.normalization import HALF
from keras_ratesnn._core.backend.torch.recorder import graph_passes

_aten = torch.ops.aten


def without_slow_kernels(graph):
    """Changes means over steps, and gradients of kernels that are brought into the
    memory layout of their weights."""
    for node in graph.find_nodes(op="call_function", target=_aten.mean.dim):
        if _may_pool(node):
            _replace(node, mean_by_pooling, node.args[0])
    changed = graph_passes.changing(graph)
    for node in graph.find_nodes(op="call_function", target=_aten.clone.default):
        value, (source,) = node.meta["val"], node.args
        if (
            value.ndim < 3
            or value.device.type != "cpu"
            or node.kwargs != {"memory_format": torch.contiguous_format}
        ):
            continue
        if graph_passes.is_only_used_here(source, _aten._to_copy.default) and _may_read(
            source.args[0], changed
        ):
            source = source.args[0]
        _replace(node, contiguous, source, value.dtype)
    graph.eliminate_dead_code()


def _may_read(node, changed):
    """Whether a tensor can be read later than it is: it is on the CPU, and nothing
    changes it in place."""
    value = node.meta.get("val")
    return (
        value is not None
        and value.device.type == "cpu"
        and graph_passes.memory_of(node) not in changed
    )


def _may_pool(node):
    terms, axes, *keepdim = node.args
    value = terms.meta.get("val")
    is_over_steps = (
        value is not None
        and value.ndim > 2
        and list(axes or ()) == [1]
        and not keepdim
        and not node.kwargs
    )
    is_half = is_over_steps and value.dtype in HALF
    return is_half and value.device.type == "cpu" and value.is_contiguous()


def _replace(node, function, *arguments):
    with node.graph.inserting_before(node):
        other = node.graph.call_function(function, arguments)
    other.meta = node.meta
    node.replace_all_uses_with(other)


def mean_by_pooling(steps):
    """The mean over the second axis of a tensor in half precision, `(batch, T, ...)`.

    PyTorch's mean writes a copy in float32 first, and takes three times as long.
    """
    rows, timesteps, *others = steps.shape
    # Images of one column, whose channels, which are last in memory, are all other
    # axes.
    images = steps.view(rows, timesteps, 1, math.prod(others)).permute(0, 3, 1, 2)
    return (
        torch.ops.aten.avg_pool2d(images, (timesteps, 1))
        .permute(0, 2, 3, 1)
        .reshape(rows, *others)
    )


def contiguous(tensor, dtype):
    """A contiguous copy in a dtype.

    A gradient of a Keras kernel, `(height, width, in, out)`, is `(out, height, width,
    in)` in memory. As the transpose of a matrix, and in its own precision, it is copied
    several times as fast.
    """
    outputs_first = tensor.movedim(-1, 0)
    if outputs_first.is_contiguous() and not tensor.is_contiguous():
        return (
            outputs_first.reshape(len(outputs_first), -1)
            .t()
            .contiguous()
            .reshape(tensor.shape)
            .to(dtype)
        )
    return tensor.to(dtype, copy=True, memory_format=torch.contiguous_format)
