"""Checks of the inputs of a SpikingModel, for all that take them: do they have a time
axis, do they fit."""

import numbers
import warnings

import keras
import numpy as np
from keras import ops

from keras_ratesnn import _graph
from keras_ratesnn._core import checks, keras_internals


def check_inputs(model, inputs):
    """Raises ValueError if the number, names, shapes or dtypes of tensors or arrays do
    not fit the network of a model.

    Keras would also raise an error, but later and less clearly. Other inputs that Keras
    accepts are not checked.

    Args:
        model: A `SpikingModel`.
        inputs: The inputs passed to Keras: a structure of tensors or arrays, or a data
            set.
    """
    if are_tensors(inputs, keras.KerasTensor, *_NO_DATA):
        with_time(model, inputs)


def inputs_with_time(model, x):
    """Names of the inputs of a model whose data, tensors or arrays, have a time axis;
    of other data nothing is known."""
    if not are_tensors(x):
        return []
    pairs = zip(with_time(model, x), model.inputs, strict=True)
    return [
        keras_internals.name_of_input(wanted) for (_, timed), wanted in pairs if timed
    ]


def check_data(model, x, least=1):
    """`check_inputs`, and a check that data with values have `least` samples or
    more."""
    check_inputs(model, x)
    if are_tensors(x, keras.KerasTensor):
        _check_samples(keras.tree.flatten(x), least)


def check_batch(model, x):
    """Raises ValueError unless `x` are tensors or arrays that fit a `SpikingModel`,
    with at least one sample."""
    _check_samples([tensor for tensor, _ in with_time(model, x)], least=1)


def match(network, inputs):
    """`match_inputs`, with a clearer error for numbers and strings that are not in an
    array."""
    for leaf in keras.tree.flatten(inputs):
        if isinstance(leaf, (numbers.Number, str, bytes)):
            names = [keras_internals.name_of_input(tensor) for tensor in network.inputs]
            raise ValueError(
                f"The inputs of the network, {names}, must be arrays or tensors. "
                f"Received: {checks.shown(leaf)} of type {type(leaf).__name__}"
                f"{'' if leaf is inputs else ', in a list'}. "
                "Convert lists of numbers with np.asarray."
            )
    return _graph.match_inputs(network, inputs)


def with_time(model, inputs):
    """Tensors or arrays that fit a model, in the order of its inputs: pairs of each and
    whether it has a time axis.

    For the arguments and errors see `check_inputs`.
    """
    network = _graph.as_graph(model.network)
    substeps = _graph.substeps_of(network)
    return [
        (x, _has_time(x, wanted, model.timesteps // substeps, substeps))
        for x, wanted in zip(match(network, inputs), network.inputs, strict=True)
    ]


def _check_samples(tensors, least):
    sizes = [
        None if isinstance(tensor, keras.KerasTensor) else tensor.shape[0]
        for tensor in tensors
    ]
    if len(set(sizes)) > 1 or any(size is None or size < least for size in sizes):
        received = [
            "a symbolic tensor" if size is None else f"{size} samples" for size in sizes
        ]
        raise ValueError(
            "`x` must have samples, at least one, and the same number in all arrays. "
            f"Received: {', '.join(received)}."
        )


def are_tensors(structure, *types):
    """Whether all leaves of a structure are tensors, arrays, or of these types."""
    return all(
        isinstance(leaf, (np.ndarray, *types)) or ops.is_tensor(leaf)
        for leaf in keras.tree.flatten(structure)
    )


_NO_DATA = (type(None), numbers.Number, str, bytes)
"""Types that Keras would not take for data either."""


def _has_time(tensor, wanted, timesteps, substeps):
    name = keras_internals.name_of_input(wanted)
    _check_numbers(tensor, wanted)
    if getattr(tensor.shape, "rank", 0) is None:
        raise ValueError(
            f"Input {name!r} of the network must have a known number of axes, to "
            "decide whether one of them is time. Received: a tensor of unknown rank. "
            "Set its shape in the data set: tf.ensure_shape(x, "
            f"{(None, *wanted.shape[1:])}), or {(None, timesteps, *wanted.shape[1:])} "
            "with time."
        )
    static = tuple(wanted.shape[1:])
    timed = (timesteps, *static)
    shape = tuple(tensor.shape)
    if shape and checks.fits(shape[1:], static):
        return False
    if checks.fits(shape[1:], timed):
        return True
    advice = "" if None in shape else _advice(shape, static, timed, substeps)
    raise ValueError(
        f"Input {name!r} of the network must have shape {_described(static)}, the same "
        f"at every step, or {_described(timed)}, one frame for each of "
        f"timesteps={timesteps}. Received: shape {shape}.{advice}"
    )


_MOVES = ((0, 1), (1, -1), (2, -1))
"""The batch behind time, and channels behind pixels, without time and with it."""


def _advice(shape, static, timed, substeps):
    """Advice for data that have their axes in another order, or another T."""
    advice = ""
    for source, target in _MOVES:
        if len(shape) > max(source, 1):
            moved = np.moveaxis(np.broadcast_to(0, shape), source, target).shape[1:]
            if checks.fits(moved, static) or checks.fits(moved, timed):
                advice += (
                    " Are its axes in another order? Pass "
                    f"np.moveaxis(x, {source}, {target})."
                )
    if checks.fits(shape[2:], static):
        steps = shape[1] * substeps
        advice += f" Has it {steps} time steps? Set model.timesteps = {steps}."
    return advice


def warn_of_time_in_a_step(model):
    """Warns if the input of the network of a model looks as if it had a time axis.

    There is no warning for square images, whose height may happen to be T.
    """
    timesteps = model.timesteps
    for tensor in model.inputs:
        first, *rest = tensor.shape[1:] or (None,)
        if rest and first == timesteps > 1 and (len(rest) == 1 or first != rest[0]):
            name = keras_internals.name_of_input(tensor)
            warnings.warn(
                f"Input {name!r} of the network has the shape "
                f"{tuple(tensor.shape[1:])} of one time step, and its first axis is as "
                f"long as timesteps={timesteps}. If that axis is time, leave it out of "
                f"the network, keras.Input({tuple(rest)}), and still pass data "
                f"{_described((timesteps, *rest))}: each step then sees its frame. If "
                "it is not time, ignore this warning: every step sees the whole data "
                f"{_described(tensor.shape[1:])}.",
                stacklevel=3,
            )


def one_step(tensor, wanted):
    """Copies an input of a network at one time step to a tensor; raises ValueError if
    its shape or dtype does not fit.

    Args:
        tensor: Tensor or array.
        wanted: The network's symbolic input.
    """
    _check_numbers(tensor, wanted)
    if (
        isinstance(tensor, keras.KerasTensor)
        or not len(tensor.shape)
        or not checks.fits(tensor.shape[1:], wanted.shape[1:])
    ):
        raise ValueError(
            f"Input {keras_internals.name_of_input(wanted)!r} of the network must have "
            f"shape {_described(wanted.shape[1:])} in `step`, without time, and "
            f"values. Received: {type(tensor).__name__} of shape {tuple(tensor.shape)}."
        )
    # A layer may keep it as its state, and the caller may fill the same array again.
    if isinstance(tensor, np.ndarray):
        return ops.convert_to_tensor(tensor.copy(), dtype=wanted.dtype)
    return ops.copy(ops.convert_to_tensor(tensor, dtype=wanted.dtype))


def _check_numbers(tensor, wanted):
    """Raises ValueError unless an input is a tensor or array of real numbers, or of the
    dtype that the network wants."""
    name = keras_internals.name_of_input(wanted)
    if not hasattr(tensor, "shape"):
        raise ValueError(
            f"Input {name!r} of the network must be a tensor or an array. Received: "
            f"{tensor!r}, of type {type(tensor).__name__}. A SpikingModel needs all "
            "inputs of its network, also optional ones."
        )
    # A layer for texts takes what TensorFlow takes for them.
    if (
        wanted.dtype != "string"
        and not checks.holds_numbers(tensor)
        and str(tensor.dtype) != wanted.dtype
    ):
        raise ValueError(
            f"Input {name!r} of the network must hold real numbers. Received: an array "
            f"of dtype {tensor.dtype}. Convert it, for example with "
            "x.astype('float32'); of complex numbers pass both parts, as two channels."
        )


def _described(shape):
    return "(" + ", ".join(str(size) for size in ("batch", *shape)) + ")"
