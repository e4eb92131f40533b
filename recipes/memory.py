"""Peak memory of a training step against T: `KERAS_BACKEND=jax python -m recipes.memory` prints a table.

A ResNet-18, rate training in both step modes and BPTT. What is measured is what the backend can tell: on JAX the compiler's
temporary memory; on a GPU the allocator's peak; else how far the process's peak rises over what it held before the step,
each case in a process of its own.
"""

import argparse
import resource
import subprocess
import sys

import keras
import numpy as np

import keras_ratesnn

METHODS = [("rate", "multi"), ("rate", "single"), ("bptt", "multi")]
TIMESTEPS = (2, 4, 8, 16)
CLASSES = 10


def main(argv=None):
    """Runs the command line `argv`, by default that of the process."""
    parser = argparse.ArgumentParser(prog="python -m recipes.memory", description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=float, default=0.25, help="multiplies all channels (default: 0.25)")
    parser.add_argument("--batch", type=int, default=32, help="images in the step (default: 32)")
    parser.add_argument("--size", type=int, default=32, help="height and width of the images (default: 32)")
    parser.add_argument("--one", nargs=3, metavar=("GRADIENT", "STEP_MODE", "T"), help="prints the bytes of one case")
    arguments = parser.parse_args(argv)
    if arguments.one:
        gradient, step_mode, timesteps = arguments.one
        print(f"bytes: {peak_bytes(gradient, step_mode, int(timesteps), arguments)}")
        return 0
    print(
        f"ResNet-18 of width {arguments.width}, batch {arguments.batch}, {arguments.size}x{arguments.size}, MiB; {measure()}\n"
    )
    print("| gradient | step mode | " + " | ".join(f"T = {timesteps}" for timesteps in TIMESTEPS) + " | T = 16 / T = 2 |")
    print("|---|---|" + "---|" * (len(TIMESTEPS) + 1))
    for gradient, step_mode in METHODS:
        sizes = [in_a_process_of_its_own(gradient, step_mode, timesteps, arguments) for timesteps in TIMESTEPS]
        cells = " | ".join(f"{size / 2**20:.0f}" for size in sizes)
        print(f"| {gradient} | {step_mode} | {cells} | {sizes[-1] / sizes[0]:.2f} |", flush=True)
    return 0


def in_a_process_of_its_own(gradient, step_mode, timesteps, arguments):
    options = [f"--{name}={getattr(arguments, name)}" for name in ("width", "batch", "size")]
    command = [sys.executable, "-m", "recipes.memory", *options, "--one", gradient, step_mode, str(timesteps)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return int(output.split("bytes:")[1])


def measure():
    """What is measured on this backend and device, in words."""
    if keras.backend.backend() == "jax":
        return "JAX, the compiler's temporary memory"
    if gpu():
        return f"{keras.backend.backend()}, the peak of the GPU's allocator"
    return f"{keras.backend.backend()}, rise of the process's peak in the first step"


def peak_bytes(gradient, step_mode, timesteps, arguments):
    """The peak memory of one training step."""
    shape = (arguments.size, arguments.size, 3)
    model = keras_ratesnn.models.ResNet18(
        input_shape=shape,
        classes=CLASSES,
        timesteps=timesteps,
        gradient=gradient,
        step_mode=step_mode,
        width=arguments.width,
    )
    x = np.random.default_rng(0).random((arguments.batch, *shape), dtype="float32")
    y = np.arange(arguments.batch) % CLASSES
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    if keras.backend.backend() == "jax":
        return compiled_bytes(model, loss, x, y)
    # Without XLA: the process would count the compiler's memory, which is more than that of the step.
    model.compile("sgd", loss, jit_compile=False)
    # One image first: buffers of libraries and traces of the program are not the step's.
    model.train_on_batch(x[:1], y[:1])
    before = held_bytes()
    model.train_on_batch(x, y)
    return held_bytes() - before


def compiled_bytes(model, loss, x, y):
    import jax

    def objective(trainable, fixed):
        outputs, fixed = model.stateless_call(trainable, fixed, x, training=True)
        return loss(y, outputs), fixed

    values = ([v.value for v in model.trainable_variables], [v.value for v in model.non_trainable_variables])
    compiled = jax.jit(jax.value_and_grad(objective, has_aux=True)).lower(*values).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def held_bytes():
    """The most that this process, or its GPU's allocator, has held so far."""
    if gpu() and keras.backend.backend() == "torch":
        import torch

        return torch.cuda.max_memory_allocated()
    if gpu():
        import tensorflow as tf

        return tf.config.experimental.get_memory_info("GPU:0")["peak"]
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def gpu():
    if keras.backend.backend() == "torch":
        import torch

        return torch.cuda.is_available()
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return bool(tf.config.list_physical_devices("GPU"))
    return False


if __name__ == "__main__":
    sys.exit(main())
