"""Compiled programs in C++, and the PyTorch operation that runs them."""

import ctypes
import functools
import os
import pathlib
import shutil
import subprocess
import tempfile
from typing import NamedTuple

import torch

from keras_ratesnn._core.backend.torch.recorder.compiler import lock

_FLAGS = ("-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off", "-fopenmp-simd")


@functools.lru_cache(None)
def _compiled(text):
    """A program as a library, whose function is `run`."""
    compilers = [os.environ.get("CXX"), "g++", "clang++"]
    compiler = next(filter(None, (shutil.which(name) for name in compilers if name)))
    with tempfile.TemporaryDirectory() as folder:
        source, library = pathlib.Path(folder, "loop.cpp"), pathlib.Path(folder, "loop.so")
        source.write_text(text)
        command = [compiler, *_FLAGS, "-shared", "-fPIC", "-o", str(library), str(source)]
        subprocess.run(command, check=True, capture_output=True)
        return ctypes.CDLL(str(library))


class _Program(NamedTuple):
    """A compiled program for tensors of some sizes, and any number of steps.

    Attributes:
        library: What `_compiled` returned.
        batch: Integer.
        features: Integer, the number of neurons of a sample.
        axes: As in `text.Text`, a tuple.
        results: Tuple of the shape, the dtype, and whether there is one for each step, of what it returns.
    """

    library: ctypes.CDLL
    batch: int
    features: int
    axes: tuple[tuple[bool, int], ...]
    results: tuple[tuple[tuple[int, ...], torch.dtype, bool], ...]

    def empty(self, timesteps):
        """New tensors for the results."""
        return [
            torch.empty((shape[0], timesteps, *shape[1:]) if has_steps else shape, dtype=dtype)
            for shape, dtype, has_steps in self.results
        ]

    def __call__(self, timesteps, tensors):
        tensors, strides = zip(*(_laid_out(x, *axes) for x, axes in zip(tensors, self.axes, strict=True)), strict=True)
        outputs = self.empty(timesteps)
        flat = [stride for pair in strides for stride in pair]
        arrays = _pointers(tensors), (ctypes.c_int64 * len(flat))(*flat), _pointers(outputs)
        self.library.run(*map(ctypes.c_int64, (self.batch, self.features, timesteps)), *arrays)
        return outputs


def _pointers(tensors):
    return (ctypes.c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))


def _laid_out(tensor, has_features, axes):
    """`(tensor, (stride of the batch, stride of time))`, with its features one after the other in memory."""
    has_time = tensor.ndim > axes
    if has_features:
        expected = 1
        for size, stride in zip(reversed(tensor.shape[1 + has_time :]), reversed(tensor.stride()), strict=False):
            if size != 1 and stride != expected:
                tensor = tensor.contiguous()
                break
            expected *= size
    of_batch = tensor.stride(0) if tensor.ndim and len(tensor) > 1 else 0
    return tensor, (of_batch, tensor.stride(1) if has_time else 0)


_programs: list[_Program] = []
_numbers_of_programs: dict[_Program, int] = {}


def number_of(text, *sizes):
    """The number of the program with this text and sizes, see `_Program`, for `run`."""
    program = _Program(_compiled(text), *sizes)
    with lock():
        # Layers with equal programs share one, for as long as the process runs.
        number = _numbers_of_programs.setdefault(program, len(_programs))
        if number == len(_programs):
            _programs.append(program)
    return number


_library = torch.library.Library("keras_ratesnn", "FRAGMENT")
_library.define("time_loop(int number, int timesteps, Tensor[] tensors) -> Tensor[]")


@torch.library.impl(_library, "time_loop", "CompositeExplicitAutograd")
def _run_loop(number, timesteps, tensors):
    return _programs[number](timesteps, tensors)


@torch.library.register_fake("keras_ratesnn::time_loop", lib=_library)
def _shapes_of_loop(number, timesteps, tensors):
    return _programs[number].empty(timesteps)


run = torch.ops.keras_ratesnn.time_loop.default
