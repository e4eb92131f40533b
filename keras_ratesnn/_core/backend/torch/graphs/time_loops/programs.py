"""Compiled programs in C++, and the PyTorch operation that runs them."""

import ctypes
import functools
import math
import os
import pathlib
import shutil
import subprocess
import tempfile
from typing import NamedTuple

import torch

from keras_ratesnn._core.backend.torch.graphs.recorder.compiler import lock, several
from keras_ratesnn._core.backend.torch.graphs.time_loops.operations import stored

_FLAGS = (
    "-std=c++17",
    "-O3",
    "-march=native",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=off",
)
_THREADS = ("-fopenmp", "-fopenmp-simd")
"""Flags of compilers for threads, and for those that have none."""

_ELEMENTS_OF_A_THREAD = 2**15
"""For fewer a thread takes longer to start than to compute, as PyTorch has it."""


@functools.lru_cache(None)
def _compiled(text):
    """A program as a library, whose function is `run`."""
    compilers = [os.environ.get("CXX"), "g++", "clang++"]
    found = filter(None, (shutil.which(name) for name in compilers if name))
    compiler = next(found, None)
    if compiler is None:
        raise FileNotFoundError(
            "There is no C++ compiler: neither CXX, g++ nor clang++."
        )
    with tempfile.TemporaryDirectory() as folder:
        source = pathlib.Path(folder, "loop.cpp")
        library = pathlib.Path(folder, "loop.so")
        source.write_text(text)
        for flag in _THREADS:
            command = [
                compiler,
                *_FLAGS,
                flag,
                "-shared",
                "-fPIC",
                "-o",
                str(library),
                str(source),
            ]
            compilation = subprocess.run(command, check=False, capture_output=True)
            if not compilation.returncode:
                break
        compilation.check_returncode()
        return ctypes.CDLL(str(library))


class _LoopProgram(NamedTuple):
    """A compiled program for tensors of some sizes, and any number of steps.

    Attributes:
        library: What `_compiled` returned.
        shape: Tuple, that of the inputs of one step.
        axes: As in `text.Text`, a tuple.
        results: Tuple of the shape, the dtype, and whether there is one for each step,
            of what it returns.
    """

    library: ctypes.CDLL
    shape: tuple[int, ...]
    axes: tuple[tuple[bool, int], ...]
    results: tuple[tuple[tuple[int, ...], torch.dtype, bool], ...]

    def order(self, tensors):
        """The axes of features in the order in which the largest tensor has them in
        memory, the outermost first."""
        with_features = [
            (tensor, axes)
            for tensor, (has_features, axes) in zip(tensors, self.axes, strict=True)
            if has_features
        ]
        largest, axes = max(with_features, key=lambda pair: pair[0].numel())
        first = 1 - axes
        return _order_of(largest.shape[first:], largest.stride()[first:])

    def empty(self, order, timesteps):
        """New tensors for the results, with features in an order in memory."""
        back = [order.index(axis) for axis in range(len(order))]
        tensors = []
        for shape, dtype, has_steps in self.results:
            if has_steps or shape == self.shape:
                axes = [timesteps] * has_steps + [shape[1 + axis] for axis in order]
                tensor = torch.empty((shape[0], *axes), dtype=dtype)
                tensors.append(_in_order(tensor, back))
            else:
                tensors.append(torch.empty(shape, dtype=dtype))
        return tensors

    def __call__(self, ends, tensors):
        order = self.order(tensors)
        laid_out = [
            _laid_out(x, order, *axes)
            for x, axes in zip(tensors, self.axes, strict=True)
        ]
        strides = [stride for _, pair in laid_out for stride in pair]
        outputs = self.empty(order, ends[-1])
        batch, *features = self.shape
        elements = math.prod(self.shape) * ends[-1]
        threads = min(torch.get_num_threads(), elements // _ELEMENTS_OF_A_THREAD)
        self.library.run(
            *map(ctypes.c_int64, (batch, math.prod(features), ends[-1])),
            (ctypes.c_int64 * len(ends))(*ends),
            ctypes.c_int64(max(1, threads)),
            _pointers([tensor for tensor, _ in laid_out]),
            (ctypes.c_int64 * len(strides))(*strides),
            _pointers(outputs),
        )
        return outputs


@functools.lru_cache(1024)
def _order_of(shape, strides):
    return sorted(
        range(len(shape)), key=lambda axis: -strides[axis] if shape[axis] > 1 else 0
    )


def _in_order(tensor, order):
    """A view of a tensor with its last axes in another order."""
    first = tensor.ndim - len(order)
    return tensor.permute(*range(first), *(first + axis for axis in order))


def _pointers(tensors):
    return (ctypes.c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))


def _laid_out(tensor, order, has_features, axes):
    """`(tensor, (stride of the batch, stride of time))`, with its features one after
    the other in memory, in an order."""
    has_time = tensor.ndim > axes
    if has_features:
        tensor = _in_order(tensor, order)
        sizes = tensor.shape[1 + has_time :]
        if not _is_dense(sizes, tensor.stride()[1 + has_time :]):
            tensor = tensor.contiguous()
    batch_stride = tensor.stride(0) if tensor.ndim and len(tensor) > 1 else 0
    time_stride = tensor.stride(1) if has_time else 0
    return tensor, (batch_stride, time_stride)


def _is_dense(sizes, strides):
    """Whether axes of these sizes are one after the other in memory, the last without
    gaps."""
    expected = 1
    for size, stride in zip(reversed(sizes), reversed(strides), strict=True):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True


_programs: list[_LoopProgram] = []
_numbers_of_programs: dict[_LoopProgram, int] = {}


def _number_of(text, *sizes):
    """The number of the program with this text and sizes, see `_LoopProgram`, for the
    operation."""
    program = _LoopProgram(_compiled(text), *sizes)
    with lock():
        # Layers with equal programs share one, for as long as the process runs.
        number = _numbers_of_programs.setdefault(program, len(_programs))
        if number == len(_programs):
            _programs.append(program)
    return number


class Numbered:
    """A compiled program, which an operation knows by its number.

    Args:
        written: A `text.Text`.
        shape: Tuple, that of the inputs of one step.
        results: List of pairs: a tensor like a result of one step, and whether there is
            one for each step.
    """

    def __init__(self, written, shape, results):
        self._written = written
        kinds = tuple(
            (tuple(x.shape), stored(x.dtype), has_steps) for x, has_steps in results
        )
        self._number = _number_of(str(written), shape, tuple(written.axes), kinds)
        self._count = len(kinds)

    def read_weights(self, weights):
        """What the program reads of the weights, a list: the last of its tensors."""
        return [x.to(stored(x.dtype)) for x in self._written.read_weights(weights)]

    def __call__(self, ends, tensors):
        """The results, a list."""
        run = torch.ops.keras_ratesnn.time_loop.default
        return run(self._number, ends, tensors)[: self._count]


_library = torch.library.Library("keras_ratesnn", "FRAGMENT")
_library.define("time_loop(int number, int[] ends, Tensor[] tensors) -> Tensor[]")


@torch.library.impl(_library, "time_loop", "CompositeExplicitAutograd")
def _run_loop(number, ends, tensors):
    return several(_programs[number](ends, tensors))


@torch.library.register_fake("keras_ratesnn::time_loop", lib=_library)
def _shapes_of_loop(number, ends, tensors):
    program = _programs[number]
    return several(program.empty(program.order(tensors), ends[-1]))
