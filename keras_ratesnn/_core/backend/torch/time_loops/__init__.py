"""Time loops of small neuron layers in C++: all steps in one operation, in which the states of neurons stay in fast memory.

PyTorch's compiler writes out every time step, so that it takes longer for larger T. Here one step is traced, and written as the
body of a loop, in a program for any sizes and number of steps, which compiles in less than a second. There is none for steps
that need a gradient, or have other operations than those in `text.py`.
"""

import functools

import torch
from torch.fx.experimental.proxy_tensor import make_fx

from keras_ratesnn._core import tree
from keras_ratesnn._core.backend.torch.recorder.compiler import lock
from keras_ratesnn._core.backend.torch.recorder.graph_passes import draws
from keras_ratesnn._core.backend.torch.time_loops import programs, text
from keras_ratesnn._core.backend.torch.time_loops.text import HALF as HALF


class TimeLoop:
    """Any number of steps of neurons as one operation, without gradient, for tensors of these shapes.

    Args:
        steps: List of functions of the tensors of these lists, one after the other, that return a structure `(state, outputs)`
            of tensors: one time step of each phase, element-wise.
        begin: Function of weights and inputs that returns the state before the first step.
        finish: Function of weights and the last state that returns what takes its place, or `None`.
        weights: List of tensors that broadcast to the inputs.
        state: List of tensors, that state.
        inputs: List of tensors `(batch, ...)`, those of one step.
        valid: List of one boolean tensor `(batch,)`, or empty.

    Attributes:
        begins_with_numbers: Boolean, whether the state at the beginning is a part of the program.
        finishes: Boolean, whether `finish` is.

    Raises:
        ValueError: If a step has operations for which there is no text.
        Exception: Any other, if there is no compiler, or if it fails.
    """

    def __init__(self, steps, begin, finish, weights, state, inputs, valid):
        groups = list(map(len, (weights, state, inputs, valid)))
        # What a step draws while it is traced, it draws again when it runs.
        with torch.no_grad(), lock(), torch.random.fork_rng(devices=[]):
            numbers = text.numbers_of(_traced(begin, [*weights, *inputs]))
            self._structure = tree.map_leaves(lambda leaf: None, steps[0](*weights, *state, *inputs, *valid))
            for _ in range(_MOST_KINDS_OF_STATES):
                modules = [_traced(step, [*weights, *state, *inputs, *valid]) for step in steps]
                after = [text.results_of(module) for module in modules]
                # What neurons share at first may differ later, and where rows are padding.
                changed = next((new for new in after if _kinds(new[: len(state)]) != _kinds(state)), None)
                if changed is None:
                    break
                state = [old.to(new.dtype).expand(new.shape) for old, new in zip(state, changed, strict=False)]
            if len(set(map(_kinds, after))) > 1 or changed is not None:
                raise ValueError("the results of steps differ in their shapes or dtypes")
            results, end = [(x, index >= len(state)) for index, x in enumerate(after[0])], None
            if finish is not None:
                end = _traced(finish, [*weights, *state])
                results = [*((x, False) for x in text.results_of(end)), *results[len(state) :]]
                of_last = tree.map_leaves(lambda leaf: None, finish(*weights, *state))
                self._structure = of_last, self._structure[1]
        self.begins_with_numbers, self.finishes = numbers is not None, finish is not None
        self._state = [] if self.begins_with_numbers else _kinds(state)
        self._dtypes = [result.dtype for result, _ in results]
        batch, *features = inputs[0].shape
        written = text.Text(modules, end, (batch, *features), groups, numbers)
        self._of_weights = written.of_weights
        kinds = tuple((x.shape, text.stored(x.dtype), has_steps) for x, has_steps in results)
        self._number = programs.number_of(str(written), (batch, *features), tuple(written.axes), kinds)

    def __call__(self, weights, state, inputs, valid, ends):
        """`(state, outputs)` after all steps.

        The lists are as in the constructor, but `state` is empty if the program `begins_with_numbers`, and time is the second
        axis of `valid`, of outputs, and of inputs unless they are the same at every step. `ends` has the number of the steps up
        to the end of each phase.
        """
        state = [tensor.to(dtype).expand(shape) for tensor, (shape, dtype) in zip(state, self._state, strict=True)]
        tensors = [x.to(text.stored(x.dtype)) for x in (*state, *inputs, *valid, *self._of_weights(*weights))]
        found = programs.run(self._number, ends, tensors)
        return tree.filled(self._structure, [x.to(dtype) for x, dtype in zip(found, self._dtypes, strict=True)])


_MOST_KINDS_OF_STATES = 8
"""How often the shapes and dtypes of a state may change before those of all steps are found."""


def _kinds(tensors):
    return tuple((tensor.shape, tensor.dtype) for tensor in tensors)


def _traced(function, tensors):
    """The graph module of a function of tensors."""

    def flat(*tensors):
        return tree.flatten(with_tensors(function(*tensors), tensors))

    module = make_fx(flat)(*(tensor.detach() for tensor in tensors))
    module.graph.eliminate_dead_code()
    if any(map(draws, module.graph.nodes)):
        raise ValueError("random numbers are others at each step")
    return module


def with_tensors(structure, beside):
    """A structure with tensors instead of numbers, as precise as the tensors beside them, and not in half precision."""
    dtype = functools.reduce(torch.promote_types, (tensor.dtype for tensor in beside), torch.float32)
    return tree.map_leaves(lambda leaf: leaf if torch.is_tensor(leaf) else torch.full((), leaf, dtype=dtype), structure)
