"""What a SpikingModel takes for inputs: which of them have a time axis, and what is said of those that do not fit."""

import warnings

import keras
import numpy as np
from keras import ops

from keras_ratesnn import _graph


def check_inputs(network, inputs, timesteps):
    """Raises ValueError if tensors or arrays do not fit a network, in number, name or shape.

    Keras would say it too, later and among words of its own. Anything else that Keras takes is let through.

    Args:
        network: A Functional model.
        inputs: What Keras was given: a structure of tensors or arrays, or a data set.
        timesteps: Integer T.
    """
    if not all(isinstance(leaf, (np.ndarray, keras.KerasTensor)) or ops.is_tensor(leaf) for leaf in keras.tree.flatten(inputs)):
        return
    for tensor, wanted in zip(_graph.match_inputs(network, inputs), network.inputs, strict=True):
        has_time(tensor, wanted, timesteps)


def has_time(tensor, wanted, timesteps):
    """Whether an input `(batch, ...)` of a network came with a time axis; ValueError if neither shape fits.

    Args:
        tensor: Tensor or array.
        wanted: The network's symbolic input.
        timesteps: Integer T.
    """
    if getattr(tensor.shape, "rank", 0) is None:
        raise ValueError(
            f"Input {wanted.name!r} of the network must have a known number of axes, which says whether one of them is time. "
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


def warn_of_time_in_a_step(network, timesteps):
    """Warns if the shape of an input looks as if it had a time axis, which a network of one time step has not.

    Square images are let pass: their height may well be T.

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
                f"keras.Input({tuple(rest)}), and give data {_described((timesteps, *rest))} all the same: each frame is then "
                "seen at its step. If it is not time, all is well: data "
                f"{_described(tensor.shape[1:])} are seen whole at every step.",
                stacklevel=3,
            )


def one_step(tensor, wanted):
    """An input `(batch, ...)` of a network at one time step, as a tensor; ValueError if its shape does not fit.

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
    """Whether two shapes are the same as far as both are known."""
    return len(shape) == len(wanted) and all(b is None or a is None or a == b for a, b in zip(shape, wanted, strict=True))


def _described(shape):
    return "(" + ", ".join(str(size) for size in ("batch", *shape)) + ")"
