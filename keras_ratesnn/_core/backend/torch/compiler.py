"""PyTorch's compiler, with a fallback: a graph that cannot be compiled runs as it is."""

import contextlib
import operator
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch._guards import TracingContext
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

COMPILER: str | Callable[..., Any] = "inductor"
"""The backend of `torch.compile`: its name, or a function."""

SAFE_IN_CPP = {"aten", "prims", "keras_ratesnn"}
"""The namespaces of operations that C++ may call."""

MOST_LAYOUTS = 16
"""For how many layouts of tensors a graph is compiled, each of which takes seconds."""

_warned_of: set[str] = set()

_compiling = threading.RLock()
"""Settings of PyTorch's compiler are those of the whole process."""


class Compiled:
    """A graph that is compiled at its first call.

    Args:
        graph: An `fx.GraphModule`.
        compile_graph: Function `(graph, tensors) -> compiled function`, given the tensors of the first call.
        name: String, what is compiled, for the warning if that fails.
    """

    def __init__(self, graph, compile_graph, name):
        self.graph = graph
        self._compile_graph = compile_graph
        self._name = name
        self._run: Any = None

    @property
    def is_compiled(self):
        return self._run not in (None, self.graph.forward)

    def __call__(self, *tensors):
        try:
            if self._run is None:
                self._run = self._compile_graph(self.graph, tensors)
            return self._run(*tensors)
        except torch.OutOfMemoryError:
            raise
        # Compilers raise anything, and some compile only when they are called.
        except Exception as error:
            if self._run == self.graph.forward:
                raise
            self._run = self.graph.forward
            _warn_of_no_compilation(self._name, error)
            return self._run(*tensors)


class CompiledByLayout:
    """A graph that is compiled for each layout of tensors, their sizes and strides, at the first call with it.

    With sizes that it knows, PyTorch's compiler loads several numbers at once on GPUs and computes no index by a division. A
    graph for all shapes serves the layouts that come after too many others.

    Args:
        graph: See `Compiled`.
        name: See `Compiled`.
    """

    def __init__(self, graph, name):
        self.graph = graph
        self._name = name
        self._compiled: dict[Any, Compiled] = {}
        self._others = Compiled(graph, for_all_shapes, name)

    def __call__(self, *tensors):
        layout = tuple((tensor.shape, tensor.stride()) for tensor in tensors)
        found = self._compiled.get(layout)
        if found is None:
            if len(self._compiled) >= MOST_LAYOUTS:
                return self._others(*tensors)
            found = self._compiled[layout] = Compiled(self.graph, for_these_shapes, self._name)
        return found(*tensors)


def for_all_shapes(graph, tensors):
    """Compiles a graph for tensors of any shapes."""
    return torch.compile(graph, backend=COMPILER, dynamic=True)


def for_these_shapes(graph, tensors):
    """Compiles a graph for tensors like these."""
    # Not at the top: this takes a second, and only compilation needs it.
    from torch._inductor import config

    compiler = torch._dynamo.lookup_backend(COMPILER) if isinstance(COMPILER, str) else COMPILER
    # PyTorch keeps compiled graphs on disk, for later processes, only if it compiles in such a context.
    context = TracingContext(FakeTensorMode(shape_env=ShapeEnv(assume_static_by_default=True)))
    options = {
        "cpp_wrapper": _may_run_in_cpp(graph, tensors),
        # Triton's compiler fails where a reduction in one block is fused with the time loop of neurons before it.
        "triton.persistent_reductions": False,
    }
    with _compiling, torch._guards.tracing(context), config.patch(options), _computing_steps_once():
        return compiler(graph, list(tensors))


@contextlib.contextmanager
def _computing_steps_once():
    """A context in which a stack of time steps is compiled like one of many tensors: each is written to its place.

    On GPUs PyTorch's compiler makes one expression of a stack of up to 8 tensors, which computes each of them anew, with all
    steps before it: the time loop of a neuron would take work quadratic in T. On CPUs it writes each to its place anyway.
    """
    from torch._inductor import ir, lowering

    original = lowering.pointwise_cat
    lowering.pointwise_cat = lambda inputs, dim=0: lowering.TensorBox(ir.ConcatKernel.create(inputs, dim))
    try:
        yield
    finally:
        lowering.pointwise_cat = original


def _may_run_in_cpp(graph, tensors):
    """Whether C++ instead of Python calls the kernels of a compiled graph, which takes less time.

    On GPUs and other systems this is untested, and for some custom operations it ends in a crash: those that return a list of
    one tensor (docs/upstream.md).
    """
    if sys.platform != "linux" or any(tensor.device.type != "cpu" for tensor in tensors):
        return False
    called = {node.target for node in graph.graph.nodes if node.op == "call_function"}
    return {getattr(target, "namespace", None) for target in called - {operator.getitem}} <= SAFE_IN_CPP


def _warn_of_no_compilation(what, error):
    """Warns, once."""
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
