"""What a neuron does to single elements, as one pass over memory where a backend does not make one by itself."""

import functools

import keras
from keras import ops

from keras_ratesnn._core import backend, keras_internals, time_axis, tree

LONGEST = 16
"""Up to this T a whole time loop is one pass; a longer one is a pass for each step, for compilers take time for each."""

_OF_EVERY_LAYER = frozenset(vars(keras.layers.Layer(name="any")))
"""Attributes, a name among them, that say nothing of a step."""


def call(function, cell, key, *arguments):
    """`function(*arguments)`, compiled into one pass where that pays.

    Args:
        function: Takes what `arguments` are and returns a structure of tensors and numbers. It reads the cell's weights and no
            others, and changes nothing.
        cell: The `NeuronCell` whose passes it makes.
        key: Hashable, what else decides what the function does.
        *arguments: Structures of tensors and numbers.
    """
    weights = cell.weights
    if len(cell.variables) > len(weights):
        # Variables that are not weights, those of a random generator, say, change.
        return function(*arguments)
    leaves = tree.flatten(arguments)
    with keras_internals.without_autocast():
        tensors = [ops.convert_to_tensor(weight) for weight in weights]
    tensors += filter(ops.is_tensor, leaves)

    def whole_key():
        numbers = tuple(None if ops.is_tensor(leaf) else leaf for leaf in leaves)
        return type(cell), key, numbers, repr(_settings(cell))

    if not backend.fuses(whole_key, tensors) or _has_arrays(cell):
        return function(*arguments)

    def of_tensors(*tensors):
        remaining = iter(tensors)
        mapping = [(weight, next(remaining)) for weight in weights]
        inside = tree.map_leaves(lambda leaf: next(remaining) if ops.is_tensor(leaf) else leaf, arguments)
        with keras.StatelessScope(mapping):
            return function(*inside)

    return backend.fuse(of_tensors, cell, whole_key(), tensors)


def through_time(start, advance, finish, cell, key, current, timesteps):
    """A neuron cell through all time steps, one after the other.

    Args:
        start: Function from the input current of the first step to what is `carried` from step to step.
        advance: Function `(at_step, carried) -> (spikes, carried)`, of a step's input current.
        finish: Function from what the last step left to what is wanted of it.
        cell: The `NeuronCell`.
        key: Hashable, what else decides what these functions do.
        current: `Signal`, the input current.
        timesteps: Integer T.

    Returns:
        `(spikes, carried)`: the spikes of all steps, `(batch, T, ...)`, and what `finish` made of it.
    """

    def whole(steps):
        at_steps = [steps] * timesteps if current.static else ops.unstack(steps, timesteps, axis=1)
        return _steps(start, advance, finish, at_steps)

    if timesteps <= LONGEST:
        steps = current.steps if current.static else time_axis.unfold(current.steps, timesteps)
        return call(whole, cell, (*key, timesteps, current.static), steps)
    fused = functools.partial(call, advance, cell, (*key, "step"))
    return _steps(start, fused, finish, current.each_step(timesteps))


def _steps(start, advance, finish, at_steps):
    carried, spikes = start(at_steps[0]), []
    for at_step in at_steps:
        at_this_step, carried = advance(at_step, carried)
        spikes.append(at_this_step)
    return ops.stack(spikes, axis=1), finish(carried)


def _settings(cell):
    """What a cell can be set to between two calls: its public attributes, without weights, which are given as tensors."""
    return {
        name: value
        for name, value in vars(cell).items()
        if not (name.startswith("_") or name in _OF_EVERY_LAYER or isinstance(value, keras.Variable))
    }


def _has_arrays(cell):
    """Whether a cell can be set to something by changing it in place."""
    return any(hasattr(leaf, "shape") for leaf in tree.flatten(list(_settings(cell).values())))
