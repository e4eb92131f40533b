"""Time loops of small neuron layers in C++: all steps in one operation, in which the
states of neurons stay in fast memory.

PyTorch's compiler writes out every time step, so that it takes longer for larger T.
Here one step is traced, and written as the body of a loop, in a program for any sizes
and number of steps, which compiles in less than a second; so is its derivative with
respect to inputs and weights. There is none for steps with other operations than those
in `operations.py`.
"""

import math
from typing import Any

import torch

from keras_ratesnn._core import tree
from keras_ratesnn._core.backend.torch.graphs.recorder.compiler import lock
from keras_ratesnn._core.backend.torch.graphs.time_loops import programs, text
from keras_ratesnn._core.backend.torch.graphs.time_loops.derivative import Derivative
from keras_ratesnn._core.backend.torch.graphs.time_loops.operations import stored
from keras_ratesnn._core.backend.torch.graphs.time_loops.tracing import traced


class TimeLoop:
    """Any number of steps of neurons as one operation, for tensors of these shapes.

    Args:
        steps: List of functions of the tensors of these lists, one after the other,
            that return a structure `(state, outputs)` of tensors: one time step of each
            phase, element-wise.
        begin: Function of weights and inputs that returns the state before the first
            step.
        summarize: Function of weights and the last state that returns what takes its
            place, or `None`.
        weights: List of tensors that broadcast to the inputs.
        state: List of tensors, that state.
        inputs: List of tensors `(batch, ...)`, those of one step.
        valid: List of one boolean tensor `(batch,)`, or empty.
        learned: For each weight, whether it wants a gradient.
        wanted: For each input, whether it wants a gradient.
        same: For each input, whether it is the same at every step.

    Attributes:
        begins_with_numbers: Boolean, whether the state at the beginning is a part of
            the program.
        summarizes: Boolean, whether `summarize` is given.

    Raises:
        ValueError: If a step has operations for which there is no text.
        Exception: Any other, if there is no compiler, or if it fails.
    """

    def __init__(
        self,
        steps,
        begin,
        summarize,
        weights,
        state,
        inputs,
        valid,
        learned,
        wanted,
        same,
    ):
        groups = list(map(len, (weights, state, inputs, valid)))
        # What a step draws while it is traced, it draws again when it runs.
        with torch.no_grad(), lock(), torch.random.fork_rng(devices=[]):
            numbers = text.constant_results(traced(begin, [*weights, *inputs]))
            results = steps[0](*weights, *state, *inputs, *valid)
            self._structure = tree.map_leaves(lambda leaf: None, results)
            modules, state, after = _steady(steps, weights, state, inputs, valid)
            last, end = after[: len(state)], None
            if summarize is not None:
                end = traced(summarize, [*weights, *state])
                last = text.results_of(end)
                summary = summarize(*weights, *state)
                structure = tree.map_leaves(lambda leaf: None, summary)
                self._structure = structure, self._structure[1]
            results = [(x, False) for x in last]
            results += [(x, True) for x in after[len(state) :]]
            self._derivative = None
            if any((*learned, *wanted)):
                lists = weights, state, inputs, valid, learned, wanted, same
                self._derivative = Derivative(steps, *lists, after, numbers)
        self.begins_with_numbers = numbers is not None
        self.summarizes = summarize is not None
        self._state = [] if self.begins_with_numbers else _kinds(state)
        self._dtypes = [result.dtype for result, _ in results]
        shape = inputs[0].shape
        self._program = programs.Numbered(
            text.TextOfSteps(modules, end, shape, groups, numbers), shape, results
        )

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


def _steady(steps, weights, state, inputs, valid):
    """The graphs of steps, the state whose tensors have the shapes and dtypes that they
    have after each step, and results."""
    met: list[Any] = []
    # It ends: shapes only grow, and there are few dtypes.
    while _kinds(state) not in met:
        met.append(_kinds(state))
        modules = [traced(step, [*weights, *state, *inputs, *valid]) for step in steps]
        after = [text.results_of(module) for module in modules]
        # What neurons share at first may differ later, and where rows are padding.
        state = [
            _changed(old, new, inputs[0].shape)
            for old, *new in zip(state, *after, strict=False)
        ]
    kinds = {_kinds(results[: len(state)]) for results in after}
    if len(set(map(_kinds, after))) > 1 or kinds != {met[-1]}:
        raise ValueError("the results of steps differ in their shapes or dtypes")
    return modules, state, after[0]


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
