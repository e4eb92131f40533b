"""A network whose neurons are broken says so: NaN in a membrane would otherwise be silence."""

import functools

from keras import ops

from keras_ratesnn._core import backend, time_axis, tree


def propagate_nan(outputs, states):
    """The outputs of a network; NaN for the samples that have a neuron in a state that is NaN or infinite.

    A comparison with the threshold turns NaN into silence, and a broken network would train on unseen. A membrane stays
    broken, so that looking at it once, after the last step, finds what happened at any step.

    Args:
        outputs: Structure of tensors `(batch, ...)`. One whose rows are not of samples is NaN if any sample is broken;
            integers and booleans, which know no NaN, stay as they are.
        states: List of structures of tensors.
    """
    alarms = {}

    def alarm(rows):
        sound = functools.reduce(ops.logical_and, [_is_sound(state, rows) for state in tree.flatten(states)])
        return ops.where(sound, 0.0, float("nan"))

    def alarmed(output):
        if not time_axis.is_float(output.dtype):
            return output
        rank = len(output.shape)
        rows = ops.shape(output)[0] if rank else 1
        # A tensor, where rows are not known, is no key.
        key = rows if isinstance(rows, int) else None
        if key is None or key not in alarms:
            alarms[key] = alarm(rows)
        return output + ops.cast(ops.reshape(alarms[key], (-1, *([1] * (rank - 1))) if rank else ()), output.dtype)

    return tree.map_leaves(alarmed, outputs)


def _is_sound(state, rows):
    """`(rows,)`: whether all elements of a sample are finite; `(1,)`, of all samples, where rows are not of samples."""
    of_state = ops.shape(state)[0] if len(state.shape) else 1
    if isinstance(of_state, int) and isinstance(rows, int):
        return backend.finite_rows(state, rows if rows and of_state >= rows and of_state % rows == 0 else 1)
    # Not known before run time: as many parts.
    parts = ops.maximum(rows, 1)
    of_samples = ops.logical_and(of_state >= parts, of_state % parts == 0)
    return backend.finite_rows(state, ops.where(of_samples, parts, 1))
