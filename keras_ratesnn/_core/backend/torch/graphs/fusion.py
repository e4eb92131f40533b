"""Compiles element-wise operations into one pass over memory on PyTorch; in eager mode
each operation is a separate pass.

A function is traced once into a graph of PyTorch operations. PyTorch's compiler turns
it into a kernel, on CPUs with a C++ compiler, on GPUs with Triton. Without these,
functions run in eager mode. For PyTorch a kernel is one operation, which can be a part
of a larger graph.
"""

import contextvars
import functools
import itertools
import logging
import threading
from typing import Any

import keras
import torch

from keras_ratesnn._core import keras_internals, tree
from keras_ratesnn._core.backend.tensor_function import TensorFunction, description
from keras_ratesnn._core.backend.torch.derivative import (
    differentiable_outputs,
    first_derivative_only,
)
from keras_ratesnn._core.backend.torch.graphs import private_keras
from keras_ratesnn._core.backend.torch.graphs.latest_settings import LatestSettings
from keras_ratesnn._core.backend.torch.graphs.recorder.compiler import (
    CompiledByLayout,
    lock,
    several,
)
from keras_ratesnn._core.backend.torch.graphs.recorder.graph import (
    is_recording,
    is_recording_for_compiler,
)
from keras_ratesnn._core.backend.torch.graphs.recorder.graph_passes import draws, traced
from keras_ratesnn._core.backend.torch.graphs.recorder.layer_attributes import (
    LayerAttributes,
    global_settings,
)
from keras_ratesnn._core.backend.torch.graphs.recorder.signature import (
    are_plain,
    is_checkpointed,
)
from keras_ratesnn._core.backend.torch.normalization import HALF
from keras_ratesnn._core.contexts import setting

LEAST_ELEMENTS = 2**20
"""For fewer elements compilation takes too long. Once compiled, a kernel is also used
for small layers."""

LEAST_ELEMENTS_ON_GPU = 2**12
"""On GPUs compilation is faster, and starting the operations of a small layer one by
one takes longer than computing them."""

LONGEST_PASS = 16
"""Up to this T a whole time loop is compiled into one pass over memory. A longer loop
is one pass per step, to limit compile time."""

WORTH_COMPILING = 100
"""Calls of a cell after which compilation has paid off."""

CALLS_BEFORE_LOOPS = 16
"""Calls of a small layer before its time loop is written in C++, which then is a part
of recorded graphs."""

_fusing = contextvars.ContextVar[Any]("keras_ratesnn_fusing", default=None)
_kinds: set[Any] = set()
_lock = threading.Lock()
_log = logging.getLogger("keras_ratesnn")


def fusing(allowed, training, loops):
    """A context that allows or forbids compilation; see `base`.

    There is none in a checkpoint, where a call and its repetition would be compiled
    differently.
    """
    is_allowed = allowed and not is_checkpointed()
    return setting(_fusing, (training, loops) if is_allowed else None)


def steps_in_a_pass(timesteps, with_gradient):
    """All or one, see `LONGEST_PASS`."""
    return timesteps if timesteps <= LONGEST_PASS else 1


def elementwise(function, cell, key, *arguments):
    """`function(*arguments)`, compiled into one pass over memory where that pays off;
    see `base`."""
    weights = cell.weights
    if not _may_compile(cell, weights):
        return function(*arguments)
    tensors = [
        *keras_internals.values_of(weights),
        *filter(torch.is_tensor, tree.flatten(arguments)),
    ]
    described = description(arguments, torch.is_tensor) if _can_fuse(tensors) else None
    if described is None:
        return function(*arguments)
    training, loops = _fusing.get()
    flat = TensorFunction(function, cell, arguments, torch.is_tensor)
    key = key, described, training, global_settings()
    program = _loops_of(cell, loops).program(flat, key, tensors)
    return function(*arguments) if program is None else program(flat, tensors)


def time_loop(loop):
    """All steps by a program in C++, or `None`; see `base`."""
    cell, inputs = loop.cell, loop.inputs
    if not _may_compile(cell, cell.weights):
        return None
    weights = keras_internals.values_of(cell.weights)
    valid = [] if loop.valid is None else [loop.valid]
    tensors = [*weights, *inputs, *valid]
    if not _can_loop(tensors):
        return None
    # With the first loop, since many programs on GPUs have none.
    from keras_ratesnn._core.backend.torch.graphs.time_loops import CompiledLoop
    from keras_ratesnn._core.backend.torch.graphs.time_loops.loop_of_tensors import (
        LoopOfTensors,
    )
    from keras_ratesnn._core.backend.torch.graphs.time_loops.tracing import with_tensors

    first = [
        x if is_same else x[:, 0] for x, is_same in zip(inputs, loop.same, strict=True)
    ]
    first_valid = [x[:, 0] for x in valid]
    is_large = _are_large(tensors)
    learned, wanted = _want_gradients(weights), _want_gradients(inputs)
    # In a small layer, it takes no time after the loop, whose program is then one for
    # all T.
    summarizes = is_large and not any((*learned, *wanted))

    def flat(function, *arguments):
        return TensorFunction(function, cell, arguments, torch.is_tensor)

    def made():
        before = with_tensors(loop.begin(first), inputs)
        begin = flat(loop.begin, first)
        steps = [
            flat(step, before, first, *(first_valid or [None])) for step in loop.steps
        ]
        summarize = [flat(loop.summarize, before)] if summarizes else []
        compiled = CompiledLoop(
            LoopOfTensors(
                begin=begin,
                steps=steps,
                summarize=summarize[0] if summarize else None,
                weights=weights,
                state=tree.flatten(before),
                inputs=first,
                valid=first_valid,
                learned=learned,
                wanted=wanted,
                same=loop.same,
            )
        )
        functions = [begin, *steps, *summarize]
        return compiled, all(function.is_closed for function in functions)

    training, loops = _fusing.get()
    key = (
        loop.key,
        training,
        tuple(loop.same),
        tuple(learned),
        tuple(wanted),
        is_large,
        global_settings(),
    )
    compiled = _loops_of(cell, loops).time_loop(
        made, key, [*weights, *first, *first_valid], is_large
    )
    if compiled is None:
        return None
    before = () if compiled.begins_with_numbers else loop.begin(first)
    state = tree.flatten(with_tensors(before, inputs))
    ends = list(itertools.accumulate(loop.counts))
    state, outputs = compiled(weights, state, inputs, valid, ends)
    return state if compiled.summarizes else loop.summarize(state), outputs


def _may_compile(cell, weights):
    """Whether the functions of a cell may be compiled. Variables that are not weights,
    such as those of a random generator, may change."""
    return _fusing.get() is not None and len(cell.variables) == len(weights)


def _want_gradients(tensors):
    return [torch.is_grad_enabled() and tensor.requires_grad for tensor in tensors]


def _can_loop(tensors):
    """Whether a program in C++ may run all steps: a larger compiled graph does without
    small ones.

    It reads and writes float32 instead of half precision, which takes a large layer
    longer than compiled operations.
    """
    is_large = _are_large(tensors)
    return (
        not torch.compiler.is_compiling()
        and torch._C._functorch.peek_interpreter_stack() is None
        and not torch.jit.is_tracing()
        and (is_large or not is_recording_for_compiler())
        and (is_recording() or are_plain(tensors))
        and all(tensor.device.type == "cpu" for tensor in tensors)
        and not (is_large and any(tensor.dtype in HALF for tensor in tensors))
    )


def _can_fuse(tensors):
    """Whether a function of these tensors may be compiled."""
    return (
        # First, since an exported graph would be valid only for the sizes that are
        # compared.
        not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and (_kinds or _are_large(tensors))
        and (is_recording() or are_plain(tensors))
        and all(tensor.device.type in ("cpu", "cuda") for tensor in tensors)
        and not (is_recording_for_compiler() and _fuse_with_others(tensors))
    )


def _loops_of(cell, loops):
    """The `_Loops` of the present settings of a cell."""
    with _lock:
        # By its id: the loops keep the cell.
        latest = loops.setdefault(id(cell), LatestSettings())
        return latest.present(_Loops.are_present, functools.partial(_Loops, cell))


class _Loops:
    """The functions of a cell with its present settings, some of them compiled.

    Args:
        cell: A neuron cell.
        patience: Integer >= 1, the number of its first call that may be compiled.
    """

    def __init__(self, cell, patience):
        self._cell = cell
        self._patience = patience
        self._attributes = LayerAttributes(keras_internals.with_sublayers(cell))
        self._calls = 0
        self._was_compiled = False
        self._programs: dict[Any, _Program] = {}
        self._loop_calls = 0
        self._time_loops: dict[Any, Any] = {}
        self._without_loops: set[Any] = set()
        # Tensors that are settings change without notice.
        self._is_known = (
            self._attributes.unknown is None and not self._attributes.tensors
        )

    def are_present(self):
        """Whether the cell has these settings now."""
        return self._attributes.unchanged()

    @property
    def were_wasted(self):
        """Whether functions were compiled, but not called often."""
        return (
            self._was_compiled and max(self._calls, self._loop_calls) < WORTH_COMPILING
        )

    @functools.cached_property
    def _kind(self):
        """A key: the same for cells of a class whose settings look the same."""
        settings = {}
        for name, value in vars(self._cell).items():
            is_setting = name not in private_keras.ATTRIBUTES_OF_EVERY_LAYER
            if is_setting and not isinstance(value, keras.Variable):
                settings[name] = value
        return type(self._cell), repr(settings)

    def program(self, function, key, tensors):
        """The compiled function, a `_Program`, or `None` if it is not compiled.

        Args:
            function: `TensorFunction`.
            key: Hashable: everything that determines the function, except the settings
                and the properties of the tensors.
            tensors: List of tensors.
        """
        self._calls += 1
        if not self._is_known or self._calls < self._patience:
            return None
        sizes = [(tensor.shape, tensor.dtype, tensor.device) for tensor in tensors]
        key_of_sizes = key, *sizes
        program = self._programs.get(key_of_sizes)
        if program is None:
            kind = self._kind, key, *_kinds_of(tensors)
            # The larger graph, of which its operations become a part, may itself be
            # compiled.
            if is_recording() or not (kind in _kinds or _are_large(tensors)):
                return None
            self._was_compiled = True
            program = _Program(function, tensors, self._attributes)
            if program.run is None or not (function.is_closed and self.are_present()):
                # It has effects that a compiled function would not have, or draws what
                # its backward pass would draw anew.
                self._is_known = False
                return None
            self._programs[key_of_sizes] = program
            _kinds.add(kind)
        return program

    def time_loop(self, made, key, tensors, is_large):
        """A `CompiledLoop`, or `None` if there is none.

        Args:
            made: Function that returns a new one, and whether it does all that its
                function does.
            key: Hashable: everything that determines it, except the settings and the
                properties of the tensors.
            tensors: List of tensors.
            is_large: Boolean, whether it pays off at once.
        """
        self._loop_calls += 1
        key_of_sizes = key, *((tensor.shape, tensor.dtype) for tensor in tensors)
        if key_of_sizes in self._time_loops or is_recording():
            return self._time_loops.get(key_of_sizes)
        wanted_calls = self._patience * (1 if is_large else CALLS_BEFORE_LOOPS)
        if (
            self._is_known
            and self._loop_calls >= wanted_calls
            and key not in self._without_loops
        ):
            self._was_compiled = True
            try:
                loop, is_closed = made()
                if is_closed and self.are_present():
                    self._time_loops[key_of_sizes] = loop
            # Without a compiler, or for other operations: they run one by one.
            except Exception as error:
                _log.debug(
                    "The time loop of %s is not written in C++: %s",
                    type(self._cell).__name__,
                    error,
                )
            if key_of_sizes not in self._time_loops:
                self._without_loops.add(key)
        return self._time_loops.get(key_of_sizes)


def _are_large(tensors):
    on_gpu = any(tensor.is_cuda for tensor in tensors)
    return sum(tensor.numel() for tensor in tensors) >= (
        LEAST_ELEMENTS_ON_GPU if on_gpu else LEAST_ELEMENTS
    )


def _fuse_with_others(tensors):
    """Whether the compiler of a larger graph does better without a kernel: it fuses
    operations with those before and after.

    A loop with a gradient stays a kernel, which saves memory: it stores its arguments
    only. On CPUs all loops do, since these gain nothing otherwise and compile for
    longer.
    """
    has_gradient = torch.is_grad_enabled() and any(
        tensor.requires_grad for tensor in tensors
    )
    return not has_gradient and all(tensor.is_cuda for tensor in tensors)


class _Program:
    """A function that is compiled into one pass over memory forward and, if a gradient
    is needed, one backward.

    The backward pass stores the arguments of the function and recomputes intermediate
    values.

    Args:
        function: `TensorFunction`.
        tensors: List of tensors.
        attributes: `LayerAttributes`, the settings that the function depends on.
    """

    def __init__(self, function, tensors, attributes):
        with torch.no_grad():
            self.run = _compile(function.flat, tensors)
        self.structure = function.structure
        self.derivatives: dict[Any, Any] = {}
        self._attributes = attributes

    def __call__(self, function, tensors):
        """`function(*tensors)`, of an equal function."""
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
            outputs = _Differentiable.apply(self, function, *tensors)
        else:
            outputs = self.run(*tensors)
        return tree.filled(self.structure, outputs, lambda number: number is None)

    def gradients(self, function, tensors, wanted, upstream):
        """The gradients with respect to the `wanted` tensors, `None` for the others."""
        given = tuple(gradient is not None for gradient in upstream)
        tensors_in = [*tensors, *itertools.compress(upstream, given)]

        def derivative(*values):
            inputs = [
                value.detach().requires_grad_(want)
                for value, want in zip(values, wanted, strict=False)
            ]
            with torch.enable_grad():
                outputs = itertools.compress(function.flat(*inputs), given)
            outputs, onto = differentiable_outputs(outputs, values[len(inputs) :])
            leaves = [value for value in inputs if value.requires_grad]
            return torch.autograd.grad(
                outputs, leaves, onto, materialize_grads=True, allow_unused=True
            )

        if (wanted, given) in self.derivatives:
            run = self.derivatives[wanted, given]
        elif is_recording():
            run = derivative
        elif not self._attributes.unchanged():
            raise RuntimeError(
                "Attributes of a neuron cell changed between a forward pass and its "
                "backward pass, which computes the time steps again. Change them after "
                "the backward pass, or use model.compile(..., jit_compile=False)."
            )
        else:
            run = self.derivatives[wanted, given] = _compile(derivative, tensors_in)
        gradients = iter(run(*tensors_in))
        return [next(gradients) if want else None for want in wanted]


class _Differentiable(torch.autograd.Function):
    @staticmethod
    def forward(ctx, program, function, *tensors):
        ctx.program, ctx.function = program, function
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)
        return tuple(program.run(*tensors))

    @first_derivative_only
    def backward(ctx, *upstream):
        wanted = tuple(ctx.needs_input_grad[2:])
        gradients = ctx.program.gradients(
            ctx.function, ctx.saved_tensors, wanted, upstream
        )
        return None, None, *gradients


def _compile(function, tensors):
    """Compiles `function` for a list of tensors like these: a function of such tensors;
    `None` if it draws random numbers, or reads numbers from tensors."""
    # What is drawn here is drawn again when it runs.
    with lock(), torch.random.fork_rng(devices=[]):
        try:
            graph = traced(function, *(tensor.detach() for tensor in tensors))
        except RuntimeError:
            return None
        if any(map(draws, graph.graph.nodes)):
            return None
        constants = any(node.op == "get_attr" for node in graph.graph.nodes)
        # Layers with the same code share one kernel, also for different shapes. It is
        # compiled for one dtype and device.
        text = id(graph) if constants else (graph.code, *_kinds_of(tensors))
        if text not in _numbers:
            _numbers[text] = len(_kernels)
            on_gpu = any(tensor.is_cuda for tensor in tensors)
            _kernels.append(
                CompiledByLayout(graph, "the time loop of a neuron layer", on_gpu)
            )
        number = _numbers[text]
        count = len(graph.graph.output_node().args[0])
    kernel = torch.ops.keras_ratesnn.kernel.default
    return lambda *tensors: kernel(number, tensors)[:count]


def _kinds_of(tensors):
    return [(tensor.ndim, tensor.dtype, tensor.device) for tensor in tensors]


_kernels: list[CompiledByLayout] = []
_numbers: dict[Any, int] = {}

_library = torch.library.Library("keras_ratesnn", "DEF")
_library.define("kernel(int number, Tensor[] tensors) -> Tensor[]")


@torch.library.impl(_library, "kernel", "CompositeExplicitAutograd")
def _run_kernel(number, tensors):
    with torch.no_grad():
        outputs = _kernels[number](*tensors)
    return several(outputs, tensors)


@torch.library.register_fake("keras_ratesnn::kernel", lib=_library)
def _shapes_of_kernel(number, tensors):
    return several([output.clone() for output in _kernels[number].graph(*tensors)])
