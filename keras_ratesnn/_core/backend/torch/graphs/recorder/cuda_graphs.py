"""CUDA graphs: a graph's kernels are launched together, instead of one by one from
Python.

The kernels of a CUDA graph read and write memory at fixed addresses, which the next
replay overwrites. Nobody sees that:

* Parameters are read where they are. Where one has moved, the kernels are captured
  again. Other arguments are copied.
* Outputs and gradients are copied to tensors of their own.
* What the forward pass saves for the backward pass stays where it is. Until autograd
  has released it, the graph is in use, and another call runs without CUDA graphs.
"""

import os
import threading
import weakref
from typing import Any

import torch

from keras_ratesnn._core.backend.torch.graphs.recorder import choices, graph_passes
from keras_ratesnn._core.backend.torch.replicas import replicas

CALLS_IN_A_ROW = 8
"""Calls of the same kind in a row before their kernels are captured: if shapes change
all the time, memory is not worth it."""

KIND_OF_DEVICE = "cuda"


def why_not(nodes, tensors):
    """Why there can be no CUDA graph of operations, nodes of a graph, on tensors: a
    string, or `None` if there can be one."""
    if os.environ.get("KERAS_RATESNN_CUDA_GRAPHS") == "0":
        return "KERAS_RATESNN_CUDA_GRAPHS=0"
    devices = {tensor.device for tensor in tensors}
    if len(devices) > 1 or next(iter(devices)).type != KIND_OF_DEVICE:
        # Kernels would contain the values of numbers on the host.
        return "not all tensors are on one GPU"
    if replicas.count() > 1:
        return "replicas exchange statistics"
    if any(
        graph_passes.draws(node) or graph_passes.draws_from_seed(node) for node in nodes
    ):
        return "random numbers are drawn"
    if any(map(choices.is_choice, nodes)):
        return "the host chooses what runs"
    return None


class GraphMemory:
    """The memory for the CUDA graphs of one `Replays` at a time, the latest that was
    called several times in a row."""

    def __init__(self):
        self._latest = self._holder = _nobody
        self._calls = 0

    def is_due(self, replays):
        """Whether this call of `replays` is one of many in a row."""
        if self._latest() is not replays:
            self._latest = weakref.ref(replays)
            self._calls = 0
        self._calls += 1
        return self._calls > CALLS_IN_A_ROW

    def take(self, replays):
        """Gives the memory to `replays`, after its present holder has given it
        back."""
        holder = self._holder()
        if holder is not None:
            holder.give_back()
        self._holder = weakref.ref(replays)


def _nobody():
    return None


class Replays:
    """The CUDA graphs of the forward and backward part of a graph.

    Args:
        forward: Function from a list of tensors to a sequence of tensors: outputs, and
            saved values.
        backward: Function from a list of saved values and gradients of outputs, which
            it may empty, to a sequence of gradients. `None` if there is no derivative.
        outputs: List of the outputs, of which those with `requires_grad` get gradients.
        memory: `GraphMemory`.
        reason: Why there can be no CUDA graphs, a string, or `None`.

    Attributes:
        reason: Likewise; it may become known only when kernels are captured.
    """

    def __init__(self, forward, backward, outputs, memory, reason):
        self._forward = forward
        self._backward = backward
        self._memory = memory
        self._outputs = len(outputs)
        self._upstream = [
            (output.shape, output.stride(), output.dtype)
            for output in outputs
            if output.requires_grad
        ]
        self._lock = threading.Lock()
        self._saved: Any = None
        self._parts: Any = None
        self.reason = reason

    def give_back(self):
        """Frees the memory; what autograd still holds of it stays."""
        self._parts = None

    def forward(self, arguments):
        """Outputs and saved values, a list, or `None` if the call must run without CUDA
        graphs."""
        if self.reason is not None or not self._lock.acquire(blocking=False):
            return None
        try:
            if not self._memory.is_due(self) or self._is_in_use():
                return None
            parts = self._parts = self._prepared(self._parts, arguments)
            if parts is None:
                return None
            results = parts[0].replay(arguments)
            saved = results[self._outputs :]
            if saved:
                # An object for this call alone: as long as autograd holds it, the call
                # may need all saved values.
                saved[0] = saved[0].detach()
                self._saved = torch._C._WeakTensorRef(saved[0])
            return [*_owned(results[: self._outputs]), *saved]
        finally:
            self._lock.release()

    def backward(self, saved, upstream):
        """The gradients, a list, or `None` if the call must run without CUDA graphs.

        Args:
            saved: List of saved values.
            upstream: List of the gradients of outputs, in any memory layout.
        """
        if self._parts is None or not self._lock.acquire(blocking=False):
            return None
        try:
            parts = self._parts
            arguments = [*saved, *upstream]
            # The forward pass may have run without CUDA graphs, or with others.
            if parts is None or not parts[1].is_for(arguments):
                return None
            return _owned(parts[1].replay(arguments))
        finally:
            self._lock.release()

    def _is_in_use(self):
        return self._saved is not None and not self._saved.expired()

    def _prepared(self, parts, arguments):
        """CUDA graphs for these arguments: the present ones, or others, or `None` if
        that is not possible."""
        if parts is not None and parts[0].is_for(arguments):
            return parts
        self._memory.take(self)
        try:
            with torch.inference_mode(False), torch.no_grad():
                return self._captured(arguments)
        # Anything may be raised where an operation waits for the device, or memory does
        # not suffice.
        except Exception as error:
            self.reason = f"{type(error).__name__}: {error}"
            return None

    def _captured(self, arguments):
        stay = [isinstance(argument, torch.nn.Parameter) for argument in arguments]
        forward = _CapturedPart(self._forward, arguments, stay)
        if self._backward is None:
            return forward, None
        device = arguments[0].device
        upstream = [
            torch.empty_strided(shape, strides, dtype=dtype, device=device).zero_()
            for shape, strides, dtype in self._upstream
        ]
        saved = forward.results[self._outputs :]
        stay = [True] * len(saved) + [False] * len(upstream)
        return forward, _CapturedPart(
            self._backward, [*saved, *upstream], stay, forward.pool
        )


class _CapturedPart:
    """A CUDA graph with the memory of its arguments.

    Args:
        function: From a list of tensors, which it may empty, to a sequence of tensors.
        arguments: List of tensors.
        stay: List of booleans: which arguments are always in the same memory. The
            others are copied.
        pool: The memory pool of another CUDA graph, shared with it. Defaults to `None`.
    """

    def __init__(self, function, arguments, stay, pool=None):
        self._inputs = [
            argument if stays else _empty(argument)
            for argument, stays in zip(arguments, stay, strict=True)
        ]
        self._copied = [index for index, stays in enumerate(stay) if not stays]
        self._stay = [index for index, stays in enumerate(stay) if stays]
        self._addresses = [self._inputs[index].data_ptr() for index in self._stay]
        self._copy(arguments)
        self._surroundings = _surroundings(arguments)
        self._graph = CudaGraph(lambda: function(list(self._inputs)), pool)
        self.pool = self._graph.pool
        self.results = self._graph.results

    def is_for(self, arguments):
        """Whether arguments that stay are where they were, and kernels would be chosen
        and launched as before."""
        addresses = [arguments[index].data_ptr() for index in self._stay]
        return (
            addresses == self._addresses
            and _surroundings(arguments) == self._surroundings
        )

    def replay(self, arguments):
        """The results for other arguments, a list; the next replay overwrites them."""
        self._copy(arguments)
        self._graph.replay()
        return list(self.results)

    def _copy(self, arguments):
        if self._copied:
            targets = [self._inputs[index] for index in self._copied]
            sources = [arguments[index] for index in self._copied]
            torch._foreach_copy_(targets, sources)


class CudaGraph:
    """A function without arguments, captured as a CUDA graph.

    Args:
        function: Returns a sequence of tensors.
        pool: The memory pool of another CUDA graph, or `None`.

    Attributes:
        results: List of the tensors, whose values a replay overwrites.
        pool: The memory pool.
    """

    def __init__(self, function, pool):
        self._graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            # Libraries need their own memory on a stream, and PyTorch compiles kernels
            # when they are first called.
            function()
        torch.cuda.current_stream().wait_stream(stream)
        # Other threads may use the device meanwhile.
        with torch.cuda.graph(
            self._graph, pool=pool, stream=stream, capture_error_mode="thread_local"
        ):
            self.results = list(function())
        self.pool = self._graph.pool()

    def replay(self):
        """Launches the kernels."""
        self._graph.replay()


def _surroundings(tensors):
    """The settings besides arguments that determine which kernels run, and when."""
    cudnn = torch.backends.cudnn
    stream = (
        torch.cuda.current_stream(tensors[0].device) if tensors[0].is_cuda else None
    )
    return stream, cudnn.enabled, cudnn.allow_tf32, cudnn.deterministic


def _empty(tensor):
    """Memory of the same layout."""
    return torch.empty_strided(
        tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device
    )


def _owned(tensors):
    """Copies of tensors, a list."""
    copies = [torch.empty_like(tensor) for tensor in tensors]
    if copies:
        with torch.no_grad():
            torch._foreach_copy_(copies, tensors)
    return copies
