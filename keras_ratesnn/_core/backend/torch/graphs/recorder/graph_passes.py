"""Graphs of functions, and passes over them: refuse what cannot be replayed, leave out
what nobody reads, split off the derivative.

They change graphs, not graph modules: PyTorch generates the code of a module anew for
each change.
"""

import math
import operator
from typing import Any

import torch
from torch import fx
from torch.fx.experimental.proxy_tensor import make_fx

from keras_ratesnn._core.backend.torch.normalization import HALF

_aten = torch.ops.aten
_ALIASES = (_aten.detach.default, _aten.alias.default)
"""Operations that return their argument."""


def traced(function, *arguments):
    """The graph module of a function of tensors. Tensors without values stand for its
    arguments: a number that Python or NumPy reads from them would be a constant of the
    graph, so it raises RuntimeError."""
    trace = make_fx(function, tracing_mode="fake", _allow_non_fake_inputs=True)
    module = trace(*arguments)
    # Forward mode's tensors without memory, which compiled code would read.
    for node in module.graph.find_nodes(
        op="call_function", target=_aten._efficientzerotensor.default
    ):
        node.target = _aten.zeros.default
    return module


def check(graph_module, repeated_draw):
    """Raises ValueError if a replay would not do what the recorded function does."""
    if repeated_draw is not None:
        raise ValueError(
            f"{repeated_draw} draws the same random numbers at each time step, from "
            "PyTorch's own generator, as a keras.layers.Dropout without a seed does "
            "inside another layer: give it a seed"
        )
    for node in graph_module.graph.nodes:
        owners = [memory_of(argument) for argument in written(node)]
        if any(owner.op in ("placeholder", "get_attr") for owner in owners):
            raise ValueError(
                f"{node.target} changes an input, a variable or a constant in place"
            )
        if node.target is _aten._local_scalar_dense.default:
            raise ValueError(
                "a number that Python computes with depends on the values of tensors"
            )
        if node.op == "get_attr":
            # Settings may be tensors, but PyTorch's own modules have weights that Keras
            # does not know.
            constant = getattr(graph_module, node.target)
            if isinstance(constant, torch.nn.Parameter) or constant.requires_grad:
                raise ValueError(
                    "a layer uses a parameter that is not a Keras variable"
                )


def tensors_as_inputs(graph_module, count, settings):
    """Turns constants whose values may change, those in the memory of the tensors
    `settings`, into inputs, which follow the first `count` ones.

    Returns:
        List of these constants.
    """
    memory = {tensor.untyped_storage().data_ptr() for tensor in settings}
    graph = graph_module.graph
    inputs: dict[str, fx.Node] = {}
    tensors: list[torch.Tensor] = []
    before = graph.find_nodes(op="placeholder")[count - 1]
    for node in graph.find_nodes(op="get_attr"):
        constant = getattr(graph_module, node.target)
        if constant.untyped_storage().data_ptr() not in memory:
            continue
        if node.target not in inputs:
            with graph.inserting_after(before):
                placeholder = graph.placeholder(f"setting_{len(tensors)}")
            inputs[node.target] = placeholder
            # PyTorch's compiler reads it.
            placeholder.meta["val"] = before.meta["val"].fake_mode.from_tensor(constant)
            before = placeholder
            tensors.append(constant)
        node.replace_all_uses_with(inputs[node.target])
        graph.erase_node(node)
    return tensors


def compute_constants(graph_module):
    """Computes once what depends only on constants: on a GPU each replay would copy
    them from the host."""
    graph = graph_module.graph
    changed = changing(graph)
    for node in list(graph.nodes):
        arguments = node.all_input_nodes
        is_constant = all(
            argument.op == "get_attr" and argument not in changed
            for argument in arguments
        )
        if (
            node.op != "call_function"
            or not arguments
            or not is_constant
            or draws(node)
            or memory_of(node) in changed
        ):
            continue
        constants = {
            argument: getattr(graph_module, argument.target) for argument in arguments
        }
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), constants.__getitem__)
        with torch.no_grad():
            value = node.target(*args, **kwargs)
        if torch.is_tensor(value):
            name = f"_computed_{node.name}"
            graph_module.register_buffer(name, value)
            with graph.inserting_before(node):
                node.replace_all_uses_with(graph.get_attr(name))
            graph.erase_node(node)


def simplified(graph, forward_names):
    """The same graph with each operation once, without those that return their
    argument.

    Args:
        graph: An `fx.Graph`.
        forward_names: Set of the names of the nodes on the way to the outputs.

    Returns:
        `(graph, forward_nodes)`: the latter is the set of these nodes in the new graph.
    """
    changed = changing(graph)
    copies: dict[fx.Node, fx.Node] = {}
    result = fx.Graph()
    forward_nodes: set[fx.Node] = set()
    # What the backward pass computes again, to save memory, is not taken from the
    # forward pass.
    computed: dict[bool, dict[Any, fx.Node]] = {True: {}, False: {}}
    for node in graph.nodes:
        is_part_of_tuple = (
            node.target is operator.getitem and copies[node.args[0]] in forward_nodes
        )
        is_forward = is_part_of_tuple or node.name in forward_names
        # A tensor that is changed in place is not the same as another that was computed
        # in the same way.
        may_be_shared = changed.isdisjoint(
            map(memory_of, (node, *node.all_input_nodes))
        )
        copy = _same(node, copies, computed[is_forward] if may_be_shared else {})
        if copy is None:
            copy = result.node_copy(node, copies.__getitem__)
            if node.op == "call_function" and may_be_shared:
                computed[is_forward][_key(copy.target, copy.args, copy.kwargs)] = copy
        copies[node] = copy
        if is_forward:
            forward_nodes.add(copy)
    return result, forward_nodes


def _same(node, copies, computed):
    """The node of the new graph that already has the result of this one, or `None`."""
    if node.op != "call_function" or draws(node):
        return None
    if node.target in _ALIASES or _is_view_of_same_shape(node):
        return copies[node.args[0]]
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), copies.__getitem__)
    if node.target is _aten.permute.default and args[0].target is node.target:
        origin, first = args[0].args
        order = [first[axis] % len(first) for axis in args[1]]
        if order == list(range(len(first))):
            return origin
    return computed.get(_key(node.target, args, kwargs))


def _is_view_of_same_shape(node):
    return (
        node.target is _aten.view.default
        and node.meta["val"].shape == node.args[0].meta["val"].shape
    )


def _key(target, args, kwargs):
    # As text, in which 1, 1.0 and True differ, and 0.0 and -0.0. Each node has a name.
    return target, repr((args, kwargs))


def split(graph, forward_nodes, tensors, outputs):
    """The forward and the backward part of a graph.

    Args:
        graph: From tensors and gradients of outputs to outputs and gradients of
            tensors.
        forward_nodes: Set of the nodes on the way to the outputs.
        tensors: Integer, the number of tensors.
        outputs: Integer, the number of outputs.

    Returns:
        `(forward, backward)`, graphs: from tensors to outputs and saved values, and
        from saved values and gradients of outputs to gradients of tensors.
    """
    upstream = graph.find_nodes(op="placeholder")[tensors:]
    results = list(graph.output_node().args[0])
    behind = [
        node
        for node in graph.nodes
        if node.op == "call_function" and node not in forward_nodes
    ]
    needed = [argument for node in behind for argument in node.all_input_nodes]
    needed += results[outputs:]
    computed = {*behind, *upstream}
    saved = [
        node
        for node in dict.fromkeys(needed)
        if node not in computed and node.op != "get_attr"
    ]

    ahead = [
        node for node in graph.nodes if node not in computed and node.op != "output"
    ]
    forward = part_of([], ahead, [*results[:outputs], *saved])
    constants = graph.find_nodes(op="get_attr")
    backward = part_of([*saved, *upstream], [*constants, *behind], results[outputs:])
    for part in (forward, backward):
        part.eliminate_dead_code()
    return forward, backward


def part_of(arguments, nodes, results):
    """A graph of some nodes of another one, which takes and returns the results of
    nodes."""
    part = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in arguments:
        copies[node] = part.placeholder(node.name)
        copies[node].meta = node.meta
    for node in nodes:
        copies[node] = part.node_copy(node, copies.__getitem__)
    part.output(tuple(copies[node] for node in results))
    return part


def use_means(graph):
    """Replaces sums that are divided by the number of their terms by means, with the
    casts to a wider dtype and back.

    PyTorch's mean does the same in one pass over memory, on GPUs in one launch; it
    widens half precision to float32.
    """
    for node in graph.find_nodes(op="call_function", target=_aten.div.Tensor):
        if not _is_mean(node):
            continue
        terms, axes, *keepdim = node.args[0].args
        dtype, kwargs = terms.meta["val"].dtype, {}
        if _is_only_used_here(
            terms, _aten._to_copy.default
        ) and terms.kwargs.keys() == {"dtype"}:
            terms, kwargs = terms.args[0], terms.kwargs
            narrow = terms.meta["val"].dtype
            users = list(node.users)
            is_narrowed = (
                len(users) == 1
                and users[0].target is _aten._to_copy.default
                and users[0].kwargs == {"dtype": narrow}
            )
            if is_narrowed and narrow in HALF and dtype == torch.float32:
                node, kwargs = users[0], {}
        with graph.inserting_before(node):
            mean = graph.call_function(_aten.mean.dim, (terms, axes, *keepdim), kwargs)
        mean.meta = node.meta
        node.replace_all_uses_with(mean)
    graph.eliminate_dead_code()


def _is_mean(quotient):
    """Whether a quotient is a sum that is divided by the number of its terms."""
    total, count = quotient.args
    if (
        not _is_only_used_here(total, _aten.sum.dim_IntList)
        or total.kwargs
        or not isinstance(count, (int, float))
    ):
        return False
    terms, axes = total.args[0].meta["val"], total.args[1]
    # The quotient of integers has another dtype than these, and sums in half precision
    # are rounded before the division.
    if quotient.meta["val"].dtype != terms.dtype or terms.dtype in HALF:
        return False
    return count == math.prod(terms.shape[axis] for axis in axes or range(terms.ndim))


def _is_only_used_here(node, target):
    return isinstance(node, fx.Node) and node.target is target and len(node.users) == 1


def freeing_arguments(graph):
    """The same graph as a function of a list of its arguments, which it empties: each
    is freed after its last use."""
    result = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    arguments = result.placeholder("arguments")
    for node in reversed(graph.find_nodes(op="placeholder")):
        copies[node] = result.call_method("pop", (arguments,))
    for node in graph.nodes:
        if node.op != "placeholder":
            copies[node] = result.node_copy(node, copies.__getitem__)
    return result


def draws(node):
    """Whether an operation draws from PyTorch's own generator."""
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def draws_from_seed(node):
    """Whether an operation draws numbers of `keras.random` from a seed."""
    return node.op == "call_function" and str(node.target).startswith(
        "keras_ratesnn.draw"
    )


def changing(graph):
    """The nodes that allocated memory which operations change in place: a set."""
    return {memory_of(argument) for node in graph.nodes for argument in written(node)}


def written(node):
    """The arguments that an operation changes in place."""
    schema = getattr(node.target, "_schema", None)
    if schema is None or not schema.is_mutable:
        return []
    names = [argument.name for argument in schema.arguments]
    values = dict(zip(names, node.args, strict=False)) | node.kwargs
    overwritten = []
    for argument in schema.arguments:
        value, alias = values.get(argument.name), argument.alias_info
        if alias is not None and alias.is_write and isinstance(value, fx.Node):
            overwritten.append(value)
    return overwritten


def memory_of(node):
    """The node that allocated the memory of a node's result, which may be a view."""
    while (
        node.target in _ALIASES
        or getattr(node.target, "is_view", False)
        or written(node)
    ):
        node = node.args[0]
    return node
