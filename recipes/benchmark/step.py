"""Time, FLOPs and memory of a training step against T: `python -m recipes.benchmark`.

They are compared with their lower bounds, see docs/performance.md."""

import functools
import itertools
import pathlib
import sys

from recipes import command_line
from recipes.benchmark.settings import PEERS, SEQUENCES, Settings, variants

FOLDER = pathlib.Path("runs", "benchmark")

JIT_COMPILE = {"auto": "auto", "true": True, "false": False}
"""The values of `Settings.jit_compile` on command lines."""


def add_arguments(parser):
    add = functools.partial(parser.add_argument, metavar="NAME")
    add_count = functools.partial(command_line.add_count, parser)
    network = (
        f"a network of keras_ratesnn.models, or, of sequences, {', '.join(SEQUENCES)}"
    )
    add("--network", default=Settings.network, help=network)
    width = "multiplies all channels"
    add("--width", type=float, metavar="X", default=Settings.width, help=width)
    add_count("--batch", "number of samples in a step", Settings.batch)
    add_count("--size", "height and width of the images", Settings.size)
    add_count("--timesteps", "values of T", Settings.timesteps, nargs="+", metavar="T")
    methods = f"methods as in recipes.compare, or of {', '.join(PEERS)}"
    add("--methods", nargs="+", default=Settings.methods, help=methods)
    add_count("--rounds", "number of times each case is timed", Settings.rounds)
    precision = "a Keras dtype policy"
    add("--precision", default=Settings.precision, help=precision)
    jit_compile = (
        "as in SpikingModel.compile; with several, each method is measured with each, "
        "and the floor with the first"
    )
    parser.add_argument(
        "--jit-compile",
        choices=JIT_COMPILE,
        nargs="+",
        default=["auto"],
        help=jit_compile,
    )
    add_count("--threads", "number of threads of the CPU (default: PyTorch's)")
    loops = (
        "measures each method in multi-step mode with unrolled time loops, and with "
        "compiled ones, under XLA"
    )
    parser.add_argument("--loops", action="store_true", help=loops)
    only = "measures only memory, in a separate process for each case"
    parser.add_argument("--memory-only", action="store_true", help=only)
    output = "folder of benchmark.json (default: runs/benchmark/BACKEND)"
    command_line.add_path(parser, "--output", output)


def run(arguments):
    """Runs the benchmark of a command line."""
    import keras

    given = vars(arguments)
    loops, memory_only, folder = map(given.pop, ("loops", "memory_only", "output"))
    # What is named twice counts once.
    for name in ("timesteps", "methods", "jit_compile"):
        given[name] = tuple(dict.fromkeys(given[name]))
    jit_compile = [JIT_COMPILE[value] for value in given.pop("jit_compile")]
    backend = keras.backend.backend()
    folder = folder or FOLDER / backend
    with command_line.mistakes(RuntimeError):
        settings = Settings(**given, jit_compile=jit_compile[0])
        if loops and backend == "torch":
            raise ValueError(
                "`--loops` is for XLA, which is on JAX and TensorFlow. Received: "
                "KERAS_BACKEND='torch'. Leave it out."
            )
        if memory_only:
            _print_memory(settings)
            return
        folder.mkdir(parents=True, exist_ok=True)
        _try(settings)
    _measure(settings, variants(settings, jit_compile, loops), folder)


def _print_memory(settings):
    from recipes.benchmark import costs, measure, report

    print(f"{settings.subject}; MiB, {costs.memory_measure()}\n")
    rows = []
    for method, timesteps in itertools.product(settings.methods, settings.timesteps):
        size = measure.memory_in_new_process(settings, method, timesteps)
        rows.append({"method": method, "timesteps": timesteps, "mib": size / 2**20})
    print(report.table(rows, lambda row: f"{row['mib']:.0f}"))


def _try(settings):
    """Raises the errors of the library about the network before time is spent."""
    from recipes.benchmark import cases

    cases.configure(settings)
    cases.spiking_model(settings, "rate-multi", 1)


def _measure(settings, measured, folder):
    from recipes.atomic_files import write_json
    from recipes.benchmark import measure, report

    def progress(record):
        # Saves measurements so far, in case the rest fails.
        write_json(folder / "benchmark.json", record)
        timesteps = record["rows"][-1]["timesteps"]
        print(f"T = {timesteps} measured", file=sys.stderr, flush=True)

    record = measure.benchmark(settings, measured, progress)
    print(report.markdown(record))
    print(f"\nsaved: {folder / 'benchmark.json'}")


main = command_line.command(__name__, "benchmark", __doc__, add_arguments, run)
