"""The backend functions on TensorFlow; `keras_ratesnn.backend` says what each is for."""

import contextlib
import functools
import math

import tensorflow as tf

from keras_ratesnn import structures
from keras_ratesnn.backend import plain_normalization
from keras_ratesnn.backend.plain_normalization import normalize as normalize


@tf.custom_gradient
def graft(value, onto, slope):
    """Returns `value`; its derivative is `slope` with respect to `onto`, and none with respect to anything else.

    Args:
        value: Tensor, the result.
        onto: Tensor of the same shape and dtype, what the result is differentiated by. Its own value is not used.
        slope: Tensor of the same shape and dtype, or a float.

    Returns:
        Tensor equal to `value`.
    """

    def gradient(upstream):
        return None, upstream * tf.cast(slope, upstream.dtype), None

    return tf.identity(value), gradient


normalize_as = functools.partial(plain_normalization.normalize_as, graft)


def no_gradient():
    """A context for code whose results are stopped anyway: in a graph, what nobody asks for is never computed."""
    return contextlib.nullcontext()


def without_gradient(function):
    """The structure of tensors and numbers that `function()` returns, without gradient."""
    return structures.map_leaves(lambda leaf: tf.stop_gradient(leaf) if tf.is_tensor(leaf) else leaf, function())


def records_gradient():
    """True: a tape may be recording, and a graph drops what nobody asks for."""
    return True


def derivative_only():
    """A context for results whose value is not used: the graph is pruned of the value by itself."""
    return contextlib.nullcontext()


def unrolled_steps(with_gradient):
    """No limit: TensorFlow updates a tensor inside a loop by a copy of it."""
    return math.inf


def unrolled_network_steps():
    """Few: the compiler is free to begin a step of an unrolled loop before the last one is through, and then keeps the
    activations of several alive. A loop of its own does not, and compiles once, whatever T is.
    """
    return 2


def together(tensors):
    """The tensors as they are: the executor frees what is no longer needed."""
    return tensors


def untraced(function):
    """The function itself: a step is compiled as a whole."""
    return function


def fusing(allowed):
    """A context without effect: the compiler fuses by itself."""
    return contextlib.nullcontext()


def fuses(key, tensors):
    """Never: the compiler fuses by itself."""
    return False


def fuse(function, owner, key, tensors):
    """`function(*tensors)`."""
    return function(*tensors)


def layout_kept(repeated):
    """A context without effect: the compiler chooses the order of a tensor in memory."""
    return contextlib.nullcontext()


def multiply_add(x, factor, y):
    """x · factor + y."""
    return x * factor + y
