"""Graphs of PyTorch operations: a function is run once, its operations and those of its derivative are recorded, and replayed.

A replay runs no Python code of the function. What nobody reads is left out, as a compiler would do.
"""

import contextvars
import logging
import operator
import warnings
from typing import Any

import torch
from torch import fx
from torch.fx.experimental.proxy_tensor import get_proxy_mode, make_fx

from keras_ratesnn._core.backend.torch_random import seeded_draws

COMPILER = "inductor"
"""The backend of `torch.compile` that compiles graphs."""

_aten = torch.ops.aten
_ALIASES = (_aten.detach.default, _aten.alias.default)
"""Operations that return their argument."""

_recording: contextvars.ContextVar["_Recording | None"] = contextvars.ContextVar("keras_ratesnn_recording", default=None)


_warned_of: set[str] = set()


def is_recording():
    """Whether the operations that run are recorded for a graph."""
    return _recording.get() is not None


def repeats_noise():
    """Called during a recording when the same random numbers are to be drawn again. A replay would draw others."""
    _recording.get().repeats_noise = True  # type: ignore[union-attr]


class _Recording:
    """What is noticed during a recording.

    Attributes:
        forward_names: Set of the names of the nodes on the way to the outputs.
        repeats_noise: Boolean, whether the same random numbers are to be drawn several times.
    """

    def __init__(self):
        self.forward_names = set()
        self.repeats_noise = False


class CallGraph:
    """A function of tensors as a graph, with its derivative as a second graph.

    Args:
        function: Takes a list of tensors and returns a list of tensors. It may use no other tensors and have no side effects.
        tensors: List of tensors. The graph is for tensors of the same shapes, dtypes, devices and memory layouts, with the same
            `requires_grad`.
        outputs: The result of `function(tensors)`.
        compiled: Boolean, whether to compile the graphs.
        name: String, what is compiled, for messages.

    Raises:
        ValueError: If the function draws random numbers.
        Exception: Any other, if an operation depends on the values of tensors.
    """

    def __init__(self, function, tensors, outputs, compiled, name):
        self._wanted = [tensor.requires_grad and torch.is_grad_enabled() for tensor in tensors]
        self.differentiable = [output.requires_grad for output in outputs]
        self.upstream_layouts = [output.stride() for output in outputs if output.requires_grad]
        recording = _Recording()
        recorded = self._record(recording, function, tensors, outputs)
        _check(recorded, recording.repeats_noise)
        _compute_constants(recorded)
        graph, forward_nodes = _simplified(recorded.graph, recording.forward_names)
        forward, backward = _split(recorded, graph, forward_nodes, len(tensors), len(outputs))
        if compiled and any(map(_draws, recorded.graph.nodes)):
            logging.getLogger("keras_ratesnn").warning(
                "The calls of %s are not compiled: compiled, they draw other numbers.", name
            )
            compiled = False
        self.forward = _Compiled(forward, f"the forward pass of {name}") if compiled else forward.forward
        self.backward = _Compiled(backward, f"the backward pass of {name}") if compiled else backward.forward

    @staticmethod
    def signature(tensors):
        """What a graph depends on, hashable: the properties of tensors, or `None` if there can be no graph for them."""
        kinds = {tensor.device.type for tensor in tensors}
        if (
            torch.compiler.is_compiling()
            or torch.jit.is_tracing()
            or torch.is_anomaly_enabled()
            or _is_checkpointed()
            # Keras computes shapes on this device.
            or "meta" in kinds
            or any(map(torch.is_autocast_enabled, kinds))
            or any(type(tensor) not in (torch.Tensor, torch.nn.Parameter) for tensor in tensors)
        ):
            return None
        properties = [(t.shape, t.stride(), t.dtype, t.device, t.requires_grad) for t in tensors]
        return torch.is_grad_enabled(), *properties

    @staticmethod
    def share_memory(results, tensors):
        """Whether each result has its memory in common with one of the tensors, a list."""
        memory = {tensor.untyped_storage().data_ptr() for tensor in tensors}
        return [result.untyped_storage().data_ptr() in memory for result in results]

    def __call__(self, tensors):
        if any(self.differentiable):
            return list(_Replayed.apply(self, *tensors))
        with torch.no_grad():
            return list(self.forward(*tensors))

    def gradients(self, saved, upstream):
        """The gradients of all tensors, `None` for those without, given what the forward graph saved."""
        upstream = [_in_layout(gradient, layout) for gradient, layout in zip(upstream, self.upstream_layouts, strict=True)]
        with torch.no_grad():
            found = iter(self.backward(*saved, *upstream))
        return [next(found) if has_gradient else None for has_gradient in self._has_gradient]

    def _record(self, recording, function, tensors, outputs):
        """A graph module from tensors and gradients of outputs to outputs and gradients of tensors."""

        def with_derivative(tensors, upstream):
            leaves = [tensor.requires_grad_(wanted) for tensor, wanted in zip(tensors, self._wanted, strict=True)]
            with torch.set_grad_enabled(any(self._wanted)):
                values = function(leaves)
            recording.forward_names.update(node.name for node in get_proxy_mode().tracer.graph.nodes)
            differentiable = [value for value in values if value.requires_grad]
            wanted = [leaf for leaf in leaves if leaf.requires_grad]
            found = torch.autograd.grad(differentiable, wanted, upstream, allow_unused=True) if differentiable else ()
            remaining = iter(found)
            gradients = [next(remaining) if leaf.requires_grad and differentiable else None for leaf in leaves]
            self._has_gradient = [gradient is not None for gradient in gradients]
            return [*values, *(gradient for gradient in gradients if gradient is not None)]

        tensors = [tensor.detach() for tensor in tensors]
        upstream = [torch.empty_like(output) for output in outputs if output.requires_grad]
        token = _recording.set(recording)
        try:
            # Modes that record belong to this thread.
            with (
                torch.autograd.set_multithreading_enabled(False),
                # Compiled functions that other threads call meanwhile run uncompiled, instead of raising an error.
                torch._dynamo.config.patch(error_on_nested_fx_trace=False),
                seeded_draws(),
            ):
                return make_fx(with_derivative, tracing_mode="fake", _allow_non_fake_inputs=True)(tensors, upstream)
        finally:
            _recording.reset(token)


def _is_checkpointed():
    """Whether this runs inside `torch.utils.checkpoint`, which needs each call to store the same tensors as the first one."""
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)
    return hooks is not None and hooks[0].__module__ == "torch.utils.checkpoint"


class _Replayed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, graph, *tensors):
        results = graph.forward(*tensors)
        outputs = results[: len(graph.differentiable)]
        ctx.graph = graph
        ctx.save_for_backward(*results[len(outputs) :])
        ctx.mark_non_differentiable(
            *(output for output, differentiable in zip(outputs, graph.differentiable, strict=True) if not differentiable)
        )
        return tuple(outputs)

    @staticmethod
    def backward(ctx, *upstream):
        if torch.is_grad_enabled():
            raise RuntimeError(
                "The calls of a model that are recorded as a graph have first derivatives only. Received: a backward pass with "
                "create_graph=True. Use model.compile(..., jit_compile=False)."
            )
        graph = ctx.graph
        of_differentiable = [
            gradient for gradient, differentiable in zip(upstream, graph.differentiable, strict=True) if differentiable
        ]
        return None, *graph.gradients(ctx.saved_tensors, of_differentiable)


class _Compiled:
    """A graph that is compiled at its first call, for tensors like those of that call."""

    def __init__(self, graph_module, name):
        self._graph_module = graph_module
        self._name = name
        self._run = None

    @property
    def is_compiled(self):
        return self._run not in (None, self._graph_module.forward)

    def __call__(self, *tensors):
        return self._compile(tensors) if self._run is None else self._run(*tensors)

    def _compile(self, tensors):
        """Compiles the graph; returns its results for these tensors."""
        nodes = len(self._graph_module.graph.nodes)
        logging.getLogger("keras_ratesnn").warning("Compiling %s, %d operations; this may take a minute.", self._name, nodes)
        try:
            compiler = torch._dynamo.lookup_backend(COMPILER) if isinstance(COMPILER, str) else COMPILER
            run = compiler(self._graph_module, list(tensors))
            results = run(*tensors)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            warn_of_no_compilation(self._name, error)
            self._run = self._graph_module.forward
            return self._run(*tensors)
        self._run = run
        return results


def warn_of_no_compilation(what, error):
    """Warns, once, that PyTorch could not compile something, because of `error`."""
    if what in _warned_of:
        return
    _warned_of.add(what)
    reason = " ".join(str(error).partition("Set TORCHDYNAMO_VERBOSE")[0].split())[:300]
    warnings.warn(
        f"PyTorch could not compile {what}: it runs without compilation, which is slower but gives the same results. "
        "Compilation needs a C++ compiler on CPUs, and Triton on GPUs. To turn it and this warning off: "
        f"model.compile(..., jit_compile=False). The reason: {type(error).__name__}: {reason}",
        stacklevel=2,
    )


def _simplified(graph, forward_names):
    """The same graph with each operation once, without those that return their argument.

    Args:
        graph: An `fx.Graph`.
        forward_names: Set of the names of the nodes on the way to the outputs.

    Returns:
        `(graph, forward_nodes)`: the latter is the set of these nodes in the new graph.
    """
    changing = {_memory_of(argument) for node in graph.nodes for argument in _written(node)}
    places: dict[fx.Node, fx.Node] = {}
    result, forward_nodes = fx.Graph(), set()
    # What the backward pass computes again, to save memory, is not taken from the forward pass.
    known: dict[bool, dict[Any, fx.Node]] = {True: {}, False: {}}
    for node in graph.nodes:
        part_of_tuple = node.target is operator.getitem and places[node.args[0]] in forward_nodes
        is_forward = part_of_tuple or node.name in forward_names
        # A tensor that is changed in place is not the same as another that was computed in the same way.
        may_be_known = changing.isdisjoint(map(_memory_of, (node, *node.all_input_nodes)))
        place = _known(node, places, known[is_forward] if may_be_known else {})
        if place is None:
            place = result.node_copy(node, places.__getitem__)
            if node.op == "call_function" and may_be_known:
                known[is_forward][_key(place.target, place.args, place.kwargs)] = place
        places[node] = place
        if is_forward:
            forward_nodes.add(place)
    return result, forward_nodes


def _known(node, places, known):
    """The node that already has the result of this one, or `None`."""
    if node.op != "call_function" or _draws(node):
        return None
    if node.target in _ALIASES:
        return places[node.args[0]]
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), places.__getitem__)
    if node.target is _aten.permute.default and args[0].target is node.target:
        (origin, first), second = args[0].args, args[1]
        if [first[axis] % len(first) for axis in second] == list(range(len(first))):
            return origin
    return known.get(_key(node.target, args, kwargs))


def _key(target, args, kwargs):
    return target, _hashable(args), _hashable(kwargs)


def _written(node):
    """The arguments that an operation changes in place."""
    schema = getattr(node.target, "_schema", None)
    if schema is None or not schema.is_mutable:
        return []
    given = {argument.name: value for argument, value in zip(schema.arguments, node.args, strict=False)} | node.kwargs
    written = [
        argument.name for argument in schema.arguments if argument.alias_info is not None and argument.alias_info.is_write
    ]
    return [given[name] for name in written if isinstance(given.get(name), fx.Node)]


def _memory_of(node):
    """The node that allocated the memory of a node's result, which may be a view."""
    while node.target in _ALIASES or getattr(node.target, "is_view", False) or _written(node):
        node = node.args[0]
    return node


def _hashable(arguments):
    if isinstance(arguments, (tuple, list)):
        return tuple(map(_hashable, arguments))
    if isinstance(arguments, dict):
        return tuple((name, _hashable(value)) for name, value in arguments.items())
    # 1, 1.0 and True are equal, and 0.0 and -0.0.
    return type(arguments), repr(arguments) if isinstance(arguments, float) else arguments


def _check(graph_module, repeats_noise):
    """Raises ValueError if a replay would not do what the recorded function does."""
    for node in graph_module.graph.nodes:
        if repeats_noise and _draws(node):
            raise ValueError(f"{node.target} draws the same random numbers several times, without a keras.random.SeedGenerator")
        if any(_memory_of(argument).op in ("placeholder", "get_attr") for argument in _written(node)):
            raise ValueError(f"{node.target} changes an input, a variable or a constant in place")
        if node.target is _aten._local_scalar_dense.default:
            raise ValueError("a number that Python computes with depends on the values of tensors")
        if node.op == "get_attr":
            # Settings may be tensors, but PyTorch's own modules have weights that Keras does not know.
            constant = getattr(graph_module, node.target)
            if isinstance(constant, torch.nn.Parameter) or constant.requires_grad:
                raise ValueError("a layer uses a parameter that is not a Keras variable")


def _compute_constants(graph_module):
    """Computes once what depends only on constants: on a GPU each replay would copy them from the host."""
    graph = graph_module.graph
    changing = {_memory_of(argument) for node in graph.nodes for argument in _written(node)}
    for node in list(graph.nodes):
        if node.op != "call_function" or not node.all_input_nodes or _draws(node) or _memory_of(node) in changing:
            continue
        if any(argument.op != "get_attr" or argument in changing for argument in node.all_input_nodes):
            continue
        constants = {argument: getattr(graph_module, argument.target) for argument in node.all_input_nodes}
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), constants.__getitem__)
        with torch.no_grad():
            value = node.target(*args, **kwargs)
        if torch.is_tensor(value):
            name = f"_computed_{node.name}"
            graph_module.register_buffer(name, value)
            with graph.inserting_before(node):
                node.replace_all_uses_with(graph.get_attr(name))
            graph.erase_node(node)


def _draws(node):
    """Whether an operation draws from PyTorch's own generator."""
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def _split(root, graph, forward_nodes, tensors, outputs):
    """The forward and the backward part of a graph.

    Args:
        root: Graph module with the constants of the graph.
        graph: From tensors and gradients of outputs to outputs and gradients of tensors.
        forward_nodes: Set of the nodes on the way to the outputs.
        tensors: Integer, the number of tensors.
        outputs: Integer, the number of outputs.

    Returns:
        `(forward, backward)`, graph modules: from tensors to outputs and saved values, and from saved values and gradients of
        outputs to gradients of tensors.
    """
    upstream = [node for node in graph.nodes if node.op == "placeholder"][tensors:]
    results = list(graph.output_node().args[0])
    behind = [node for node in graph.nodes if node.op == "call_function" and node not in forward_nodes]
    needed = [*(node for user in behind for node in user.all_input_nodes), *results[outputs:]]
    computed = {*behind, *upstream}
    saved = list(dict.fromkeys(node for node in needed if node not in computed and node.op != "get_attr"))

    places: dict[fx.Node, fx.Node] = {}
    forward = fx.Graph()
    for node in graph.nodes:
        if node not in computed and node.op != "output":
            places[node] = forward.node_copy(node, places.__getitem__)
    forward.output(tuple(places[node] for node in (*results[:outputs], *saved)))

    backward = fx.Graph()
    places = {node: backward.placeholder(node.name) for node in (*saved, *upstream)}
    for node in (*graph.find_nodes(op="get_attr"), *behind):
        places[node] = backward.node_copy(node, places.__getitem__)
    backward.output(tuple(places[node] for node in results[outputs:]))
    for part in (forward, backward):
        part.eliminate_dead_code()
    return fx.GraphModule(root, forward), fx.GraphModule(root, backward)


def _in_layout(tensor, strides):
    """The tensor in a memory layout with these strides."""
    if tensor.stride() == strides:
        return tensor
    return torch.empty_strided(tensor.shape, strides, dtype=tensor.dtype, device=tensor.device).copy_(tensor)
