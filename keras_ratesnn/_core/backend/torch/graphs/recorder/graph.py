"""Graphs of PyTorch operations: a function is run once, its operations and those of its
derivative are recorded, and replayed.

A replay runs no Python code of the function. What nobody reads is left out, as a
compiler would do.
"""

import contextlib
import contextvars
import functools
import itertools
import logging
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from keras_ratesnn._core.backend.torch.derivative import first_derivative_only
from keras_ratesnn._core.backend.torch.graphs.recorder import (
    choices,
    compiler,
    cpu_memory,
    cuda_graphs,
    graph_passes,
    padding,
    random,
    small_operations,
)
from keras_ratesnn._core.contexts import setting

_log = logging.getLogger("keras_ratesnn")
_recording: contextvars.ContextVar["_Recording | None"] = contextvars.ContextVar(
    "keras_ratesnn_recording", default=None
)


def is_recording():
    """Whether the operations that run are recorded for a graph."""
    return _recording.get() is not None


def is_recording_for_compiler():
    """Whether the operations that run are recorded for a graph that will be
    compiled."""
    recording = _recording.get()
    return recording is not None and recording.will_be_compiled


@contextlib.contextmanager
def noticing_repeated_draws():
    """A context, during a recording, in which random numbers are drawn again. A replay
    would draw others.

    This does not concern draws from the seed of a layer, which is a variable.
    """
    nodes = get_proxy_mode().tracer.graph.nodes
    before = next(iter(reversed(nodes)), None)
    yield
    for node in itertools.takewhile(lambda node: node is not before, reversed(nodes)):
        if graph_passes.draws(node):
            _recording.get().repeated_draw = str(node.target)  # type: ignore[union-attr]


class _Recording:
    """Observations during a recording.

    Attributes:
        will_be_compiled: Boolean, whether the graph will be compiled.
        forward_names: Set of the names of the nodes on the way to the outputs.
        repeated_draw: The name of an operation that draws the same numbers of PyTorch's
            own generator again, or `None`.
    """

    def __init__(self, will_be_compiled):
        self.will_be_compiled = will_be_compiled
        self.forward_names = set()
        self.repeated_draw: str | None = None


class CallGraph:
    """A function of tensors as a graph, with its derivative as a second graph.

    Args:
        function: Takes a list of tensors and returns a list of tensors. It may have no
            side effects.
        tensors: List of tensors. The graph is for tensors of the same shapes, dtypes,
            devices and memory layouts, with the same `requires_grad`.
        outputs: The result of `function(tensors)`.
        settings: List of other tensors that the function may use, whose values may
            change.
        compiled: Boolean, whether to compile the graphs.
        name: String, what is compiled, for messages.
        memory: That for CUDA graphs, which the graphs of a model share, see
            `new_memory`.

    Raises:
        ValueError: If a replay would not do what the function does.
        Exception: Any other, if an operation depends on the values of tensors.
    """

    def __init__(self, function, tensors, outputs, settings, compiled, name, memory):
        self._wanted = [
            tensor.requires_grad and torch.is_grad_enabled() for tensor in tensors
        ]
        self.differentiable = [output.requires_grad for output in outputs]
        self.upstream_layouts = [
            output.stride() for output in outputs if output.requires_grad
        ]
        recording = _Recording(compiled)
        recorded = self._record(recording, function, tensors, outputs)
        graph_passes.check(recorded, recording.repeated_draw)
        self._settings = graph_passes.tensors_as_inputs(
            recorded, len(tensors), settings
        )
        graph_passes.compute_constants(recorded)
        graph, forward_nodes = graph_passes.simplified(
            recorded.graph, recording.forward_names
        )
        padding.pad_in_convolutions(graph)
        inputs = len(tensors) + len(self._settings)
        forward, backward = graph_passes.split(
            graph, forward_nodes, inputs, len(outputs)
        )
        if compiled and not (
            random.leave_own_draws_alone(forward)
            and random.leave_own_draws_alone(backward)
        ):
            _log.warning(
                "The calls of %s are not compiled: compiled, they draw other numbers.",
                name,
            )
            compiled = False
        for part in (forward, backward):
            graph_passes.use_means(part)
            random.read_seeds_once(part)
        if {tensor.device.type for tensor in tensors} == {"cpu"}:
            cpu_memory.keep()

        def finished(part, what):
            part = torch.fx.GraphModule(recorded, part)
            return _compiled(part, f"{what} of {name}") if compiled else part.forward

        def finished_choice(part):
            # PyTorch's compiler fuses small operations with others.
            part = part if compiled else small_operations.batched(part)
            return finished(part, "a chosen part of the backward pass")

        self._choices = choices.with_graphs_of_their_own(
            backward, finished_choice, compiled
        )
        if not compiled:
            forward = small_operations.batched_at_end(forward)
            backward = small_operations.batched(backward)
            backward = graph_passes.freeing_arguments(backward)
        self.forward = finished(forward, "the forward pass")
        self.backward = finished(backward, "the backward pass")
        self._run_backward = self.backward
        if compiled:
            self._run_backward = functools.partial(_with_arguments, self.backward)
        has_derivative = any(self.differentiable)
        reason = cuda_graphs.why_not(recorded.graph.nodes, [*tensors, *self._settings])
        self.cuda_graphs = cuda_graphs.Replays(
            functools.partial(_with_arguments, self.forward),
            self._run_backward if has_derivative else None,
            outputs,
            memory[has_derivative],
            reason,
        )

    @staticmethod
    def new_memory():
        """Memory for the CUDA graphs of one model: for calls without derivative, and
        for those with it."""
        return cuda_graphs.GraphMemory(), cuda_graphs.GraphMemory()

    @staticmethod
    def share_memory(results, tensors):
        """Whether each result has its memory in common with one of the tensors, a
        list."""
        memory = {tensor.untyped_storage().data_ptr() for tensor in tensors}
        return [result.untyped_storage().data_ptr() in memory for result in results]

    @staticmethod
    def assign(tensors, values):
        """Assigns values to tensors of the same shapes and dtypes, lists."""
        if tensors:
            with torch.no_grad():
                torch._foreach_copy_(tensors, values)

    def __call__(self, tensors):
        arguments = [*tensors, *self._settings]
        if not any(self.differentiable):
            with torch.no_grad():
                return list(map(_constant, self.results(arguments)))
        # Autograd sees only what has a derivative: each tensor takes it time.
        constants: list[torch.Tensor] = []
        wanted = itertools.compress(tensors, self._wanted)
        outputs = iter(_Replayed.apply(self, arguments, constants, *wanted))
        remaining = iter(constants)
        return [
            next(outputs if differentiable else remaining)
            for differentiable in self.differentiable
        ]

    def results(self, arguments):
        """The outputs, and what is saved for the backward pass: a list."""
        results = self.cuda_graphs.forward(arguments)
        return list(self.forward(*arguments)) if results is None else results

    def gradients(self, saved, upstream):
        """The gradients of the tensors that require one, `None` if they have none.

        Args:
            saved: List of what the forward graph saved. It is emptied, so that memory
                is free as soon as it is not needed.
            upstream: List of the gradients of the outputs.
        """
        gradients = self.cuda_graphs.backward(saved, upstream)
        if gradients is None:
            layouts = self.upstream_layouts
            upstream = [
                _in_layout(gradient, layout)
                for gradient, layout in zip(upstream, layouts, strict=True)
            ]
            arguments = [*saved, *upstream]
            saved.clear()
            with torch.no_grad():
                gradients = self._run_backward(arguments)
        remaining = iter(gradients)
        return [
            next(remaining) if has_gradient else None
            for has_gradient in self._has_gradient
        ]

    def _record(self, recording, function, tensors, outputs):
        """A graph module from tensors and gradients of outputs to outputs and gradients
        of tensors."""

        def with_derivative(tensors, upstream):
            leaves = [
                tensor.requires_grad_(wanted)
                for tensor, wanted in zip(tensors, self._wanted, strict=True)
            ]
            with torch.set_grad_enabled(any(self._wanted)):
                values = function(leaves)
            recording.forward_names.update(
                node.name for node in get_proxy_mode().tracer.graph.nodes
            )
            differentiable = [value for value in values if value.requires_grad]
            wanted = [leaf for leaf in leaves if leaf.requires_grad]
            gradients: Any = ()
            if differentiable:
                gradients = torch.autograd.grad(
                    differentiable, wanted, upstream, allow_unused=True
                )
            self._has_gradient = [gradient is not None for gradient in gradients]
            results = list(values)
            for gradient, leaf in zip(gradients, wanted, strict=False):
                if gradient is None:
                    continue
                # In another memory layout than that of its weight, PyTorch would copy
                # a gradient later.
                if leaf.is_contiguous():
                    gradient = gradient.contiguous()
                results.append(gradient)
            return results

        tensors = [tensor.detach() for tensor in tensors]
        upstream = [
            torch.empty_like(output) for output in outputs if output.requires_grad
        ]
        # Modes that record belong to this thread.
        with (
            setting(_recording, recording),
            compiler.lock(),
            torch.autograd.set_multithreading_enabled(False),
            _NoNumbers(),
            # Compiled functions that other threads call meanwhile run uncompiled,
            # instead of raising an error.
            torch._dynamo.config.patch(error_on_nested_fx_trace=False),
            random.seeded_draws(),
        ):
            return graph_passes.traced(with_derivative, tensors, upstream)


class _NoNumbers(torch.overrides.TorchFunctionMode):
    """A context in which Python cannot read numbers from tensors that existed before: a
    replay would not see them change."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in _READS and not isinstance(args[0], FakeTensor):
            raise ValueError(
                "a number that Python computes with depends on the values of tensors"
            )
        return function(*args, **(kwargs or {}))


_NUMBERS = (
    "item",
    "tolist",
    "__bool__",
    "__int__",
    "__float__",
    "__complex__",
    "__index__",
)
_ARRAYS = ("numpy", "__array__", "__dlpack__")
_READS = {
    *(getattr(torch.Tensor, name) for name in (*_NUMBERS, *_ARRAYS)),
    torch.equal,
    torch.allclose,
}


class _Replayed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, graph, tensors, constants, *wanted):
        results = graph.results(tensors)
        count = len(graph.differentiable)
        ctx.graph = graph
        ctx.save_for_backward(*results[count:])
        pairs = list(zip(results[:count], graph.differentiable, strict=True))
        constants += [
            _constant(output) for output, differentiable in pairs if not differentiable
        ]
        return tuple(output for output, differentiable in pairs if differentiable)

    @first_derivative_only
    def backward(ctx, *upstream):
        saved = list(ctx.saved_tensors)
        # Autograd keeps them where its graph is retained.
        ctx.maybe_clear_saved_tensors()
        return None, None, None, *ctx.graph.gradients(saved, upstream)


def _with_arguments(function, arguments):
    return function(*arguments)


def _constant(result):
    """The result of a graph, without gradient: it may be a weight itself."""
    return result.detach() if result.requires_grad else result


def _compiled(graph, name):
    """A graph that is compiled at its first call, with a message, for tensors like
    those of that call."""

    def compile_graph(graph, tensors):
        nodes = len(graph.graph.nodes)
        _log.warning(
            "Compiling %s, %d operations; this may take a minute.", name, nodes
        )
        return compiler.for_these_shapes(graph, tensors)

    return compiler.Compiled(graph, compile_graph, name)


def _in_layout(tensor, strides):
    """The tensor in a memory layout with these strides."""
    if tensor.stride() == strides:
        return tensor
    return torch.empty_strided(
        tensor.shape, strides, dtype=tensor.dtype, device=tensor.device
    ).copy_(tensor)
