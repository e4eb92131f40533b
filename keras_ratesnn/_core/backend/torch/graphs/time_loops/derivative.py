"""The derivative of a time loop: the states again, and then the steps backwards, in one
program."""

import functools
import itertools

import torch

from keras_ratesnn._core import tree
from keras_ratesnn._core.backend.torch.derivative import (
    differentiable_outputs,
    first_derivative_only,
)
from keras_ratesnn._core.backend.torch.graphs.time_loops import text
from keras_ratesnn._core.backend.torch.graphs.time_loops.operations import stored
from keras_ratesnn._core.backend.torch.graphs.time_loops.programs import Numbered
from keras_ratesnn._core.backend.torch.graphs.time_loops.tracing import (
    traced,
    with_tensors,
)


class Derivative:
    """The gradients with respect to inputs and to learned weights.

    Args:
        loop: `LoopOfTensors`, whose state has the shapes and dtypes that it has after
            each step.
        results: List of tensors like the results of a step: states and outputs.
        numbers: List of the numbers that the state is at the beginning, or `None`.
    """

    def __init__(self, loop, results, numbers):
        self._learned = loop.learned
        self._wanted = loop.wanted
        self._states = len(loop.state)
        self._shape = loop.shape
        self._kinds = [(x.shape, stored(x.dtype)) for x in results]
        own, fixed = self._parted(loop.weights)
        self._parts = [_count_of_parts(weight.shape, self._shape) for weight in own]
        # A weight is one number for each neuron, like an input that is the same at
        # every step: sums come later.
        neuron_weights = self._for_each_neuron(own)
        arguments = [*fixed, *loop.state, *loop.inputs, *neuron_weights, *loop.valid]
        number_of_inputs = len(loop.inputs) + len(neuron_weights)
        counts = [len(fixed), self._states, number_of_inputs, len(loop.valid)]
        wanted = [*loop.wanted, *[True] * len(neuron_weights)]
        same = [*loop.same, *[True] * len(neuron_weights)]
        steps = [
            _with_weights_last(
                step, loop.learned, self._parts, [*counts[:2], len(loop.inputs)]
            )
            for step in loop.steps
        ]
        self._modules = [traced(step, arguments) for step in steps]
        arguments += [torch.zeros(x.shape, dtype=x.dtype) for x in results]
        self._derivatives = [
            traced(_derivative(step, counts, wanted), arguments) for step in steps
        ]
        self._groups = [*counts, self._states, len(results) - self._states]
        self._same = list(itertools.compress(same, wanted))
        self._numbers = numbers
        self._program = functools.cache(self._written)
        # The other program, with these gradients, is for states that go on.
        self._program(False)

    def _written(self, has_state_gradients):
        """The program, with or without gradients of the last state."""
        written = text.TextOfDerivative(
            self._modules,
            self._derivatives,
            self._shape,
            self._groups,
            self._numbers,
            self._same,
            has_state_gradients,
        )
        gradients = text.results_of(self._derivatives[0])[self._states :]
        has_steps = [not is_same for is_same in self._same]
        results = list(zip(gradients, has_steps, strict=True))
        return Numbered(written, self._shape, results)

    def _parted(self, weights):
        """The weights that are learned, and the others: two lists."""
        fixed = [not is_learned for is_learned in self._learned]
        return (
            list(itertools.compress(weights, self._learned)),
            list(itertools.compress(weights, fixed)),
        )

    def _for_each_neuron(self, own):
        """The learned weights as one number for each neuron, or several: a list."""
        parts: list[torch.Tensor] = []
        for weight, count in zip(own, self._parts, strict=True):
            parts += [weight] if count is None else weight.unbind()
        return [part.expand(self._shape) for part in parts]

    def run(self, program, ends, weights, arguments, read_weights):
        """The results of the `Numbered` program of the steps, with gradient, given the
        weights, its other arguments, and what it reads of the weights."""
        own, fixed = self._parted(weights)
        fixed = self._program(False).read_weights(fixed)
        counts = len(own), len(arguments), len(read_weights)
        return _LoopWithDerivative.apply(
            self, program, ends, counts, *own, *arguments, *read_weights, *fixed
        )

    def gradients(self, ends, own, arguments, fixed, upstream):
        """The gradients of own weights and of inputs: two lists, with `None` for inputs
        that want none."""
        has_state_gradients = any(
            gradient is not None for gradient in upstream[: self._states]
        )
        upstream = self._without_gaps(upstream, ends[-1])
        if not has_state_gradients:
            upstream = upstream[self._states :]
        inputs, valid = arguments[: len(self._wanted)], arguments[len(self._wanted) :]
        wide = [weight.to(stored(weight.dtype)) for weight in own]
        neuron_weights = self._for_each_neuron(wide)
        tensors = [*inputs, *neuron_weights, *valid, *upstream, *fixed]
        gradients = iter(self._program(has_state_gradients)(ends, tensors))
        input_gradients = [
            next(gradients) if is_wanted else None for is_wanted in self._wanted
        ]
        weight_gradients = []
        for weight, count in zip(own, self._parts, strict=True):
            if count is None:
                gradient = next(gradients).sum_to_size(weight.shape)
            else:
                parts = itertools.islice(gradients, count)
                gradient = torch.stack([part.sum() for part in parts])
            weight_gradients.append(gradient)
        return weight_gradients, input_gradients

    def _without_gaps(self, upstream, timesteps):
        """The gradients of states and outputs, zeros where there are none: a list."""
        batch, *features = self._shape
        filled = []
        for index, gradient in enumerate(upstream):
            shape, dtype = self._kinds[index]
            if index >= self._states:
                shape = (batch, timesteps, *features)
            if gradient is None:
                gradient = torch.zeros(shape, dtype=dtype)
            filled.append(gradient)
        return filled


class _LoopWithDerivative(torch.autograd.Function):
    @staticmethod
    def forward(ctx, derivative, program, ends, counts, *tensors):
        ctx.derivative, ctx.ends, ctx.counts = derivative, ends, counts
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)
        own, arguments, read_weights = counts
        return tuple(program(ends, tensors[own : own + arguments + read_weights]))

    @first_derivative_only
    def backward(ctx, *upstream):
        # Read once: torch.utils.checkpoint returns saved tensors only once.
        saved = ctx.saved_tensors
        remaining = iter(saved)
        own, arguments, _ = (
            list(itertools.islice(remaining, count)) for count in ctx.counts
        )
        weight_gradients, input_gradients = ctx.derivative.gradients(
            ctx.ends, own, arguments, list(remaining), upstream
        )
        gradients = [*weight_gradients, *input_gradients]
        none = [None] * (len(saved) - len(gradients))
        return None, None, None, None, *gradients, *none


def _count_of_parts(shape, input_shape):
    """The length of a vector that is not of neurons, but has a number for each of
    several things; `None` for other weights."""
    try:
        is_of_neurons = torch.broadcast_shapes(shape, input_shape) == input_shape
    except RuntimeError:
        is_of_neurons = False
    return None if is_of_neurons or len(shape) != 1 else shape[0]


def _with_weights_last(step, learned, parts, counts):
    """A step as a function of weights that are not learned, state, inputs, those that
    are, in parts, and valid rows."""

    def with_weights_last(*tensors):
        remaining = iter(tensors)
        fixed, state, inputs = (
            list(itertools.islice(remaining, count)) for count in counts
        )
        own = []
        for count in parts:
            if count is None:
                own.append(next(remaining))
            else:
                own.append(torch.stack(list(itertools.islice(remaining, count))))
        next_own, next_fixed = iter(own), iter(fixed)
        weights = [
            next(next_own if is_learned else next_fixed) for is_learned in learned
        ]
        return step(*weights, *state, *inputs, *remaining)

    return with_weights_last


def _derivative(step, counts, wanted):
    """The derivative of a step: a function of its arguments, and of gradients of its
    results, that returns a list."""

    def derivative(*tensors):
        remaining = iter(tensors)
        weights, state, inputs, valid = (
            list(itertools.islice(remaining, count)) for count in counts
        )
        state = [x.detach().requires_grad_() for x in state]
        inputs = [
            x.detach().requires_grad_(is_wanted)
            for x, is_wanted in zip(inputs, wanted, strict=True)
        ]
        with torch.enable_grad():
            results = step(*weights, *state, *inputs, *valid)
            results = with_tensors(results, [*weights, *state, *inputs])
        results, onto = differentiable_outputs(tree.flatten(results), remaining)
        leaves = [*state, *(x for x in inputs if x.requires_grad)]
        gradients = torch.autograd.grad(
            results, leaves, onto, allow_unused=True, materialize_grads=True
        )
        return list(gradients)

    return derivative
