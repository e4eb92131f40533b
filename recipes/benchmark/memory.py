"""Peak memory of a training step against T: `KERAS_BACKEND=jax python -m
recipes.benchmark.memory` prints a table.

By default with rate training in both step modes and BPTT. The quantity depends on the
backend: on JAX the compiler's temporary memory; on PyTorch, where the step is a
recorded graph, and on a GPU the allocator's peak; otherwise the increase of the peak
memory of the process during the step. Each case has a process of its own.
"""

from recipes import command_line, markdown
from recipes.benchmark import costs
from recipes.benchmark.arguments import (
    OF_IMAGES,
    add_jit_compile,
    add_settings,
    settings_of,
)
from recipes.benchmark.process_peak import in_separate_process

TIMESTEPS = (2, 4, 8, 16)


def add_arguments(parser):
    add_settings(parser, *OF_IMAGES, "methods")
    add_jit_compile(
        parser, "on PyTorch, as in SpikingModel.compile; false is eager mode"
    )


def measure(arguments):
    settings = settings_of(arguments, timesteps=TIMESTEPS)
    print(f"{settings.subject}, MiB; {costs.memory_measure()}\n")
    print(
        markdown.heading(
            (
                "method",
                *(f"T = {timesteps}" for timesteps in TIMESTEPS),
                "T = 16 / T = 2",
            )
        )
    )
    for method in settings.methods:
        sizes = [
            in_separate_process(settings, method, timesteps) for timesteps in TIMESTEPS
        ]
        cells = (f"{size / 2**20:.0f}" for size in sizes)
        print(markdown.row((method, *cells, f"{sizes[-1] / sizes[0]:.2f}")), flush=True)


main = command_line.command(
    __name__, "benchmark.memory", __doc__, add_arguments, measure
)
