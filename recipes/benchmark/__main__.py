"""The command line of the benchmark: `python -m recipes.benchmark`."""

import argparse
import pathlib
import sys

import keras

from recipes import engine
from recipes.benchmark import cases, plot, report, scaling
from recipes.benchmark.evidence.command import main as run_evidence
from recipes.benchmark.measure import benchmark
from recipes.benchmark.settings import NETWORKS, ORDINARY, PEERS, Settings
from recipes.command_line import USER_MISTAKE
from recipes.methods import PLAIN, PRESETS
from recipes.whole_file import write_json

JIT_COMPILE = {"auto": "auto", "true": True, "false": False}


def main(argv=None):
    """Runs the command line `argv`, by default `sys.argv`; returns the exit status."""
    arguments = vars(parser().parse_args(argv))
    evidence = arguments.pop("evidence")
    if evidence is not None:
        return run_evidence(evidence)
    process_memory = arguments.pop("memory")
    folder = arguments.pop("output")
    devices = arguments.pop("devices")
    jit_compile = tuple(dict.fromkeys(JIT_COMPILE[word] for word in arguments.pop("jit_compile")))
    try:
        settings = Settings(
            **{
                **arguments,
                "jit_compile": jit_compile[0],
                # Duplicates are measured only once.
                "timesteps": tuple(dict.fromkeys(arguments["timesteps"])),
                "methods": tuple(dict.fromkeys(arguments["methods"])),
            }
        )
        folder.mkdir(parents=True, exist_ok=True)
        if devices:
            return scaling.run(settings, [engine.wanted(number) for number in devices], folder)
        # Errors of the library about the network are raised before time is spent.
        cases.configure(settings)
        cases.trainer(settings, ORDINARY, 1)
    except (ValueError, TypeError, OSError, ImportError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_MISTAKE

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
    result = argparse.ArgumentParser(
        prog="python -m recipes.benchmark",
        description="Time, FLOPs and memory of a training step against T, compared with their lower bounds. KERAS_BACKEND "
        "selects the backend.",
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    result.add_argument("--network", default=defaults.network, metavar="NAME", help=f"one of {', '.join(NETWORKS)}")
    result.add_argument("--width", type=float, default=defaults.width, help="multiplies all channels")
    result.add_argument("--batch", type=int, default=defaults.batch, help="images in the step")
    result.add_argument("--size", type=int, default=defaults.size, help="height and width of the images")
    result.add_argument("--timesteps", type=int, nargs="+", default=defaults.timesteps, metavar="T", help="values of T")
    result.add_argument(
        "--methods", nargs="+", default=defaults.methods, metavar="NAME", help=f"of {', '.join((*PLAIN, *PRESETS, *PEERS))}"
    )
    result.add_argument("--rounds", type=int, default=defaults.rounds, help="number of times each method is timed")
    result.add_argument("--precision", default=defaults.precision, metavar="POLICY", help="a Keras dtype policy")
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
        help="on TensorFlow and PyTorch without a GPU: also measures memory, in a separate process for each case",
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
