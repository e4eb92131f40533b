"""How XLA runs the time loop of one neuron layer best, shared by JAX and TensorFlow."""

import contextvars
import sys

from keras import ops

from keras_ratesnn._core.contexts import setting

UNROLLED_STEPS = {"cpu": {False: 1, True: 4}, "gpu": {False: 16, True: 16}}
"""Up to this T the time loop of a layer is unrolled, by device and by whether the loop
has a gradient.

On CPUs XLA would recompute every step of an unrolled loop from the first. If the
backward pass stores none of the steps, XLA also postpones the loop until then, and
keeps the input of all steps in memory. A compiled loop is computed once, in place. With
gradient it needs more copies, which pay off from T = 5.

On GPUs and TPUs, where `optimization_barrier` keeps the order, an unrolled loop is one
pass over memory. For an H100 programs that JAX compiled (ResNet-18, batch 128, T = 16)
needed less memory unrolled: 2191 instead of 2438 MiB without gradient, when spikes did
not wait as bytes yet; with it 11,048 instead of 17,816, and a tenth of the traffic.
Compiling them takes longer, so longer loops were not tried. `python -m
recipes.benchmark --loops` measures what is faster on a device.
"""

PLATFORM = "auto"
"""The platform that JAX compiles for, as in `unrolled_steps`; `"auto"` is this machine.
A program that is compiled ahead of time for another one needs it."""

_unrolled = contextvars.ContextVar("keras_ratesnn_unrolled", default=False)


def unrolled():
    """A context in which all time loops are unrolled, for graphs that cannot hold
    loops."""
    return setting(_unrolled, True)


def unrolled_steps(platform, with_gradient):
    """The choice in `UNROLLED_STEPS`.

    Args:
        platform: String, `"cpu"`, `"gpu"` or another, which counts as a GPU.
        with_gradient: Boolean.
    """
    return (
        sys.maxsize
        if _unrolled.get()
        else UNROLLED_STEPS.get(platform, UNROLLED_STEPS["gpu"])[with_gradient]
    )


def unrolled_network_steps():
    """A small T: in an unrolled loop XLA may start a step before the previous one has
    finished, and then keeps the activations of several steps in memory. A compiled loop
    does not, and compiles once for any T.
    """
    return sys.maxsize if _unrolled.get() else 2


def depending(tensors, until):
    """Tensors that take values of others, though these change nothing: on CPUs XLA
    removes a barrier before it decides what to compute when.

    Args:
        tensors: List of tensors.
        until: List of tensors of floating-point numbers.
    """
    never = False
    for tensor in until:
        first = ops.reshape(tensor, (-1,))[:1]
        # No number is both, which XLA does not see.
        both = ops.logical_and(ops.isnan(first), ops.isinf(first))
        never = ops.logical_or(never, ops.any(both))
    return [ops.where(never, ops.zeros_like(tensor), tensor) for tensor in tensors]
