"""Time loops of small neuron layers in C++: all steps in one operation, in which the states of neurons stay in fast memory.

PyTorch's compiler writes out every time step, so that it takes longer for larger T. Here one step is traced, and written as the
body of a loop, in a program for any sizes and number of steps, which compiles in less than a second. There is none for steps
that need a gradient, or have other operations than those in `text.py`.
"""

import functools
import math

import torch
from torch.fx.experimental.proxy_tensor import make_fx

from keras_ratesnn._core import tree
from keras_ratesnn._core.backend.torch.recorder.compiler import lock
from keras_ratesnn._core.backend.torch.recorder.graph_passes import draws
from keras_ratesnn._core.backend.torch.time_loops import programs, text


class TimeLoop:
    """Any number of steps of neurons as one operation, without gradient, for tensors of these shapes.

    Args:
        step: Function of the tensors of these lists, one after the other, that returns a structure `(state, outputs)` of
            tensors: one time step, element-wise.
        begin: Function of weights and inputs that returns the state before the first step, or `None` if it is another one.
        weights: List of tensors that broadcast to the inputs.
        state: List of tensors, the state before the first step.
        inputs: List of tensors `(batch, ...)`, those of one step.
        valid: List of one boolean tensor `(batch,)`, or empty.

    Attributes:
        begins_with_numbers: Boolean, whether the state at the beginning is a part of the program.

    Raises:
        ValueError: If the step has operations for which there is no text.
        Exception: Any other, if there is no compiler, or if it fails.
    """

    def __init__(self, step, begin, weights, state, inputs, valid):
        groups = list(map(len, (weights, state, inputs, valid)))
        # What a step draws while it is traced, it draws again when it runs.
        with torch.no_grad(), lock(), torch.random.fork_rng(devices=[]):
            numbers = None if begin is None else text.numbers_of(_traced(begin, [*weights, *inputs]))
            self._structure = tree.map_leaves(lambda leaf: None, step(*weights, *state, *inputs, *valid))
            while True:
                module = _traced(step, [*weights, *state, *inputs, *valid])
                after = [text.value_of(node) for node in module.graph.output_node().args[0]]
                pairs = list(zip(state, after, strict=False))
                if all(old.shape == new.shape and old.dtype == new.dtype for old, new in pairs):
                    break
                # What neurons share at first may differ later, and where rows are padding.
                state = [old.to(new.dtype).expand(new.shape) for old, new in pairs]
        self.begins_with_numbers = numbers is not None
        self._state = [] if self.begins_with_numbers else [(new.shape, new.dtype) for _, new in pairs]
        self._dtypes = [result.dtype for result in after]
        batch, *features = inputs[0].shape
        written = text.Text(module, (batch, *features), groups, numbers)
        self._of_weights = written.of_weights
        results = tuple((x.shape, text.stored(x.dtype), index >= len(state)) for index, x in enumerate(after))
        self._number = programs.number_of(str(written), batch, math.prod(features), tuple(written.axes), results)

    def __call__(self, weights, state, inputs, valid, timesteps):
        """`(state, outputs)` after all steps.

        The lists are as in the constructor, but `state` is empty if the program `begins_with_numbers`, and time is the second
        axis of `valid`, of outputs, and of inputs unless they are the same at every step.
        """
        state = [tensor.to(dtype).expand(shape) for tensor, (shape, dtype) in zip(state, self._state, strict=True)]
        tensors = [x.to(text.stored(x.dtype)) for x in (*state, *inputs, *valid, *self._of_weights(*weights))]
        found = programs.run(self._number, timesteps, tensors)
        return tree.filled(self._structure, [x.to(dtype) for x, dtype in zip(found, self._dtypes, strict=True)])


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
