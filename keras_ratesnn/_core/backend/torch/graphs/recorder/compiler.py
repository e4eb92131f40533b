"""PyTorch's compiler, with a fallback: a graph that cannot be compiled runs as it
is."""

import functools
import itertools
import operator
import sys
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch._guards import TracingContext
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from keras_ratesnn._core.contexts import replaced

COMPILER: str | Callable[..., Any] = "inductor"
"""The backend of `torch.compile`: its name, or a function."""

SAFE_IN_CPP = {"aten", "prims", "keras_ratesnn"}
"""The namespaces of operations that C++ may call."""

MOST_LAYOUTS = 16
"""For how many layouts of tensors a graph is compiled, each of which takes seconds."""

_warned_of: set[str] = set()


def several(tensors, arguments=()):
    """The results of an operation, a list, and after a single one an empty tensor.

    In PyTorch 2.13 a graph that C++ runs crashes where an operation returns a list of
    one tensor (docs/upstream.md). Results that are among `arguments` are cloned.
    """
    taken = set(map(id, arguments))
    tensors = [x.clone() if id(x) in taken else x for x in tensors]
    return tensors if len(tensors) > 1 else [*tensors, tensors[0].new_empty(0)]


def lock():
    """A lock for what traces or compiles: PyTorch's tracer, its symbols and its
    compiler's settings are the whole process'.

    It is that of `torch.compile`, whose functions compile again at any later call.
    """
    # Not at the top: this takes a second, and only compilation needs it.
    from torch._dynamo.convert_frame import compile_lock

    return compile_lock


class Compiled:
    """A graph that is compiled at its first call.

    Args:
        graph: An `fx.GraphModule`.
        compile_graph: Function `(graph, tensors) -> compiled function`, given the
            tensors of the first call.
        name: String, what is compiled, for the warning if that fails.
    """

    def __init__(self, graph, compile_graph, name):
        self.graph = graph
        self._compile_graph = compile_graph
        self._name = name
        self._run: Any = None
        self._has_failed = False

    @property
    def is_compiled(self):
        return self._run is not None and not self._has_failed

    def __call__(self, *tensors):
        try:
            if self._run is None:
                with lock():
                    if self._run is None:
                        self._run = self._compile_graph(self.graph, tensors)
            return self._run(*tensors)
        except torch.OutOfMemoryError:
            raise
        # Compilers raise anything, and some compile only when they are called.
        except Exception as error:
            if self._has_failed:
                raise
            self._run, self._has_failed = self.graph.forward, True
            _warn_of_no_compilation(self._name, error)
            return self._run(*tensors)


class CompiledByLayout:
    """A graph that is compiled for each layout of tensors, at the first call with it.

    On GPUs the layout is their sizes and strides. With sizes that it knows, PyTorch's
    compiler loads several numbers at once and computes no index by a division. On CPUs
    it is the order of their axes in memory: compilation takes longer there, and gains
    nothing from sizes that are known. A graph for all shapes serves the layouts that
    come after too many others, and tensors with gaps, on CPUs.

    Args:
        graph: See `Compiled`.
        name: See `Compiled`.
        on_gpu: Boolean, whether the tensors are on a GPU.
    """

    def __init__(self, graph, name, on_gpu):
        self.graph = graph
        self._name = name
        self._layout = _sizes if on_gpu else _order_of_axes
        self._compile_graph = for_these_shapes if on_gpu else for_this_order_of_axes
        self._compiled: dict[Any, Compiled] = {}
        self._any_layout = Compiled(graph, for_all_shapes, name)

    @property
    def is_compiled(self):
        return any(
            compiled.is_compiled
            for compiled in (*self._compiled.values(), self._any_layout)
        )

    def __call__(self, *tensors):
        layout = tuple(
            self._layout(tensor.shape, tensor.stride()) for tensor in tensors
        )
        compiled = self._compiled.get(layout)
        if compiled is None:
            if len(self._compiled) >= MOST_LAYOUTS or None in layout:
                return self._any_layout(*tensors)
            compiled = Compiled(self.graph, self._compile_graph, self._name)
            self._compiled[layout] = compiled
        return compiled(*tensors)


def _sizes(shape, strides):
    return shape, strides


@functools.lru_cache(1024)
def _order_of_axes(shape, strides):
    """The axes of several elements, the outermost in memory first; `None` if there are
    gaps, or no elements."""
    order = tuple(
        sorted(
            (axis for axis, size in enumerate(shape) if size != 1),
            key=lambda axis: -strides[axis],
        )
    )
    elements = 1
    for axis in reversed(order):
        if strides[axis] != elements or not shape[axis]:
            return None
        elements *= shape[axis]
    return order


def for_all_shapes(graph, tensors):
    """Compiles a graph for tensors of any shapes."""
    return torch.compile(graph, backend=COMPILER, dynamic=True)


def for_this_order_of_axes(graph, tensors):
    """Compiles a graph of element-wise operations for tensors of any sizes with the
    same order of axes in memory.

    Unlike `torch.compile`, this checks only the sizes at a call, since more would take
    longer than the loops of a small layer, and does not give up after some number of
    kinds of tensors.
    """
    import sympy
    from torch._dynamo.source import ConstantSource
    from torch.fx.experimental.symbolic_shapes import (
        DimDynamic,
        StatelessSymbolicContext,
    )

    sizes = ShapeEnv()
    mode = FakeTensorMode(shape_env=sizes)
    examples = [
        mode.from_tensor(
            tensor,
            symbolic_context=StatelessSymbolicContext(
                dynamic_sizes=[DimDynamic.DYNAMIC] * tensor.ndim
            ),
            source=ConstantSource(f"tensor_{index}"),
        )
        for index, tensor in enumerate(tensors)
    ]
    symbols = [sympy.sympify(size) for example in examples for size in example.shape]
    # In C++ PyTorch's compiler takes the sizes of the examples for those of all calls.
    run = _by_compiler(graph, examples, mode, {"cpp_wrapper": False})
    needs = [guard.expr for guard in sizes.guards]
    run_any = for_all_shapes(graph, tensors)

    @functools.lru_cache(1024)
    def fits(*shapes):
        """Whether sizes are what the operations need, such as one size for the
        channels, and any that were specialised."""
        integers = map(sympy.Integer, itertools.chain(*shapes))
        numbers = dict(zip(symbols, integers, strict=True))
        with lock():
            return all(need.xreplace(numbers) == sympy.true for need in needs)

    def run_fitting(*tensors):
        shapes = [tensor.shape for tensor in tensors]
        return run(*tensors) if fits(*shapes) else run_any(*tensors)

    return run_fitting


def for_these_shapes(graph, tensors):
    """Compiles a graph for tensors like these."""
    mode = FakeTensorMode(shape_env=ShapeEnv(assume_static_by_default=True))
    options = {
        "cpp_wrapper": _may_run_in_cpp(graph, tensors),
        # Triton's compiler fails where a reduction in one block is fused with the time
        # loop of neurons before it.
        "triton.persistent_reductions": False,
    }
    return _by_compiler(graph, list(tensors), mode, options)


def _by_compiler(graph, examples, mode, options):
    # Not at the top: this takes a second, and only compilation needs it.
    from torch._inductor import config

    compiler = (
        torch._dynamo.lookup_backend(COMPILER)
        if isinstance(COMPILER, str)
        else COMPILER
    )
    # PyTorch keeps compiled graphs on disk, for later processes, only if it compiles in
    # such a context.
    context = TracingContext(mode)
    with torch._guards.tracing(context), config.patch(options), _computing_steps_once():
        return compiler(graph, examples)


def _computing_steps_once():
    """A context in which a stack of time steps is compiled like one of many tensors:
    each is written to its place.

    On GPUs PyTorch's compiler makes one expression of a stack of up to 8 tensors, which
    computes each of them anew, with all steps before it: the time loop of a neuron
    would take work quadratic in T. On CPUs it writes each to its place anyway.
    """
    from torch._inductor import ir, lowering

    def written(inputs, dim=0):
        return lowering.TensorBox(ir.ConcatKernel.create(inputs, dim))

    return replaced(lowering, "pointwise_cat", written)


def _may_run_in_cpp(graph, tensors):
    """Whether C++ instead of Python calls the kernels of a compiled graph, which takes
    less time.

    On GPUs and other systems this is untested, and for some custom operations it ends
    in a crash: those that return a list of one tensor (docs/upstream.md).
    """
    if sys.platform != "linux" or any(
        tensor.device.type != "cpu" for tensor in tensors
    ):
        return False
    called = {node.target for node in graph.graph.nodes if node.op == "call_function"}
    called.discard(operator.getitem)
    return {getattr(target, "namespace", None) for target in called} <= SAFE_IN_CPP


def _warn_of_no_compilation(what, error):
    """Warns once that graphs are not compiled."""
    if what in _warned_of:
        return
    _warned_of.add(what)
    reason = " ".join(str(error).partition("Set TORCHDYNAMO_VERBOSE")[0].split())[:300]
    warnings.warn(
        f"PyTorch could not compile {what}: it runs without compilation, which is "
        "slower but gives the same results. Compilation needs a C++ compiler on CPUs, "
        "and Triton on GPUs. To turn it and this warning off: model.compile(..., "
        f"jit_compile=False). The reason: {type(error).__name__}: {reason}",
        stacklevel=2,
    )
