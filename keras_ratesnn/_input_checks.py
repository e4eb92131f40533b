"""What a SpikingModel takes for inputs: which of them have a time axis, and what is said of those that do not fit."""

import keras
import numpy as np
from keras import ops

from keras_ratesnn._core import graph


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
    for tensor, wanted in zip(graph.match_inputs(network, inputs), network.inputs, strict=True):
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
    if _fits(received, static):
        return False
    if _fits(received, (timesteps, *static)):
        return True
    raise ValueError(
        f"Input {wanted.name!r} of the network must have shape {_described(static)}, the same at every step, or "
        f"{_described((timesteps, *static))}, one frame for each of timesteps={timesteps}. Received: shape "
        f"{tuple(tensor.shape)}."
    )


def one_step(tensor, wanted):
    """An input `(batch, ...)` of a network at one time step, as a tensor; ValueError if its shape does not fit.

    Args:
        tensor: Tensor or array.
        wanted: The network's symbolic input.
    """
    tensor = ops.convert_to_tensor(tensor, dtype=wanted.dtype)
    if not _fits(tensor.shape[1:], wanted.shape[1:]):
        raise ValueError(
            f"Input {wanted.name!r} of the network must have shape {_described(wanted.shape[1:])} in `step`, without time. "
            f"Received: shape {tuple(tensor.shape)}."
        )
    return tensor


def _fits(shape, wanted):
    return len(shape) == len(wanted) and all(b is None or a is None or a == b for a, b in zip(shape, wanted, strict=True))


def _described(shape):
    return "(" + ", ".join(str(size) for size in ("batch", *shape)) + ")"
