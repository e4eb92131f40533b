"""A network whose neurons are broken says so: NaN in a membrane would otherwise be silence."""

import functools

from keras import ops

from keras_ratesnn._core import backend, tree


def propagate_nan(outputs, states):
    """The outputs of a network; NaN for the samples that have a neuron in a state that is NaN or infinite.

    A comparison with the threshold turns NaN into silence, and a broken network would train on unseen. A membrane stays
    broken, so that looking at it once, after the last step, finds what happened at any step.

    Args:
        outputs: Structure of tensors `(batch, ...)`.
        states: List of structures of tensors.
    """
    batch = ops.shape(tree.flatten(outputs)[0])[0]
    sound = functools.reduce(ops.logical_and, [_is_sound(state, batch) for state in tree.flatten(states)])
    alarm = ops.where(sound, 0.0, float("nan"))

    def alarmed(output):
        return output + ops.cast(ops.reshape(alarm, (-1, *([1] * (len(output.shape) - 1)))), output.dtype)

    return tree.map_leaves(alarmed, outputs)


def _is_sound(state, batch):
    """`(batch,)`: whether all elements of a sample are finite; `(1,)`, of all samples, where rows are not of samples."""
    rows = state.shape[0] if len(state.shape) else 1
    if isinstance(rows, int) and isinstance(batch, int) and (batch == 0 or rows < batch or rows % batch):
        return backend.finite_rows(state, 1)
    return backend.finite_rows(state, batch)
