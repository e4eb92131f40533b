"""The command line of the benchmark: `python -m recipes.benchmark`."""

import pathlib
import sys

import keras

from recipes import command_line, engine
from recipes.atomic_files import write_json
from recipes.benchmark import cases, plot, report, scaling
from recipes.benchmark.arguments import JIT_COMPILE, benchmark_parser
from recipes.benchmark.evidence.command import main as run_evidence
from recipes.benchmark.measure import benchmark
from recipes.benchmark.settings import ORDINARY, PEERS, Settings
from recipes.benchmark.variants import variants
from recipes.methods import PLAIN, PRESETS


def main(argv=None):
    """Runs the command line `argv`, by default `sys.argv`; returns the exit status."""
    return command_line.run(parser, run, argv)


def run(arguments):
    """Runs the benchmark of a command line, or the evidence kit; returns the exit status."""
    given = vars(arguments)
    evidence = given.pop("evidence")
    if evidence is not None:
        return run_evidence(evidence)
    process_memory = given.pop("memory")
    folder = given.pop("output")
    devices = given.pop("devices")
    jit_compile = tuple(dict.fromkeys(JIT_COMPILE[word] for word in given.pop("jit_compile")))
    with command_line.mistakes(RuntimeError):
        settings = Settings(
            **{
                **given,
                "jit_compile": jit_compile[0],
                # Duplicates are measured only once.
                "timesteps": tuple(dict.fromkeys(given["timesteps"])),
                "methods": tuple(dict.fromkeys(given["methods"])),
            }
        )
        # Each is checked; memory is measured without compilation.
        variants(settings, (*jit_compile, False) if process_memory else jit_compile)
        folder.mkdir(parents=True, exist_ok=True)
        if devices:
            return scaling.run(settings, [engine.wanted(number) for number in devices], folder)
        # Errors of the library about the network are raised before time is spent.
        cases.configure(settings)
        cases.trainer(settings, ORDINARY, 1)

    def progress(record):
        # Saves measurements so far, in case the rest fails.
        write_json(folder / "benchmark.json", record)
        print(f"T = {record['rows'][-1]['timesteps']} measured", file=sys.stderr, flush=True)

    record = benchmark(settings, process_memory, progress, jit_compile)
    print(report.markdown(record))
    try:
        plot.save(record, folder / "benchmark.png")
        print(f"\nsaved: {folder / 'benchmark.json'}, {folder / 'benchmark.png'}")
    except ImportError as error:
        print(f"\nsaved: {folder / 'benchmark.json'}; no plot. {error}")
    return 0


def parser():
    defaults = Settings()
    result = benchmark_parser(
        "benchmark",
        "Time, FLOPs and memory of a training step against T, compared with their lower bounds. KERAS_BACKEND selects the "
        "backend.",
        defaults.timesteps,
    )
    result.add_argument(
        "--methods", nargs="+", default=defaults.methods, metavar="NAME", help=f"of {', '.join((*PLAIN, *PRESETS, *PEERS))}"
    )
    result.add_argument(
        "--jit-compile",
        nargs="+",
        default=[defaults.jit_compile],
        choices=JIT_COMPILE,
        help="as in SpikingModel.compile; with several, each method is measured with each, and the floor with the first",
    )
    result.add_argument("--data-format", default=defaults.data_format, help="channels_last or channels_first")
    result.add_argument("--threads", type=int, metavar="N", help="threads of the CPU, on PyTorch")
    result.add_argument(
        "--memory",
        action="store_true",
        help="on TensorFlow without a GPU: also measures memory, in a separate process for each case",
    )
    result.add_argument(
        "--devices",
        nargs="+",
        metavar="N",
        help="compares numbers of devices instead of the floor; without accelerators they are virtual. --batch is that of each "
        "device, then that of all",
    )
    result.add_argument(
        "--evidence",
        type=pathlib.Path,
        metavar="DIR",
        help="instead of all this: runs the evidence kit for a GPU, nine minutes at most, and writes its rows to this folder; "
        "on a CPU it runs small. No other argument has an effect",
    )
    result.add_argument(
        "--output",
        type=pathlib.Path,
        default=pathlib.Path("runs", "benchmark", keras.backend.backend()),
        metavar="DIR",
        help="for benchmark.json and benchmark.png",
    )
    return result


if __name__ == "__main__":
    sys.exit(main())
