"""FLOPs and memory of a training step, as the backend tells them."""

import keras

from recipes import device
from recipes.benchmark import cases


def compiled(model, images, labels):
    """What JAX's compiler says of the loss and the gradient of a batch.

    Args:
        model: A Keras model, on the JAX backend.
        images: Tensor.
        labels: Tensor.

    Returns:
        Dictionary of `flops`, `None` where connections are in a loop, whose body the compiler counts once; and
        `memory_bytes`, its temporary memory.
    """
    import jax

    loss = cases.loss()

    def objective(trainable, fixed):
        outputs, fixed = model.stateless_call(trainable, fixed, images, training=True)
        return loss(labels, outputs), fixed

    values = ([v.value for v in model.trainable_variables], [v.value for v in model.non_trainable_variables])
    traced = jax.jit(jax.value_and_grad(objective, has_aux=True)).trace(*values)
    program = traced.lower().compile()
    return {
        "flops": None if _connections_in_a_loop(traced.jaxpr.jaxpr) else program.cost_analysis()["flops"],
        "memory_bytes": program.memory_analysis().temp_size_in_bytes,
    }


def _connections_in_a_loop(jaxpr, in_loop=False):
    """Whether a loop of a JAX program has convolutions or matrix products in it, where nearly all FLOPs are."""
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if in_loop and name in ("conv_general_dilated", "dot_general"):
            return True
        for inner in keras.tree.flatten(list(equation.params.values())):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns") and _connections_in_a_loop(inner, in_loop or name in ("while", "scan")):
                return True
    return False


def counted_flops(step):
    """The FLOPs of the convolutions and matrix products that PyTorch runs in a step.

    Args:
        step: Function without arguments.
    """
    # Only here: what follows imports PyTorch.
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import flop_registry

    class Counter(TorchDispatchMode):
        total = 0

        def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
            result = operation(*args, **(kwargs or {}))
            if operation.name() == "mkldnn::_convolution_pointwise":
                # A convolution whose kernel is packed.
                inputs, kernel, bias, padding, stride, dilation, groups, *_ = args
                args = inputs, kernel, bias, stride, padding, dilation, False, [0, 0], groups
                operation = torch.ops.aten.convolution.default
            count = flop_registry.get(operation._overloadpacket)
            # On the device "meta" shapes are worked out, and nothing else.
            if count is not None and not args[0].is_meta:
                self.total += count(*args, **(kwargs or {}), out_val=result)
            return result

    with Counter() as counter:
        step()
    return counter.total


def memory_rise(step):
    """How far the peak of memory rises, while a step runs, over what is held before it.

    Where there is no GPU this is the process's peak, which never falls: it tells something in a process of its own only.

    Args:
        step: Function without arguments.

    Returns:
        Integer, bytes.
    """
    device.reset_peak_bytes()
    before = device.peak_bytes()
    step()
    device.synchronize()
    return device.peak_bytes() - before


def flops_measure():
    """What is counted on this backend, in words, or `None`."""
    if keras.backend.backend() == "jax":
        return (
            "JAX's cost_analysis of the loss and its gradient. It counts a loop's body once: where only the membranes are in "
            "loops, one step of them is counted, and a program with convolutions in a loop is left out"
        )
    if keras.backend.backend() == "torch":
        return "the convolutions and matrix products that PyTorch runs in a step"
    return None


def memory_measure():
    """What is measured on this backend and device, in words."""
    if keras.backend.backend() == "jax":
        return "JAX, the compiler's temporary memory"
    if device.gpu():
        return f"{keras.backend.backend()}, the peak of the GPU's allocator over what it held before the step"
    return f"{keras.backend.backend()}, rise of the process's peak in the first step"


def only_the_process_tells_memory():
    """Whether memory can be measured in a process of its own only."""
    return keras.backend.backend() != "jax" and not device.gpu()
