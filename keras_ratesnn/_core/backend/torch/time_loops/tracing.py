"""Steps of neurons as graphs of PyTorch operations."""

import functools

import torch
from torch.fx.experimental.proxy_tensor import make_fx

from keras_ratesnn._core import tree
from keras_ratesnn._core.backend.torch.recorder.graph_passes import draws


def traced(function, tensors):
    """The graph module of a function of tensors."""

    def flat(*tensors):
        return tree.flatten(with_tensors(function(*tensors), tensors))

    module = make_fx(flat)(*(tensor.detach() for tensor in tensors))
    module.graph.eliminate_dead_code()
    if any(map(draws, module.graph.nodes)):
        raise ValueError("random numbers are others at each step")
    return module


def with_tensors(structure, beside):
    """A structure with tensors instead of numbers, as precise as the tensors beside them, and not in half precision."""
    dtype = functools.reduce(torch.promote_types, (tensor.dtype for tensor in beside), torch.float32)
    return tree.map_leaves(lambda leaf: leaf if torch.is_tensor(leaf) else torch.full((), leaf, dtype=dtype), structure)
