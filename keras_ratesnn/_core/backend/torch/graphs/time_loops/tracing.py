"""Steps of neurons as graphs of PyTorch operations."""

import functools

import torch

from keras_ratesnn._core import tree
from keras_ratesnn._core.backend.torch.graphs.recorder import graph_passes

_aten = torch.ops.aten


def traced(function, tensors):
    """The graph module of a function of tensors."""

    def flat(*tensors):
        return tree.flatten(with_tensors(function(*tensors), tensors))

    module = graph_passes.traced(flat, *(tensor.detach() for tensor in tensors))
    _take_from_stacks(module.graph)
    module.graph.eliminate_dead_code()
    if any(map(graph_passes.draws, module.graph.nodes)):
        raise ValueError("random numbers are others at each step")
    return module


def _take_from_stacks(graph):
    """Where tensors are stacked and taken from the stack again, they themselves are
    used."""
    for node in graph.find_nodes(op="call_function", target=_aten.stack.default):
        pieces, *dimension = node.args
        unstacked = [
            user
            for user in node.users
            if user.target is _aten.unbind.int and user.args == (node,)
        ]
        taken = [
            user
            for user in node.users
            if user.target is _aten.select.int and user.args[1] == 0
        ]
        taken += [piece for user in unstacked for piece in user.users]
        for piece in taken if dimension in ([], [0]) else ():
            piece.replace_all_uses_with(pieces[piece.args[-1]])


def with_tensors(structure, beside):
    """A structure with tensors instead of numbers, as precise as the tensors beside
    them, and not in half precision."""
    dtype = functools.reduce(
        torch.promote_types, (tensor.dtype for tensor in beside), torch.float32
    )
    return tree.map_leaves(
        lambda leaf: (
            leaf if torch.is_tensor(leaf) else torch.full((), leaf, dtype=dtype)
        ),
        structure,
    )
