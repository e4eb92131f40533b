"""How XLA runs the time loop of one neuron layer best, shared by JAX and TensorFlow."""

UNROLLED_STEPS = {"cpu": {False: 1, True: 4}, "gpu": {False: 8, True: 8}}
"""Up to this T the time loop of a layer is unrolled, by device and by whether the loop has a gradient.

On CPUs XLA would recompute every step of an unrolled loop from the first. If the backward pass stores none of the steps, XLA
also postpones the loop until then, and keeps the input of all steps in memory. A compiled loop is computed once, in place. With
gradient it needs more copies, which pay off from T = 5.

On GPUs and TPUs, where `optimization_barrier` keeps the order, an unrolled loop is one pass over memory. The number for them is
a guess: `python -m recipes.benchmark.unrolling` measures what is better on a device.
"""


def unrolled_steps(platform, with_gradient):
    """The choice in `UNROLLED_STEPS`.

    Args:
        platform: String, `"cpu"`, `"gpu"` or another, which counts as a GPU.
        with_gradient: Boolean.
    """
    return UNROLLED_STEPS.get(platform, UNROLLED_STEPS["gpu"])[with_gradient]
