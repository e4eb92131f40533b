"""Checks of the inputs of a SpikingModel: whether they have a time axis, and errors if they do not fit."""

import warnings

import keras
import numpy as np
from keras import ops

from keras_ratesnn import _graph
from keras_ratesnn._core import keras_internals


def check_inputs(network, inputs, timesteps):
    """Raises ValueError if the number, names or shapes of tensors or arrays do not fit a network.

    Keras would also raise an error, but later and less clearly. Other inputs that Keras accepts are not checked.

    Args:
        network: A Functional model.
        inputs: The inputs passed to Keras: a structure of tensors or arrays, or a data set.
        timesteps: Integer T.
    """
    if not all(isinstance(leaf, (np.ndarray, keras.KerasTensor)) or ops.is_tensor(leaf) for leaf in keras.tree.flatten(inputs)):
        return
    for tensor, wanted in zip(_graph.match_inputs(network, inputs), network.inputs, strict=True):
        has_time(tensor, wanted, timesteps)


def has_time(tensor, wanted, timesteps):
    """Whether an input of a network has a time axis; raises ValueError if neither shape fits.

    Args:
        tensor: Tensor or array.
        wanted: The network's symbolic input.
        timesteps: Integer T.
    """
    if not hasattr(tensor, "shape"):
        raise ValueError(
            f"Input {wanted.name!r} of the network must be a tensor or an array. Received: {tensor!r}, of type "
            f"{type(tensor).__name__}. A SpikingModel needs all inputs of its network, also optional ones."
        )
    if getattr(tensor.shape, "rank", 0) is None:
        raise ValueError(
            f"Input {wanted.name!r} of the network must have a known number of axes, to decide whether one of them is time. "
            "Received: a tensor of unknown rank. Set its shape in the data set: "
            f"tf.ensure_shape(x, {(None, *wanted.shape[1:])}), or {(None, timesteps, *wanted.shape[1:])} with time."
        )
    static, received = tuple(wanted.shape[1:]), tuple(tensor.shape[1:])
    if fits(received, static):
        return False
    if fits(received, (timesteps, *static)):
        return True
    raise ValueError(
        f"Input {wanted.name!r} of the network must have shape {_described(static)}, the same at every step, or "
        f"{_described((timesteps, *static))}, one frame for each of timesteps={timesteps}. Received: shape "
        f"{tuple(tensor.shape)}."
    )


def as_input(tensor, wanted, timesteps):
    """An input of a network: `(tensor, has_time)`, the tensor of the dtype that the network wants, with its Keras mask.

    For the arguments see `has_time`.
    """
    timed = has_time(tensor, wanted, timesteps)
    convert = ops.cast if ops.is_tensor(tensor) else ops.convert_to_tensor
    return keras_internals.put_mask(convert(tensor, dtype=wanted.dtype), keras_internals.mask_of(tensor)), timed


def warn_of_time_in_a_step(network, timesteps):
    """Warns if the input of a network of one time step looks as if it had a time axis.

    There is no warning for square images, whose height may happen to be T.

    Args:
        network: A Functional model.
        timesteps: Integer T.
    """
    for tensor in network.inputs:
        first, *rest = tensor.shape[1:] or (None,)
        if rest and first == timesteps > 1 and (len(rest) == 1 or first != rest[0]):
            warnings.warn(
                f"Input {tensor.name!r} of the network has the shape {tuple(tensor.shape[1:])} of one time step, and its first "
                f"axis is as long as timesteps={timesteps}. If that axis is time, leave it out of the network, "
                f"keras.Input({tuple(rest)}), and still pass data {_described((timesteps, *rest))}: each step then sees its "
                "frame. If it is not time, ignore this warning: every step sees the whole data "
                f"{_described(tensor.shape[1:])}.",
                stacklevel=3,
            )


def one_step(tensor, wanted):
    """Converts an input of a network at one time step to a tensor; raises ValueError if its shape does not fit.

    Args:
        tensor: Tensor or array.
        wanted: The network's symbolic input.
    """
    tensor = ops.convert_to_tensor(tensor, dtype=wanted.dtype)
    if not fits(tensor.shape[1:], wanted.shape[1:]):
        raise ValueError(
            f"Input {wanted.name!r} of the network must have shape {_described(wanted.shape[1:])} in `step`, without time. "
            f"Received: shape {tuple(tensor.shape)}."
        )
    return tensor


def fits(shape, wanted):
    """Whether two shapes are equal where both are known."""
    return len(shape) == len(wanted) and all(b is None or a is None or a == b for a, b in zip(shape, wanted, strict=True))


def _described(shape):
    return "(" + ", ".join(str(size) for size in ("batch", *shape)) + ")"
