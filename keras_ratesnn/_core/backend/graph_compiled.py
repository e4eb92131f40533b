"""The backend functions of JAX and TensorFlow alike, whose compilers see a whole step: most of them have nothing to do."""

import contextlib

from keras import ops


def no_gradient():
    """A context for code whose results are stopped anyway: in a compiled step, what nobody asks for is never computed."""
    return contextlib.nullcontext()


def grad_enabled():
    """True: what is differentiated is decided later, and a compiler drops the rest."""
    return True


def derivative_only():
    """A context for results whose value is not used: the compiler drops the value by itself."""
    return contextlib.nullcontext()


def untraced(function):
    """The function itself: a step is compiled as a whole."""
    return function


def fusing(allowed):
    """A context without effect: the compiler fuses by itself."""
    return contextlib.nullcontext()


def elementwise(function, cell, key, *arguments):
    """`function(*arguments)`: the compiler fuses by itself."""
    return function(*arguments)


def finite_rows(tensor, rows):
    """`(rows,)`: whether all elements of each of so many equal parts of a tensor are finite."""
    return ops.all(ops.reshape(ops.isfinite(tensor), (rows, -1)), axis=1)


def noise_state():
    """Nothing: all random numbers come from the seeds that layers keep."""
    return ()


def set_noise_state(state):
    """Nothing to do."""


def layout_kept(repeated):
    """A context without effect: the compiler chooses the order of a tensor in memory."""
    return contextlib.nullcontext()


def multiply_add(x, factor, y):
    """x · factor + y."""
    return x * factor + y


def unrolled_network_steps():
    """Few: the compiler is free to begin a step of an unrolled loop before the last one is through, and then keeps the
    activations of several alive. A loop of its own does not, and compiles once, whatever T is.
    """
    return 2
