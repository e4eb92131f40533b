"""FLOPs and memory of a training step, as reported by the backend."""

import gc
import itertools

import keras

from recipes import device


def compiled(model, images, labels):
    """FLOPs and memory of loss and gradient of a batch, from JAX's compiler.

    Args:
        model: A Keras model on the JAX backend, compiled with a `keras.losses.Loss`.
        images: Tensor.
        labels: Tensor.

    Returns:
        Dictionary with `flops`, or `None` if synaptic connections are in a loop, whose
        body the compiler counts only once, and `memory_bytes`, the temporary memory.
    """
    import jax

    def objective(trainable, fixed):
        outputs, fixed = model.stateless_call(trainable, fixed, images, training=True)
        return model.loss(labels, outputs), fixed

    trainable = [variable.value for variable in model.trainable_variables]
    fixed = [variable.value for variable in model.non_trainable_variables]
    step = jax.jit(jax.value_and_grad(objective, has_aux=True))
    traced = step.trace(trainable, fixed)
    program = traced.lower().compile()
    return {
        "flops": _unless_looped(traced, program),
        "memory_bytes": program.memory_analysis().temp_size_in_bytes,
    }


def flops_of_traced(traced):
    """FLOPs of a traced JAX function, before a compiler for any device changes it;
    `None` as in `compiled`."""
    import jax
    from jax.extend.core import jaxpr_as_fun

    # Without devices, since only the CPU's compiler counts before it compiles.
    inputs = [
        jax.ShapeDtypeStruct(kind.shape, kind.dtype) for kind in traced.jaxpr.in_avals
    ]
    program = jax.jit(jaxpr_as_fun(traced.jaxpr)).lower(*inputs)
    return _unless_looped(traced, program)


def _unless_looped(traced, program):
    if _connections_in_a_loop(traced.jaxpr.jaxpr):
        return None
    return program.cost_analysis()["flops"]


def _connections_in_a_loop(jaxpr, in_loop=False):
    """Whether a loop of a JAX program contains convolutions or matrix products, which
    have nearly all FLOPs."""
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if in_loop and name in ("conv_general_dilated", "dot_general"):
            return True
        for inner in keras.tree.flatten(list(equation.params.values())):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns") and _connections_in_a_loop(
                inner, in_loop or name in ("while", "scan")
            ):
                return True
    return False


def counted_flops(step):
    """Counts the FLOPs of the convolutions and matrix products that PyTorch runs in a
    step.

    Args:
        step: Function without arguments.
    """
    # Imported here because it imports PyTorch.
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def memory_rise(step):
    """The increase of peak memory during a step, relative to the memory in use before
    it, see `memory_measure`.

    The peak of a process never decreases, so that it is meaningful only in a separate
    process.

    Args:
        step: Function without arguments.

    Returns:
        Integer, bytes.
    """
    if keras.backend.backend() == "torch" and not device.gpu():
        return _allocation_peak(step)
    device.reset_peak_bytes()
    before = device.peak_bytes()
    step()
    device.synchronize()
    return device.peak_bytes() - before


def _allocation_peak(step):
    """The most memory that PyTorch's allocator for CPUs holds during a step, beyond
    what it held before."""
    # Imported here because it imports PyTorch.
    from torch import profiler

    # Objects of earlier steps that are freed during this one would count as negative.
    gc.collect()
    with profiler.profile(
        activities=[profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        step()
    events = [
        event
        for event in profile.profiler.kineto_results.events()
        if event.name() == "[memory]"
    ]
    events.sort(key=lambda event: event.start_ns())
    return max(itertools.accumulate((event.nbytes() for event in events), initial=0))


def flops_measure():
    """Describes what is counted on this backend, or `None`."""
    if keras.backend.backend() == "jax":
        return (
            "JAX's cost_analysis of the loss and its gradient; a loop of membranes "
            "counts once, and one of convolutions not"
        )
    if keras.backend.backend() == "torch":
        return "the convolutions and matrix products that PyTorch runs in a step"
    return None


def memory_measure():
    """Describes what is measured on this backend and device."""
    if keras.backend.backend() == "jax":
        return "JAX, temporary memory reported by the compiler"
    if device.gpu():
        return (
            f"{keras.backend.backend()}, increase of the peak of the GPU's "
            "allocator during the step"
        )
    if keras.backend.backend() == "torch":
        return "torch, increase of the peak of its allocator during the step"
    return (
        f"{keras.backend.backend()}, increase of the peak memory of the process in "
        "the first step"
    )


def needs_separate_process():
    """Whether memory can be measured only in a separate process."""
    return keras.backend.backend() == "tensorflow" and not device.gpu()
