"""The inputs of a call: tensors with or without time, and the mask in time."""

from keras import ops

from keras_ratesnn import _graph
from keras_ratesnn._core import keras_internals
from keras_ratesnn._core.backend import engine
from keras_ratesnn._model.input_checks import with_time
from keras_ratesnn._model.time_masks import check_data_hold, masked


def call_inputs(model, inputs, mask=None):
    """The inputs of a call, for `Run`.

    Time starts for each sample at its first step that is not padding: padding before a
    sequence moves to its end. So all that depends on the number of a step (weights of
    steps, encoders, windows) sees what it would see without the padding.

    Args:
        model: A `SpikingModel`. In an unrolled network each frame is shown for several
            time steps.
        inputs: The inputs passed to Keras: a structure of tensors or arrays.
        mask: See `masked`. Defaults to `None`.

    Returns:
        `(pairs, mask, first)`: list of `(tensor, has_time)`; a boolean tensor `(batch,
        T)`, false for padding; and the first step of each sample that is no padding,
        `(batch,)`. The last two are `None` if all steps count.
    """
    substeps = _graph.substeps_of(_graph.as_graph(model.network))
    pairs = with_time(model, inputs)
    check_data_hold(model, pairs, mask)
    pairs = [
        (_as_input(tensor, wanted), timed)
        for (tensor, timed), wanted in zip(pairs, model.inputs, strict=True)
    ]
    pairs, mask = masked(model, pairs, mask)
    if substeps > 1:
        pairs = [
            (_shown(tensor, substeps) if timed else tensor, timed)
            for tensor, timed in pairs
        ]
        mask = None if mask is None else ops.repeat(mask, substeps, axis=1)
    if mask is None:
        return pairs, None, None
    first = ops.argmax(ops.cast(mask, "int32"), axis=1)
    pairs = [
        (starting_at(first, tensor) if timed else tensor, timed)
        for tensor, timed in pairs
    ]
    return pairs, starting_at(first, mask), first


def starting_at(first, steps):
    """All steps, `(batch, T, ...)`, with their Keras mask, in the order that begins
    with the step `first` of each sample."""
    return keras_internals.with_mask(lambda tensor: _rotated(tensor, first), steps)


def _rotated(tensor, first):
    """The steps of a tensor `(batch, T, ...)` from the first one of each sample on,
    `(batch,)`, followed by those before it."""
    timesteps = ops.shape(tensor)[1]
    numbers = ops.arange(timesteps, dtype="int32")[None]
    steps = (numbers + ops.cast(first, "int32")[:, None]) % timesteps
    inner_axes = [1] * (len(tensor.shape) - 2)
    steps = ops.reshape(steps, (-1, timesteps, *inner_axes))
    return engine.steps_of_samples(tensor, steps)


def _as_input(tensor, wanted):
    """A tensor of the dtype that the network wants, with its Keras mask."""
    convert = ops.cast if ops.is_tensor(tensor) else ops.convert_to_tensor
    return keras_internals.masked_as(convert(tensor, dtype=wanted.dtype), tensor)


def _shown(frames, steps):
    """Each frame for so many steps, with its Keras mask."""
    return keras_internals.with_mask(
        lambda tensor: ops.repeat(tensor, steps, axis=1), frames
    )
