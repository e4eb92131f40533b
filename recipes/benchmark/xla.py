"""A training step on TensorFlow with and without XLA: `KERAS_BACKEND=tensorflow python -m recipes.benchmark.xla`.

Keras' `jit_compile="auto"` chooses XLA on GPUs. Prints the time of a step with XLA, with XLA where every time loop of a neuron
layer is unrolled, and without XLA, measured in turn; and, of the programs of XLA, the number of their operations and their
temporary memory.
"""

import contextlib
import dataclasses
import gc
import sys

import keras

from recipes import command_line, device, markdown
from recipes.benchmark import cases, costs, loops, measure, timing
from recipes.benchmark.arguments import benchmark_parser
from recipes.benchmark.settings import ORDINARY, Settings

TIMESTEPS = (4, 16)
WITH, UNROLLED, WITHOUT = "XLA", "XLA, loops unrolled", "without XLA"


def main(argv=None):
    """Runs the command line `argv`, by default `sys.argv`; returns the exit status."""
    return command_line.run(parser, run, argv)


def parser():
    result = benchmark_parser("benchmark.xla", __doc__, TIMESTEPS)
    result.add_argument("--methods", nargs="+", default=Settings().methods, metavar="NAME", help="as in recipes.benchmark")
    return result


def run(arguments):
    with command_line.mistakes():
        settings = Settings(**vars(arguments))
        if keras.backend.backend() != "tensorflow":
            raise ValueError(
                "XLA is a choice on TensorFlow alone. "
                f"Received: KERAS_BACKEND={keras.backend.backend()!r}. Set KERAS_BACKEND=tensorflow."
            )
    cases.configure(settings)
    print(
        f"{device.name()}: {settings.network} of width {settings.width}, batch {settings.batch}, "
        f"{settings.size}x{settings.size}, {settings.precision}; median of {settings.rounds} rounds (quartiles)\n"
    )
    print(markdown.heading(("method", "T", "form", "ms", f"ratio to {WITHOUT}", "compile, s", "operations", "MiB")))
    print_rows(settings, ORDINARY, 1, (WITH, WITHOUT))
    for timesteps in dict.fromkeys(settings.timesteps):
        for method in settings.methods:
            print_rows(settings, method, timesteps, (WITH, UNROLLED, WITHOUT))


def print_rows(settings, method, timesteps, forms):
    """Measures the forms of a step in turn, and prints a row for each."""
    for form, row in compared(settings, method, timesteps, forms).items():
        ratio = timing.with_quartiles(row["ratio"], 1, 2)
        times = f"{1000 * row['seconds']['median']:.1f}", ratio, f"{row['compile_seconds']:.1f}"
        program = ("", "") if form == WITHOUT else (f"{row['operations']:,}", f"{row['memory_bytes'] / 2**20:.0f}")
        print(markdown.row((method, timesteps, form, *times, *program)), flush=True)


def compared(settings, method, timesteps, forms):
    """A dictionary from `forms` to dictionaries: `seconds`, `ratio`, `compile_seconds`, and `operations` and `memory_bytes`."""
    warm, rows = {}, {}
    images, labels = cases.batch(settings)
    for form in forms:
        of_form = dataclasses.replace(settings, jit_compile=form != WITHOUT)
        model = cases.trainer(of_form, method, timesteps)
        with loops.unrolled(True) if form == UNROLLED else contextlib.nullcontext():
            warm[form] = measure.warm_trainer(of_form, method, timesteps, None, model)
            rows[form] = {} if form == WITHOUT else costs.compiled_by_xla(model, images, labels)
    seconds = timing.in_turns(warm, settings.rounds)
    for form, row in rows.items():
        row["seconds"] = timing.spread(seconds[form])
        row["ratio"] = timing.spread(timing.ratios(seconds[form], seconds[WITHOUT]))
        row["compile_seconds"] = measure.compile_seconds(warm[form].compiling_seconds, row["seconds"]["median"])
    del warm
    gc.collect()
    return rows


if __name__ == "__main__":
    sys.exit(main())
