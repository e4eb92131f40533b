"""Backend functions shared by JAX and TensorFlow. Their compilers see a whole step, so most have nothing to do."""

import contextlib
import functools

from keras import ops

from keras_ratesnn._core.backend import xla_loops

CallGraph = LayerAttributes = None
"""Not needed: Keras compiles whole functions."""


def no_gradient():
    """A context without effect: a compiled step never computes unused gradients."""
    return contextlib.nullcontext()


def differentiable(tensor):
    """The unchanged tensor: any tensor can be differentiated with respect to."""
    return tensor


def grad_enabled():
    """True: differentiation happens later, and the compiler drops unused results."""
    return True


def untraced(function):
    """The unchanged function: a step is compiled as a whole."""
    return function


def finite_rows(tensors, rows):
    """Whether all elements are finite in each of as many equal parts of each tensor; see `contract`."""
    of_each = [
        ops.all(ops.reshape(ops.isfinite(tensor), (count, -1)), axis=1) for tensor, count in zip(tensors, rows, strict=True)
    ]
    return functools.reduce(ops.logical_and, of_each)


def noise_state():
    """Empty: all random numbers come from the seeds of layers."""
    return ()


def set_noise_state(state):
    """Does nothing."""


def repeated_noise(state):
    """A context without effect."""
    return contextlib.nullcontext()


def layout_kept():
    """A context without effect: the compiler chooses the memory layout."""
    return contextlib.nullcontext()


def multiply_add(x, factor, y):
    """x · factor + y."""
    return x * factor + y


def unrolled_network_steps():
    """Small: in an unrolled loop the compiler may start a step before the previous one has finished, and then keeps the
    activations of several steps in memory. A compiled loop does not, and compiles once for any T.
    """
    return xla_loops.unless_unrolled(2)
