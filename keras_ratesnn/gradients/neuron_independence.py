"""Checks that a cell acts on each neuron independently, which one eligibility per
neuron requires."""

import numpy as np
from keras import ops

from keras_ratesnn._core import keras_internals, tree
from keras_ratesnn._core.backend import engine

_BATCH = 3
_UNKNOWN_SIZE = 4
_ADVICE = (
    "The rate gradient keeps one eligibility per neuron, so a step must act on each "
    'neuron independently. Train with gradient="bptt", or make the connections between '
    "neurons a layer of the network."
)
_MIXES = f"mixes neurons in its step: {{}} of one neuron changes another. {_ADVICE}"
_CHANGES = (
    "gives other outputs when its step is called again with the same inputs, state and "
    "weights. The rate gradient differentiates the step apart from the forward pass. "
    "Draw random numbers with keras.random and a keras.random.SeedGenerator of the "
    'cell, which draw the same ones there, or train with gradient="bptt".'
)


def check(neuron):
    """Raises ValueError if the step of a neuron layer's cell mixes neurons, or gives
    other outputs when it is called again.

    The check changes some elements of the input, state and weights, and tests whether
    other neurons change. It uses random weights and states, because recurrent weights
    that start at zero, or a state at rest, would hide mixing.

    Args:
        neuron: A built `keras_ratesnn.layers.Neuron`.
    """
    shape = neuron.get_build_config()["input_shape"]
    shape = (_BATCH, *(_UNKNOWN_SIZE if size is None else size for size in shape[1:]))
    cell = neuron.cell.independent_cell()
    for weight, value in cell.weight_parts():
        if not _broadcasts(tuple(value.shape), (1, *shape[1:])):
            raise ValueError(
                f"Weight {getattr(weight, 'name', weight)!r} of cell "
                f"{type(cell).__name__} in layer {neuron.name!r} must broadcast to the "
                f"membrane. Received: a weight of shape {tuple(value.shape)} for "
                f"neurons of shape {shape[1:]}. {_ADVICE}"
            )
    with engine.no_gradient():
        for seed in range(2):
            random = np.random.default_rng(seed)
            fault = _fault(cell, shape, neuron.compute_dtype, random)
            if fault is not None:
                raise ValueError(
                    f"Cell {type(cell).__name__} of layer {neuron.name!r} {fault}"
                )


def _fault(cell, shape, dtype, random):
    """The fault of the step of a cell, and the remedy; `None` if it has none."""

    def shifted(tensor, low, high, where=True):
        return tensor + ops.convert_to_tensor(
            random.uniform(low, high, tuple(tensor.shape)) * where, tensor.dtype
        )

    inputs = shifted(ops.zeros(shape, dtype), -1.0, 2.0)
    at_rest = cell.initial_state(inputs)
    state = [
        shifted(leaf, -1.0, 1.0) if tree.is_float(leaf) else leaf
        for leaf in tree.flatten(at_rest)
    ]
    values = keras_internals.values_of(cell.variables)
    values = [
        shifted(value, 0.1, 1.0) if v.trainable else value
        for v, value in zip(cell.variables, values, strict=True)
    ]

    def step(inputs, state, values):
        given = zip(cell.variables, values, strict=True)
        with keras_internals.Closed(given, engine.assigned_weight):
            _, *outputs = cell.step(inputs, tree.filled(at_rest, state))
        return tree.flatten(outputs)

    before = step(inputs, state, values)
    if not _same(before, step(inputs, state, values), np.ones(shape, bool)):
        return _CHANGES
    changed = random.uniform(size=shape) < 0.5
    if not _same(
        before, step(shifted(inputs, 0.5, 1.5, changed), state, values), ~changed
    ):
        return _MIXES.format("the input")
    for index, leaf in enumerate(state):
        if tree.is_float(leaf) and tuple(leaf.shape) == shape:
            moved = [
                *state[:index],
                shifted(leaf, 0.5, 1.5, changed),
                *state[index + 1 :],
            ]
            if not _same(before, step(inputs, moved, values), ~changed):
                return _MIXES.format("the state")
    # Weights that act on all neurons in parts have been found to broadcast.
    whole = {id(weight) for weight, _ in cell.weight_parts()}
    for index, (variable, value) in enumerate(zip(cell.variables, values, strict=True)):
        part = random.uniform(size=tuple(value.shape)) < 0.5
        if id(variable) in whole and part.size > 1:
            moved = [
                *values[:index],
                shifted(value, 0.5, 1.5, part),
                *values[index + 1 :],
            ]
            if not _same(
                before, step(inputs, state, moved), ~np.broadcast_to(part, shape)
            ):
                return _MIXES.format(f"weight {variable.name!r}")
    return None


def _same(before, after, where):
    """Whether outputs of neurons are the same `where` given, and other outputs are the
    same everywhere."""

    def equal(old, new):
        same = ops.logical_or(old == new, ops.logical_and(old != old, new != new))
        return ops.all(
            ops.logical_or(same, ops.convert_to_tensor(~where))
            if tuple(old.shape) == where.shape
            else same
        )

    return all(bool(equal(old, new)) for old, new in zip(before, after, strict=True))


def _broadcasts(shape, target):
    try:
        return np.broadcast_shapes(shape, target) == target
    except ValueError:
        return False
