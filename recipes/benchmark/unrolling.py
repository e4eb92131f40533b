"""Unrolled against compiled time loops of neuron layers: `KERAS_BACKEND=jax python -m recipes.benchmark.unrolling`.

Prints the time of a training step in both forms for each T, compile time and memory, and which `unrolled_steps` of
`keras_ratesnn.engine_settings` this device asks for. Rate-based training has loops without gradient, BPTT loops with
gradient.
"""

import gc
import sys

import keras

from recipes import command_line, device, markdown
from recipes.benchmark import cases, loops, measure, timing
from recipes.benchmark.arguments import benchmark_parser
from recipes.benchmark.settings import Settings

METHODS = {False: "rate-multi", True: "bptt-multi"}
"""A method whose loops have a gradient or not, by that."""

TIMESTEPS = (2, 4, 8, 16)
FORMS = {True: "unrolled", False: "loop"}


def main(argv=None):
    """Runs the command line `argv`, by default `sys.argv`; returns the exit status."""
    return command_line.run(lambda: benchmark_parser("benchmark.unrolling", __doc__, TIMESTEPS), run, argv)


def run(arguments):
    with command_line.mistakes():
        settings = Settings(**vars(arguments), methods=tuple(METHODS.values()))
        if keras.backend.backend() != "jax":
            raise ValueError(
                "This benchmark needs JAX, the backend that always compiles the time loops of layers. "
                f"Received: KERAS_BACKEND={keras.backend.backend()!r}. Set KERAS_BACKEND=jax."
            )
    cases.configure(settings)
    print(f"{device.name()}: {settings.network} of width {settings.width}, batch {settings.batch}, {settings.precision}\n")
    print(markdown.heading(("method", "T", "unrolled, ms", "loop, ms", "compile, s", "MiB")))
    medians = {with_gradient: {} for with_gradient in METHODS}
    for timesteps in sorted(set(settings.timesteps)):
        for with_gradient, method in METHODS.items():
            medians[with_gradient][timesteps] = row = compared(settings, method, timesteps)
            times = (f"{1000 * row[form]['median']:.1f}" for form in FORMS.values())
            compiling, memory = (
                " and ".join(f"{row[form][key] / unit:.{digits}f}" for form in FORMS.values())
                for key, unit, digits in (("compile_seconds", 1, 1), ("memory_bytes", 2**20, 0))
            )
            print(markdown.row((method, timesteps, *times, compiling, memory)), flush=True)
    print("\nUnrolled up to this T it is faster: " + repr({key: last_faster(rows) for key, rows in medians.items()}))


def compared(settings, method, timesteps):
    """Both forms, measured in turn: a dictionary from `FORMS` to median, `compile_seconds` and `memory_bytes`."""
    warm = {}
    for choice, form in FORMS.items():
        with loops.unrolled(choice):
            warm[form] = measure.warm_trainer(settings, method, timesteps, None)
    seconds = timing.in_turns(warm, settings.rounds)
    found = {
        form: {
            **timing.spread(seconds[form]),
            "compile_seconds": sum(case.compiling_seconds),
            "memory_bytes": case.memory_bytes,
        }
        for form, case in warm.items()
    }
    del warm
    gc.collect()
    return found


def last_faster(rows):
    """The largest T up to which the unrolled form was faster at every measured T; 1 if it never was.

    Args:
        rows: Dictionary from T, in increasing order, to results of `compared`.
    """
    last = 1
    for timesteps, row in rows.items():
        if row["unrolled"]["median"] > row["loop"]["median"]:
            return last
        last = timesteps
    return last


if __name__ == "__main__":
    sys.exit(main())
