"""The derivative of a time loop: the states again, and then the steps backwards, in one
program."""

import functools
import itertools

import torch

from keras_ratesnn._core import tree
from keras_ratesnn._core.backend.torch.derivative import first_derivative_only
from keras_ratesnn._core.backend.torch.time_loops import text
from keras_ratesnn._core.backend.torch.time_loops.programs import Numbered
from keras_ratesnn._core.backend.torch.time_loops.tracing import traced, with_tensors


class Derivative:
    """The gradients with respect to inputs and to learned weights.

    Args:
        steps: As in `TimeLoop`, like the next arguments.
        weights: List of tensors.
        state: List of tensors, of the shapes and dtypes that they have after each step.
        inputs: List of tensors.
        valid: List of one tensor, or empty.
        learned: For each weight, whether it wants a gradient.
        wanted: For each input, whether it wants one.
        same: For each input, whether it is the same at every step.
        results: List of tensors like the results of a step: states and outputs.
        numbers: List of the numbers that the state is at the beginning, or `None`.
    """

    def __init__(
        self,
        steps,
        weights,
        state,
        inputs,
        valid,
        learned,
        wanted,
        same,
        results,
        numbers,
    ):
        self._learned, self._wanted, self._states = learned, wanted, len(state)
        self._shape, self._kinds = (
            inputs[0].shape,
            [(x.shape, text.stored(x.dtype)) for x in results],
        )
        own, others = self.parted(weights)
        self._parts = [_count_of_parts(weight.shape, self._shape) for weight in own]
        # A weight is one number for each neuron, like an input that is the same at
        # every step: sums come later.
        of_neurons = self._of_neurons(own)
        arguments = [*others, *state, *inputs, *of_neurons, *valid]
        counts = [len(others), len(state), len(inputs) + len(of_neurons), len(valid)]
        wanted, same = (
            [*wanted, *(True for _ in of_neurons)],
            [*same, *(True for _ in of_neurons)],
        )
        steps = [
            _with_weights_last(step, learned, self._parts, [*counts[:2], len(inputs)])
            for step in steps
        ]
        modules = [traced(step, arguments) for step in steps]
        arguments += [torch.zeros(x.shape, dtype=x.dtype) for x in results]
        derivatives = [
            traced(_derivative(step, counts, wanted), arguments) for step in steps
        ]
        groups = [*counts, len(state), len(results) - len(state)]
        are_same = [
            is_same
            for is_same, is_wanted in zip(same, wanted, strict=True)
            if is_wanted
        ]
        likes = text.results_of(derivatives[0])[len(state) :]

        def program(has_of_state):
            written = text.TextOfDerivative(
                modules,
                derivatives,
                self._shape,
                groups,
                numbers,
                are_same,
                has_of_state,
            )
            return Numbered(
                written,
                self._shape,
                [(x, not is_same) for x, is_same in zip(likes, are_same, strict=True)],
            )

        self._program = functools.cache(program)
        # The other one is for states that go on.
        self._program(False)

    def parted(self, weights):
        """Those that are learned, and the others: two lists."""
        pairs = [*zip(weights, self._learned, strict=True)]
        own, others = (
            [weight for weight, is_learned in pairs if is_learned == wanted]
            for wanted in (True, False)
        )
        return own, others

    def _of_neurons(self, own):
        """The learned weights as one number for each neuron, or several: a list."""
        parts = [
            [weight] if count is None else weight.unbind()
            for weight, count in zip(own, self._parts, strict=True)
        ]
        return [
            part.expand(self._shape) for part in itertools.chain.from_iterable(parts)
        ]

    def run(self, program, ends, weights, arguments, of_weights):
        """The results of the `Numbered` program of the steps, given its arguments, of
        which the last are those of weights."""
        own, others = self.parted(weights)
        of_others = self._program(False).of_weights(others)
        counts = len(own), len(arguments), len(of_weights)
        return _Differentiable.apply(
            self, program, ends, counts, *own, *arguments, *of_weights, *of_others
        )

    def gradients(self, ends, own, arguments, of_others, upstream):
        """The gradients of own weights and of inputs: two lists, with `None` for inputs
        that want none."""
        first = (
            self._states
            if all(gradient is None for gradient in upstream[: self._states])
            else 0
        )
        batch, *others = self._shape
        given = [
            gradient
            if gradient is not None
            else torch.zeros(
                shape if index < self._states else (batch, ends[-1], *others),
                dtype=dtype,
            )
            for index, (gradient, (shape, dtype)) in enumerate(
                zip(upstream, self._kinds, strict=True)
            )
        ]
        inputs, valid = arguments[: len(self._wanted)], arguments[len(self._wanted) :]
        of_neurons = self._of_neurons(
            [weight.to(text.stored(weight.dtype)) for weight in own]
        )
        tensors = [*inputs, *of_neurons, *valid, *given[first:], *of_others]
        found = iter(self._program(not first)(ends, tensors))
        of_inputs = [next(found) if is_wanted else None for is_wanted in self._wanted]
        of_own = [
            next(found).sum_to_size(weight.shape)
            if count is None
            else torch.stack([next(found).sum() for _ in range(count)])
            for weight, count in zip(own, self._parts, strict=True)
        ]
        return of_own, of_inputs


class _Differentiable(torch.autograd.Function):
    @staticmethod
    def forward(ctx, derivative, program, ends, counts, *tensors):
        ctx.derivative, ctx.ends, ctx.counts = derivative, ends, counts
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)
        own, arguments, of_weights = counts
        return tuple(program(ends, tensors[own : own + arguments + of_weights]))

    @first_derivative_only
    def backward(ctx, *upstream):
        # Read once: torch.utils.checkpoint returns saved tensors only once.
        remaining = iter(saved := ctx.saved_tensors)
        own, arguments, _ = (
            list(itertools.islice(remaining, count)) for count in ctx.counts
        )
        of_own, of_inputs = ctx.derivative.gradients(
            ctx.ends, own, arguments, list(remaining), upstream
        )
        others = len(saved) - len(of_own) - len(of_inputs)
        return (
            None,
            None,
            None,
            None,
            *of_own,
            *of_inputs,
            *(None for _ in range(others)),
        )


def _count_of_parts(shape, of_neurons):
    """The length of a vector that is not of neurons, but has a number for each of
    several things; `None` for other weights."""
    try:
        is_of_neurons = torch.broadcast_shapes(shape, of_neurons) == of_neurons
    except RuntimeError:
        is_of_neurons = False
    return None if is_of_neurons or len(shape) != 1 else shape[0]


def _with_weights_last(step, learned, parts, counts):
    """A step as a function of weights that are not learned, state, inputs, those that
    are, in parts, and valid rows."""

    def with_weights_last(*tensors):
        remaining = iter(tensors)
        others, state, inputs = (
            list(itertools.islice(remaining, count)) for count in counts
        )
        own = [
            next(remaining)
            if count is None
            else torch.stack(list(itertools.islice(remaining, count)))
            for count in parts
        ]
        of_kind = {True: iter(own), False: iter(others)}
        weights = [next(of_kind[is_learned]) for is_learned in learned]
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
            results = tree.flatten(
                with_tensors(
                    step(*weights, *state, *inputs, *valid), [*weights, *state, *inputs]
                )
            )
        pairs = [
            (result, upstream)
            for result, upstream in zip(results, remaining, strict=True)
            if result.requires_grad
        ]
        of = [*state, *(x for x in inputs if x.requires_grad)]
        found, onto = (
            [result for result, _ in pairs],
            [upstream for _, upstream in pairs],
        )
        return list(
            torch.autograd.grad(
                found, of, onto, allow_unused=True, materialize_grads=True
            )
        )

    return derivative
