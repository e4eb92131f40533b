"""Time loops of small neuron layers in C++: all steps in one operation, in which the states of neurons stay in fast memory.

PyTorch's compiler writes out every time step, so that it takes longer for larger T. Here one step is traced, and written as the
body of a loop, in a program for any sizes and number of steps, which compiles in less than a second; so is its derivative with
respect to inputs and weights. There is none for steps with other operations than those in `text.py`.
"""

import functools
import itertools
import math

import torch
from torch.fx.experimental.proxy_tensor import make_fx

from keras_ratesnn._core import tree
from keras_ratesnn._core.backend.torch.derivative import first_derivative_only
from keras_ratesnn._core.backend.torch.recorder.compiler import lock
from keras_ratesnn._core.backend.torch.recorder.graph_passes import draws
from keras_ratesnn._core.backend.torch.time_loops import programs, text
from keras_ratesnn._core.backend.torch.time_loops.text import HALF as HALF


class TimeLoop:
    """Any number of steps of neurons as one operation, for tensors of these shapes.

    Args:
        steps: List of functions of the tensors of these lists, one after the other, that return a structure `(state, outputs)`
            of tensors: one time step of each phase, element-wise.
        begin: Function of weights and inputs that returns the state before the first step.
        finish: Function of weights and the last state that returns what takes its place, or `None`.
        weights: List of tensors that broadcast to the inputs.
        state: List of tensors, that state.
        inputs: List of tensors `(batch, ...)`, those of one step.
        valid: List of one boolean tensor `(batch,)`, or empty.
        learned: For each weight, whether it wants a gradient.
        wanted: For each input, whether it wants a gradient.
        same: For each input, whether it is the same at every step.

    Attributes:
        begins_with_numbers: Boolean, whether the state at the beginning is a part of the program.
        finishes: Boolean, whether `finish` is.
        program: The `_Numbered` program of the steps.
        derivative: Function that returns the program of gradients, given whether the last state has some; or `None`.
        wanted: For each input, each weight that is learned, and what is valid, whether it wants a gradient.
        shape: Tuple, that of the inputs of one step.
        valid: Integer, the number of tensors of valid rows.
        states: Integer, the number of tensors of the last state.

    Raises:
        ValueError: If a step has operations for which there is no text.
        Exception: Any other, if there is no compiler, or if it fails.
    """

    def __init__(self, steps, begin, finish, weights, state, inputs, valid, learned, wanted, same):
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
                shapes = [_of_program(new.shape, inputs[0].shape) for new in changed]
                state = [old.to(new.dtype).expand(shape) for old, new, shape in zip(state, changed, shapes, strict=False)]
            if len(set(map(_kinds, after))) > 1 or changed is not None:
                raise ValueError("the results of steps differ in their shapes or dtypes")
            results, end = [(x, index >= len(state)) for index, x in enumerate(after[0])], None
            if finish is not None:
                end = _traced(finish, [*weights, *state])
                results = [*((x, False) for x in text.results_of(end)), *results[len(state) :]]
                of_last = tree.map_leaves(lambda leaf: None, finish(*weights, *state))
                self._structure = of_last, self._structure[1]
            derivatives = []
            if any((*learned, *wanted)):
                # A weight is one number for each neuron, like an input that is the same at every step: sums come later.
                own = [
                    weight.expand(inputs[0].shape) for weight, is_learned in zip(weights, learned, strict=True) if is_learned
                ]
                others = [weight for weight, is_learned in zip(weights, learned, strict=True) if not is_learned]
                wanted, same = [*wanted, *(True for _ in own)], [*same, *(True for _ in own)]
                of_inputs = [*others, *state, *inputs, *own, *valid]
                steps = [_of_neurons(step, learned, [len(others), len(state), len(inputs)]) for step in steps]
                of_steps = [len(others), len(state), len(wanted), len(valid)]
                states_again = [_traced(step, of_inputs) for step in steps]
                upstream = [torch.zeros(x.shape, dtype=x.dtype) for x in after[0]]
                functions = [_derivative(step, of_steps, wanted) for step in steps]
                derivatives = [_traced(function, [*of_inputs, *upstream]) for function in functions]
        self.begins_with_numbers, self.finishes = numbers is not None, finish is not None
        self._state = [] if self.begins_with_numbers else _kinds(state)
        self._dtypes = [result.dtype for result, _ in results]
        self.shape, self.valid = tuple(inputs[0].shape), len(valid)
        shape = self.shape
        self.program = _Numbered(text.TextOfSteps(modules, end, shape, groups, numbers), shape, results)
        self.derivative = None
        if derivatives:
            groups = [*of_steps, len(state), len(after[0]) - len(state)]
            same = [is_same for is_same, is_wanted in zip(same, wanted, strict=True) if is_wanted]
            likes = text.results_of(derivatives[0])[len(state) :]

            @functools.cache
            def derivative(has_of_state):
                written = text.TextOfDerivative(states_again, derivatives, shape, groups, numbers, same, has_of_state)
                return _Numbered(written, shape, [(x, not is_same) for x, is_same in zip(likes, same, strict=True)])

            # The other one is for states that go on.
            derivative(False)
            self.derivative = derivative
        self._learned, self.wanted, self.states = learned, [*wanted, *(False for _ in valid)], len(state)

    def __call__(self, weights, state, inputs, valid, ends):
        """`(state, outputs)` after all steps.

        The lists are as in the constructor, but `state` is empty if the program `begins_with_numbers`, and time is the second
        axis of `valid`, of outputs, and of inputs unless they are the same at every step. `ends` has the number of the steps up
        to the end of each phase.
        """
        state = [tensor.to(dtype).expand(shape) for tensor, (shape, dtype) in zip(state, self._state, strict=True)]
        tensors = [x.to(text.stored(x.dtype)) for x in (*state, *inputs, *valid)]
        with torch.no_grad():
            of_weights = self.program.of_weights(weights)
        if self.derivative is None:
            found = self.program(ends, [*tensors, *of_weights])
        else:
            pairs = [*zip(weights, self._learned, strict=True)]
            own, others = ([weight for weight, is_learned in pairs if is_learned == wanted] for wanted in (True, False))
            with torch.no_grad():
                of_weights += self.derivative(False).of_weights(others)
            found = _Differentiable.apply(self, ends, len(own), *own, *tensors, *of_weights)
        return tree.filled(self._structure, [x.to(dtype) for x, dtype in zip(found, self._dtypes, strict=True)])


class _Numbered:
    """A compiled program, which an operation knows by its number.

    Args:
        written: `text.Text`.
        shape: Tuple, that of the inputs of one step.
        results: List of pairs: a tensor like a result of one step, and whether there is one for each step.

    Attributes:
        reads: Integer, how many tensors it takes.
    """

    def __init__(self, written, shape, results):
        self._of_weights, self.reads = written.of_weights, len(written.axes)
        kinds = tuple((tuple(x.shape), text.stored(x.dtype), has_steps) for x, has_steps in results)
        self._number, self._is_one = programs.number_of(str(written), shape, tuple(written.axes), kinds), len(kinds) == 1

    def of_weights(self, weights):
        """The last of the tensors that it takes."""
        return [x.to(text.stored(x.dtype)) for x in self._of_weights(*weights)]

    def __call__(self, ends, tensors):
        """The results, a list."""
        # The operation takes only what is read: a derivative may have further weights.
        tensors = tensors[: self.reads]
        if self._is_one:
            return [torch.ops.keras_ratesnn.time_loop_of_one.default(self._number, ends, tensors)]
        return torch.ops.keras_ratesnn.time_loop.default(self._number, ends, tensors)


class _Differentiable(torch.autograd.Function):
    @staticmethod
    def forward(ctx, loop, ends, learned, *tensors):
        results = loop.program(ends, tensors[learned:])
        ctx.loop, ctx.ends, ctx.learned, ctx.results = loop, ends, learned, _kinds(results)
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)
        return tuple(results)

    @first_derivative_only
    def backward(ctx, *upstream):
        loop, first = ctx.loop, 0
        own, tensors = ctx.saved_tensors[: ctx.learned], ctx.saved_tensors[ctx.learned :]
        if all(gradient is None for gradient in upstream[: loop.states]):
            first = loop.states
        pairs = [*zip(upstream, ctx.results, strict=True)][first:]
        given = [torch.zeros(shape, dtype=dtype) if x is None else x for x, (shape, dtype) in pairs]
        # A program reads features that are one after the other.
        of_neurons = [weight.to(text.stored(weight.dtype)).expand(loop.shape) for weight in own]
        inputs = len(loop.wanted) - len(own)
        read = [*tensors[: inputs - loop.valid], *of_neurons, *tensors[inputs - loop.valid : inputs]]
        found = iter(loop.derivative(not first)(ctx.ends, [*read, *given, *tensors[loop.program.reads :]]))
        of_inputs = [next(found) if is_wanted else None for is_wanted in loop.wanted[: inputs - loop.valid]]
        sums = [gradient.sum_to_size(weight.shape) for gradient, weight in zip(found, own, strict=True)]
        return None, None, None, *sums, *of_inputs, *(None for _ in tensors[len(of_inputs) :])


def _of_neurons(step, learned, counts):
    """A step as a function of weights that are not learned, state, inputs, those that are, and valid rows."""

    def of_neurons(*tensors):
        remaining = iter(tensors)
        others, state, inputs = (list(itertools.islice(remaining, count)) for count in counts)
        of_kind = {True: iter(list(itertools.islice(remaining, sum(learned)))), False: iter(others)}
        weights = [next(of_kind[is_learned]) for is_learned in learned]
        return step(*weights, *state, *inputs, *remaining)

    return of_neurons


def _derivative(step, groups, wanted):
    """The derivative of a step: a function of its arguments, and of gradients of its results, that returns a list."""

    def derivative(*tensors):
        remaining = iter(tensors)
        weights, state, inputs, valid = (list(itertools.islice(remaining, count)) for count in groups)
        state = [x.detach().requires_grad_() for x in state]
        inputs = [x.detach().requires_grad_(is_wanted) for x, is_wanted in zip(inputs, wanted, strict=True)]
        with torch.enable_grad():
            results = tree.flatten(with_tensors(step(*weights, *state, *inputs, *valid), [*weights, *state, *inputs]))
        pairs = [(result, upstream) for result, upstream in zip(results, remaining, strict=True) if result.requires_grad]
        of = [*state, *(x for x in inputs if x.requires_grad)]
        found, onto = [result for result, _ in pairs], [upstream for _, upstream in pairs]
        return list(torch.autograd.grad(found, of, onto, allow_unused=True, materialize_grads=True))

    return derivative


_MOST_KINDS_OF_STATES = 8
"""How often the shapes and dtypes of a state may change before those of all steps are found."""


def _of_program(shape, full):
    """The shape of a state in a program: one number, one for each sample, or one for each neuron of each sample."""
    is_row = len(shape) and shape[0] == full[0] and math.prod(shape[1:]) == 1
    return full if len(shape) and not is_row else shape


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
