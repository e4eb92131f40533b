"""Propagates NaN and infinity in membranes to the outputs, where they would otherwise
look like silence."""

from keras import ops

from keras_ratesnn._core import keras_internals, time_axis, tree
from keras_ratesnn._core.backend import engine


def propagate_nan(outputs, states):
    """Sets outputs to NaN for samples that have a neuron whose state is NaN or
    infinite.

    A comparison with the threshold turns NaN into silence, so the problem would go
    unnoticed in training. A membrane stays NaN or infinite, so checking once, after the
    last step, detects a problem at any step.

    Args:
        outputs: Structure of tensors `(batch, ...)`. An output whose rows are not
            samples becomes NaN if any sample is broken. Integers and booleans cannot be
            NaN and stay unchanged.
        states: List of structures of tensors, without any for a part of a network
            without neurons.
    """
    # Numbers of steps cannot be NaN, and ONNX does not ask integers for it.
    tensors = [
        tensor for tensor in tree.flatten(states) if time_axis.is_float(tensor.dtype)
    ]
    if not tensors:
        return outputs
    alarms = {}

    def alarm(rows):
        samples = [_samples(tensor, rows) for tensor in tensors]
        sound = engine.finite_rows(tensors, samples)
        return ops.where(sound, 0.0, float("nan"))

    def with_alarm(output):
        if not time_axis.is_float(output.dtype):
            return output
        rank = len(output.shape)
        rows = ops.shape(output)[0] if rank else 1
        # If the number of rows is not static, it is a tensor and cannot be a key.
        key = rows if isinstance(rows, int) else None
        if key is None or key not in alarms:
            alarms[key] = alarm(rows)
        shape = (-1, *[1 for _ in output.shape[1:]]) if rank else ()
        after = output + ops.cast(ops.reshape(alarms[key], shape), output.dtype)
        return keras_internals.masked_as(after, output)

    return tree.map_leaves(with_alarm, outputs)


def _samples(state, rows):
    """The number of samples in a state: `rows`, or 1 if the rows are not samples."""
    size = ops.shape(state)[0] if len(state.shape) else 1
    if isinstance(size, int) and isinstance(rows, int):
        return rows if rows and size >= rows and size % rows == 0 else 1
    if not (ops.is_tensor(size) or ops.is_tensor(rows)):
        # While JAX exports a graph, the size of a batch is a symbol, which has no
        # order.
        return rows if size == rows else 1
    # Sizes are known only at run time.
    samples = ops.maximum(rows, 1)
    are_samples = ops.logical_and(size >= samples, size % samples == 0)
    return ops.where(are_samples, samples, 1)
