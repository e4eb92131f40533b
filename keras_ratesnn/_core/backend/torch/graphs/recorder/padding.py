"""A pass over graphs: convolutions that pad their inputs themselves, instead of reading
a padded copy.

A layer that pads before a convolution writes its input once more, with zeros around it,
and the backward pass cuts them off.
"""

import operator

import torch

_aten = torch.ops.aten
_PAD, _PERMUTE = _aten.constant_pad_nd.default, _aten.permute.default
_CONVOLUTION, _BACKWARD = _aten.convolution.default, _aten.convolution_backward.default


def pad_in_convolutions(graph):
    """Changes convolutions of padded inputs, and their derivatives, into padding ones,
    where nothing else reads the copy.

    Args:
        graph: An `fx.Graph`.
    """
    before = len(graph.nodes)
    for pad in graph.find_nodes(op="call_function", target=_PAD):
        amounts = _amounts(pad)
        if amounts is None or min(amounts) < 0:
            continue
        readers = _readers(pad, amounts)
        if readers and all(_may_pad(*reader) for reader in readers):
            for reader in readers:
                _let_pad(*reader)
            _take_out(pad)
    if len(graph.nodes) < before:
        _renew_shapes(graph)


def _amounts(pad):
    """How many zeros are put on each side of each axis, a tuple; `None` if the sides
    differ, or others than zeros are put."""
    _, sides, *value = pad.args
    if value not in ([], [0], [0.0]) or any(
        before != after for before, after in zip(sides[::2], sides[1::2], strict=True)
    ):
        return None
    # The last axis is first.
    return (*(0,) * (pad.meta["val"].ndim - len(sides) // 2), *reversed(sides[::2]))


def _readers(node, amounts):
    """`(reader, tensor, amounts)` for each node that reads a padded tensor or its
    transpose, with the zeros of its axes."""
    readers = []
    for user in node.users:
        if user.target is _PERMUTE:
            readers += _readers(user, tuple(amounts[axis] for axis in user.args[1]))
        else:
            readers.append((user, node, amounts))
    return readers


def _may_pad(reader, tensor, amounts):
    if amounts[:2] != (0, 0):
        return False
    if reader.target is _CONVOLUTION:
        return (
            reader.args[0] is tensor
            and reader.args[1] is not tensor
            and not reader.args[6]
        )
    if reader.target is not _BACKWARD or [
        argument is tensor for argument in reader.args[:3]
    ] != [False, True, False]:
        return False
    return not reader.args[7] and _cuts(reader, amounts) is not None


def _cuts(backward, amounts):
    """The nodes that cut the padding off the gradient of a padded input; `None` if
    something reads it before."""
    gradients = [
        user
        for user in backward.users
        if user.target is operator.getitem and user.args[1] == 0
    ]
    readers = [
        reader for gradient in gradients for reader in _readers(gradient, amounts)
    ]
    for cut, _, around in readers:
        if cut.target is not _PAD or _amounts(cut) != tuple(
            -amount for amount in around
        ):
            return None
    return [cut for cut, *_ in readers]


def _let_pad(reader, tensor, amounts):
    position, cuts = (
        (4, []) if reader.target is _CONVOLUTION else (5, _cuts(reader, amounts))
    )
    own = reader.args[position]
    reader.update_arg(
        position, [before + more for before, more in zip(own, amounts[2:], strict=True)]
    )
    for cut in cuts:
        _take_out(cut)


def _take_out(pad):
    pad.replace_all_uses_with(pad.args[0])
    pad.graph.erase_node(pad)


def _renew_shapes(graph):
    """Notes the shapes of transposes, and of gradients of inputs, anew. Constants have
    no shape noted."""
    for node in graph.nodes:
        if node.target is _PERMUTE and "val" in node.args[0].meta:
            node.meta = {
                **node.meta,
                "val": node.args[0].meta["val"].permute(node.args[1]),
            }
        elif (
            node.target is operator.getitem
            and node.args[0].target is _BACKWARD
            and node.args[1] == 0
        ):
            node.meta = {**node.meta, "val": node.args[0].args[1].meta.get("val")}
