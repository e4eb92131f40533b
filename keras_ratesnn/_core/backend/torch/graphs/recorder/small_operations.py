"""A pass over graphs: element-wise operations on small tensors, such as statistics of
channels, in batches.

On a GPU each of them costs a launch, whatever its size, and a network has a dozen for
every layer. PyTorch's operations on lists of tensors compute the same numbers in one
launch.
"""

import collections
import operator
from typing import Any

import torch
from torch import fx

from keras_ratesnn._core.backend.torch.graphs.recorder import graph_passes

_aten = torch.ops.aten

MOST_ELEMENTS = 2**14
"""Larger tensors are worth a launch of their own."""

_ALONE = {
    _aten.reciprocal.default: _aten._foreach_reciprocal.default,
    _aten.rsqrt.default: _aten._foreach_rsqrt.default,
}
_WITH_ANOTHER = {
    _aten.add.Tensor: _aten._foreach_add,
    _aten.sub.Tensor: _aten._foreach_sub,
    _aten.mul.Tensor: _aten._foreach_mul,
    _aten.div.Tensor: _aten._foreach_div,
    _aten.pow.Tensor_Scalar: _aten._foreach_pow,
    _aten.clamp.default: _aten._foreach_clamp_min,
}


def batched(graph):
    """The same graph, in which small operations run in batches."""
    return batched_at_end(batched_at_beginning(graph))


def batched_at_end(graph):
    """The same graph, in which small operations whose results only outputs need run at
    the end, in batches."""
    changing = graph_passes.changing(graph)
    late: set[fx.Node] = set()
    for node in reversed(graph.nodes):
        if _is_movable(node, changing) and all(
            user in late or user.op == "output" for user in node.users
        ):
            late.add(node)
    before = [node for node in graph.nodes if node not in late and node.op != "output"]
    return _reordered(graph, before, late, [graph.output_node()])


def batched_at_beginning(graph):
    """The same graph, in which small operations that need only arguments run at the
    beginning, in batches."""
    changing = graph_passes.changing(graph)
    early: set[fx.Node] = set()
    needed: set[fx.Node] = set()
    for node in graph.nodes:
        is_given = all(
            argument in early or argument.op in ("placeholder", "get_attr")
            for argument in node.all_input_nodes
        )
        may_move = _is_movable(node, changing) or (
            _is_light(node) and changing.isdisjoint(node.all_input_nodes)
        )
        if is_given and node.op == "call_function" and may_move:
            early.add(node)
    for node in reversed(graph.nodes):
        if node in early and (
            _batch(node) is not None or any(user in needed for user in node.users)
        ):
            needed.add(node)
    given = [node for node in graph.nodes if node.op in ("placeholder", "get_attr")]
    rest = [node for node in graph.nodes if node not in needed and node not in given]
    return _reordered(graph, given, needed, rest)


def _reordered(graph, before, moved, after):
    """The same graph with its nodes in another order, and batches of those that are
    moved."""
    result = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}

    def copy(nodes):
        for node in nodes:
            copies[node] = result.node_copy(node, copies.__getitem__)

    copy(before)
    for batch in _batches(graph, moved):
        if len(batch) > 1:
            _put_batch(result, batch, copies)
        else:
            copy(batch)
    copy(after)
    return result


def _batches(graph, nodes):
    """Lists of nodes that may run together, each after those that it needs."""
    depths: dict[fx.Node, int] = {}
    levels: dict[int, dict] = collections.defaultdict(
        lambda: collections.defaultdict(list)
    )
    for node in graph.nodes:
        if node in nodes:
            before = [depths.get(argument, 0) for argument in node.all_input_nodes]
            depths[node] = 1 + max(before, default=0)
            batch = _batch(node)
            key = node if batch is None else batch[0]
            levels[depths[node]][key].append(node)
    return [batch for _, level in sorted(levels.items()) for batch in level.values()]


def _put_batch(graph, batch, copies):
    """Adds one operation for a batch of nodes to a graph."""
    keys, tensors, numbers = zip(*map(_batch, batch), strict=True)
    operation = keys[0][0]
    arguments: list[Any] = []
    for column in zip(*tensors, strict=True):
        arguments.append([copies[tensor] for tensor in column])
    if numbers[0] is not None:
        is_one = len(set(map(repr, numbers))) == 1
        operation = operation.Scalar if is_one else operation.ScalarList
        arguments.append(numbers[0] if is_one else list(numbers))
    result = graph.call_function(operation, tuple(arguments), batch[0].kwargs)
    for index, node in enumerate(batch):
        copies[node] = graph.call_function(operator.getitem, (result, index))


def _batch(node):
    """`(key, tensors, number)`: nodes of the same key may run together, by the
    operation with which it begins; or `None`."""
    if node.op != "call_function":
        return None
    target, args, kwargs = node.target, node.args, node.kwargs
    shape, *kind = _properties(node)
    shapes = []
    for argument in node.all_input_nodes:
        size, *argument_kind = _properties(argument)
        if argument_kind != kind:
            return None
        shapes.append(size)
    alike = str(kwargs), *kind
    if target in _ALONE and len(args) == 1:
        return (_ALONE[target], *alike), args, None
    if target not in _WITH_ANOTHER or len(args) != 2:
        return None
    operation = _WITH_ANOTHER[target]
    first, second = args
    if isinstance(first, fx.Node) and isinstance(second, (int, float)) and not kwargs:
        return (operation, *alike), (first,), second
    if isinstance(second, fx.Node) and all(size == shape for size in shapes):
        return (operation.List, *alike), args, None
    return None


def _properties(node):
    """The shape, dtype and device of a node's result, `None` if it is no tensor."""
    value = node.meta.get("val")
    return (
        (value.shape, value.dtype, value.device)
        if torch.is_tensor(value)
        else (None, None, None)
    )


def _is_movable(node, changing):
    """Whether a node is a small operation that may run later or earlier: nothing that
    it reads or makes is changed in place."""
    if not (
        _batch(node) is not None
        or _is_view(node)
        or node.target is _aten._to_copy.default
    ):
        return False
    memory = list(map(graph_passes.memory_of, (node, *node.all_input_nodes)))
    if not changing.isdisjoint(memory):
        return False
    # What is needed later stays in memory until then: statistics of channels may, but
    # not membranes of all steps, or views.
    return all(_is_vector(_properties(owner)[0] or torch.Size()) for owner in memory)


def _is_vector(shape):
    return shape.numel() == max(shape, default=1) <= MOST_ELEMENTS


def _is_light(node):
    """Whether a node is a view, or makes something small of something large, which
    stays in memory anyway."""
    return _is_view(node) or node.target is _aten.mean.dim


def _is_view(node):
    return getattr(node.target, "is_view", False)
