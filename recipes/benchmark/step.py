"""Time, FLOPs and memory of a training step against T: `python -m recipes.benchmark`.

They are compared with their lower bounds, see docs/performance.md."""

import argparse
import dataclasses
import pathlib
import sys

from recipes import command_line
from recipes.benchmark.settings import Settings, add_options, variants

FOLDER = pathlib.Path("runs", "benchmark")
LISTS = ("timesteps", "methods")


def add_arguments(parser):
    parser.formatter_class = argparse.ArgumentDefaultsHelpFormatter
    add_options(parser)
    loops = (
        "measures each method in multi-step mode with unrolled time loops, and with "
        "compiled ones, under XLA"
    )
    parser.add_argument("--loops", action="store_true", help=loops)
    memory = (
        "on TensorFlow without a GPU: also measures memory, in a separate process "
        "for each case"
    )
    parser.add_argument("--memory", action="store_true", help=memory)
    only = "measures only memory, in a separate process for each case"
    parser.add_argument("--memory-only", action="store_true", help=only)
    devices = (
        "compares numbers of devices, virtual ones without accelerators; --batch "
        "is that of each, then that of all"
    )
    parser.add_argument("--devices", nargs="+", metavar="N", help=devices)
    output = "for benchmark.json and benchmark.png (runs/benchmark/BACKEND)"
    command_line.add_path(parser, "--output", output)


def run(arguments):
    """Runs the benchmark of a command line; returns the exit status."""
    import keras

    given = vars(arguments)
    names = ("loops", "memory", "memory_only", "devices", "output")
    loops, memory, memory_only, devices, folder = map(given.pop, names)
    jit_compile = tuple(dict.fromkeys(given.pop("jit_compile")))
    # What is named twice counts once.
    lists = {name: tuple(dict.fromkeys(given[name])) for name in LISTS}
    folder = folder or FOLDER / keras.backend.backend()
    with command_line.mistakes(RuntimeError):
        settings = Settings(**{**given, **lists}, jit_compile=jit_compile[0])
        if memory:
            # It is measured without compilation.
            dataclasses.replace(settings, jit_compile=False)
        measured = variants(settings, jit_compile, loops)
        if loops:
            _check_loops(keras.backend.backend())
        if memory_only:
            return _print_memory(settings)
        folder.mkdir(parents=True, exist_ok=True)
        if devices:
            return _compare_devices(settings, devices, folder)
        _try(settings)
    _measure(settings, measured, memory, folder)
    return 0


def _check_loops(backend):
    if backend == "torch":
        raise ValueError(
            "`--loops` is for XLA, which is on JAX and TensorFlow. Received: "
            "KERAS_BACKEND='torch'. Leave it out."
        )


def _print_memory(settings):
    from recipes.benchmark import costs, measure, report

    print(f"{settings.subject}; {costs.memory_measure()}\n")
    measured = {}
    for method in settings.methods:
        measured[method] = [
            measure.memory_in_new_process(settings, method, timesteps)
            for timesteps in settings.timesteps
        ]
    print(report.memory_table(settings, measured))
    return 0


def _compare_devices(settings, devices, folder):
    from recipes import engine
    from recipes.benchmark import scaling

    numbers = [engine.wanted(number) for number in devices]
    return scaling.run(settings, numbers, folder)


def _try(settings):
    """Raises the errors of the library about the network before time is spent."""
    from recipes.benchmark import cases

    cases.configure(settings)
    cases.spiking_model(settings, "rate-multi", 1)


def _measure(settings, measured, memory, folder):
    from recipes.atomic_files import write_json
    from recipes.benchmark import measure, report

    def progress(record):
        # Saves measurements so far, in case the rest fails.
        write_json(folder / "benchmark.json", record)
        timesteps = record["rows"][-1]["timesteps"]
        print(f"T = {timesteps} measured", file=sys.stderr, flush=True)

    record = measure.benchmark(settings, measured, memory, progress)
    print(report.markdown(record))
    saved = f"\nsaved: {folder / 'benchmark.json'}"
    try:
        report.plot(record, folder / "benchmark.png")
        print(f"{saved}, {folder / 'benchmark.png'}")
    except ImportError as error:
        print(f"{saved}; no plot. {error}")


main = command_line.command(__name__, "benchmark", __doc__, add_arguments, run)
