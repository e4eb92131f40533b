"""Peak memory of a training step against T: `KERAS_BACKEND=jax python -m recipes.benchmark.memory` prints a table.

By default with rate training in both step modes and BPTT. The quantity depends on the backend: on JAX the compiler's temporary
memory; on PyTorch, where the step is a recorded graph, and on a GPU the allocator's peak; otherwise the increase of the peak
memory of the process during the step. Each case has a process of its own.
"""

import sys

from recipes import command_line, markdown
from recipes.benchmark import costs
from recipes.benchmark.arguments import JIT_COMPILE
from recipes.benchmark.process_peak import in_separate_process
from recipes.benchmark.settings import NETWORKS, Settings

TIMESTEPS = (2, 4, 8, 16)


def main(argv=None):
    """Runs the command line `argv`, by default `sys.argv`; returns the exit status."""
    return command_line.run(parser, measure, argv)


def parser():
    defaults = Settings()
    result = command_line.parser("benchmark.memory", __doc__)
    result.add_argument(
        "--network", default=defaults.network, metavar="NAME", help=f"one of {', '.join(NETWORKS)} (default: %(default)s)"
    )
    result.add_argument("--width", type=float, default=defaults.width, help="multiplies all channels (default: %(default)s)")
    result.add_argument("--batch", type=int, default=defaults.batch, help="images in the step (default: %(default)s)")
    result.add_argument("--size", type=int, default=defaults.size, help="height and width (default: %(default)s)")
    result.add_argument(
        "--jit-compile",
        default="auto",
        choices=JIT_COMPILE,
        help="on PyTorch, as in SpikingModel.compile; false is eager mode (default: %(default)s)",
    )
    result.add_argument("--methods", nargs="+", default=defaults.methods, metavar="NAME", help="as in recipes.benchmark")
    return result


def measure(arguments):
    given = vars(arguments)
    with command_line.mistakes():
        settings = Settings(**{**given, "jit_compile": JIT_COMPILE[given["jit_compile"]]}, timesteps=TIMESTEPS)
    print(
        f"{settings.network} of width {settings.width}, batch {settings.batch}, {settings.size}x{settings.size}, MiB; "
        f"{costs.memory_measure()}\n"
    )
    print(markdown.heading(("method", *(f"T = {timesteps}" for timesteps in TIMESTEPS), "T = 16 / T = 2")))
    for method in settings.methods:
        sizes = [in_separate_process(settings, method, timesteps) for timesteps in TIMESTEPS]
        cells = (f"{size / 2**20:.0f}" for size in sizes)
        print(markdown.row((method, *cells, f"{sizes[-1] / sizes[0]:.2f}")), flush=True)


if __name__ == "__main__":
    sys.exit(main())
