"""Time loops of neuron layers in C++, on CPUs: all steps in one operation, in which the
states of neurons stay in fast memory.

PyTorch's compiler writes out every time step, so that it takes longer for larger T.
Here one step is traced, and written as the body of a loop, in a program for any sizes
and number of steps, which compiles in less than a second; so is its derivative with
respect to inputs and weights. There is none for steps with other operations than those
in `operations.py`.
"""

import dataclasses
import math
from typing import Any

import torch

from keras_ratesnn._core import tree
from keras_ratesnn._core.backend.torch.graphs.recorder.compiler import lock
from keras_ratesnn._core.backend.torch.graphs.time_loops import programs, text
from keras_ratesnn._core.backend.torch.graphs.time_loops.derivative import Derivative
from keras_ratesnn._core.backend.torch.graphs.time_loops.operations import stored
from keras_ratesnn._core.backend.torch.graphs.time_loops.tracing import traced


class CompiledLoop:
    """Any number of steps of neurons as one operation, for tensors of these shapes.

    Args:
        loop: `LoopOfTensors`, with the state before the first step.

    Attributes:
        begins_with_numbers: Boolean, whether the state at the beginning is a part of
            the program.
        summarizes: Boolean, whether the loop has `summarize`.

    Raises:
        ValueError: If a step has operations for which there is no text.
        Exception: Any other, if there is no compiler, or if it fails.
    """

    def __init__(self, loop):
        # What a step draws while it is traced, it draws again when it runs.
        with torch.no_grad(), lock(), torch.random.fork_rng(devices=[]):
            beginning = traced(loop.begin, [*loop.weights, *loop.inputs])
            numbers = text.constant_results(beginning)
            self._structure = _holes(loop.steps[0](*loop.arguments))
            modules, loop, after = _steady(loop)
            last, outputs = after[: len(loop.state)], after[len(loop.state) :]
            end = None
            if loop.summarize is not None:
                end = traced(loop.summarize, [*loop.weights, *loop.state])
                last = text.results_of(end)
                summary = loop.summarize(*loop.weights, *loop.state)
                self._structure = _holes(summary), self._structure[1]
            self._derivative = None
            if any((*loop.learned, *loop.wanted)):
                self._derivative = Derivative(loop, after, numbers)
        self.begins_with_numbers = numbers is not None
        self.summarizes = loop.summarize is not None
        self._state = [] if self.begins_with_numbers else _kinds(loop.state)
        results = [*((x, False) for x in last), *((x, True) for x in outputs)]
        self._dtypes = [result.dtype for result, _ in results]
        written = text.TextOfSteps(modules, end, loop.shape, loop.groups, numbers)
        self._program = programs.Numbered(written, loop.shape, results)

    def __call__(self, weights, state, inputs, valid, ends):
        """`(state, outputs)` after all steps.

        The lists are as in the constructor, but `state` is empty if the program
        `begins_with_numbers`, and time is the second axis of `valid`, of outputs, and
        of inputs unless they are the same at every step. `ends` has the number of the
        steps up to the end of each phase.
        """
        state = [
            tensor.to(dtype).expand(shape)
            for tensor, (shape, dtype) in zip(state, self._state, strict=True)
        ]
        tensors = [x.to(stored(x.dtype)) for x in (*state, *inputs, *valid)]
        with torch.no_grad():
            read_weights = self._program.read_weights(weights)
        if self._derivative is None:
            results = self._program(ends, [*tensors, *read_weights])
        else:
            results = self._derivative.run(
                self._program, ends, weights, tensors, read_weights
            )
        results = [x.to(dtype) for x, dtype in zip(results, self._dtypes, strict=True)]
        return tree.filled(self._structure, results)


def _holes(structure):
    """A structure with `None` in the place of tensors."""
    return tree.map_leaves(lambda leaf: None, structure)


def _steady(loop):
    """`(modules, loop, results)`: the graphs of steps, the loop with a state whose
    tensors have the shapes and dtypes that they have after each step, and the results
    of a step."""
    met: list[Any] = []
    # This ends: shapes only grow, and there are few dtypes.
    while _kinds(loop.state) not in met:
        met.append(_kinds(loop.state))
        modules = [traced(step, loop.arguments) for step in loop.steps]
        after = [text.results_of(module) for module in modules]
        # What neurons share at first may differ later, and where rows are padding.
        state = [
            _changed(old, new, loop.shape)
            for old, *new in zip(loop.state, *after, strict=False)
        ]
        loop = dataclasses.replace(loop, state=state)
    kinds = {_kinds(results[: len(loop.state)]) for results in after}
    if len(set(map(_kinds, after))) > 1 or kinds != {met[-1]}:
        raise ValueError("the results of steps differ in their shapes or dtypes")
    return modules, loop, after[0]


def _changed(old, by_phase, full):
    """A tensor of a state, in the shape and dtype that the first phase gives it which
    changes them."""
    for new in by_phase:
        if _kinds([new]) != _kinds([old]):
            return old.to(new.dtype).expand(_program_shape(new.shape, full))
    return old


def _program_shape(shape, full):
    """The shape of a state in a program: one number, one for each sample, or one for
    each neuron of each sample."""
    is_row = len(shape) and shape[0] == full[0] and math.prod(shape[1:]) == 1
    return full if len(shape) and not is_row else shape


def _kinds(tensors):
    return tuple((tensor.shape, tensor.dtype) for tensor in tensors)
