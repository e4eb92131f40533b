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
        Dictionary of `flops`, `None` where the program has a loop, whose body the compiler counts once; and
        `memory_bytes`, its temporary memory.
    """
    import jax

    loss = cases.loss()

    def objective(trainable, fixed):
        outputs, fixed = model.stateless_call(trainable, fixed, images, training=True)
        return loss(labels, outputs), fixed

    values = ([v.value for v in model.trainable_variables], [v.value for v in model.non_trainable_variables])
    program = jax.jit(jax.value_and_grad(objective, has_aux=True)).lower(*values).compile()
    return {
        "flops": None if " while(" in program.as_text() else program.cost_analysis()["flops"],
        "memory_bytes": program.memory_analysis().temp_size_in_bytes,
    }


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
            "JAX's cost_analysis of the loss and its gradient. It counts a loop's body once: a program with a loop is left out"
        )
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
