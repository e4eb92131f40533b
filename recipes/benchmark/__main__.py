"""Time, FLOPs and memory of a training step against T, compared with their lower
bounds: `python -m recipes.benchmark`."""

import pathlib
import sys

import keras

from recipes import command_line, engine
from recipes.atomic_files import write_json
from recipes.benchmark import cases, report, scaling
from recipes.benchmark.arguments import (
    OF_STEPS,
    add_jit_compile,
    add_settings,
    settings_of,
)
from recipes.benchmark.evidence import runner
from recipes.benchmark.measure import benchmark
from recipes.benchmark.settings import ORDINARY, variants


def run(arguments):
    """Runs the benchmark of a command line, or the evidence kit; returns the exit
    status."""
    given = vars(arguments)
    evidence, process_memory, folder, devices = (
        given.pop(name) for name in ("evidence", "memory", "output", "devices")
    )
    if evidence is not None:
        return runner.main(evidence)
    jit_compile = tuple(dict.fromkeys(given.pop("jit_compile")))
    settings = settings_of(arguments, jit_compile=jit_compile[0])
    with command_line.mistakes(RuntimeError):
        # Each is checked; memory is measured without compilation.
        variants(settings, (*jit_compile, False) if process_memory else jit_compile)
        folder.mkdir(parents=True, exist_ok=True)
        if devices:
            return scaling.run(
                settings, [engine.wanted(number) for number in devices], folder
            )
        # Errors of the library about the network are raised before time is spent.
        cases.configure(settings)
        cases.trainer(settings, ORDINARY, 1)

    def progress(record):
        # Saves measurements so far, in case the rest fails.
        write_json(folder / "benchmark.json", record)
        print(
            f"T = {record['rows'][-1]['timesteps']} measured",
            file=sys.stderr,
            flush=True,
        )

    record = benchmark(settings, process_memory, progress, jit_compile)
    print(report.markdown(record))
    try:
        report.plot(record, folder / "benchmark.png")
        print(f"\nsaved: {folder / 'benchmark.json'}, {folder / 'benchmark.png'}")
    except ImportError as error:
        print(f"\nsaved: {folder / 'benchmark.json'}; no plot. {error}")
    return 0


def add_arguments(parser):
    add_settings(parser, *OF_STEPS, "methods", "data_format", "threads")
    several = (
        "as in SpikingModel.compile; with several, each method is measured with "
        "each, and the floor with the first"
    )
    add_jit_compile(parser, several, nargs="+", default=["auto"])
    memory = (
        "on TensorFlow without a GPU: also measures memory, in a separate process "
        "for each case"
    )
    parser.add_argument("--memory", action="store_true", help=memory)
    devices = (
        "compares numbers of devices, virtual ones without accelerators; --batch "
        "is that of each, then that of all"
    )
    parser.add_argument("--devices", nargs="+", metavar="N", help=devices)
    evidence = (
        "instead of all this: runs the evidence kit for a GPU, nine minutes at "
        "most; on a CPU it runs small"
    )
    command_line.add_path(parser, "--evidence", evidence)
    output = pathlib.Path("runs", "benchmark", keras.backend.backend())
    command_line.add_path(
        parser, "--output", "for benchmark.json and benchmark.png", default=output
    )


main = command_line.command(__name__, "benchmark", __doc__, add_arguments, run)
