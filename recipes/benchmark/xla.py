"""A training step on TensorFlow with and without XLA: `KERAS_BACKEND=tensorflow python
-m recipes.benchmark.xla`.

Keras' `jit_compile="auto"` chooses XLA on GPUs. Prints the time of a step with XLA,
with XLA where every time loop of a neuron layer is unrolled, and without XLA, measured
in turn; and, of the programs of XLA, the number of their operations and their temporary
memory.
"""

import dataclasses

from recipes import command_line, device, markdown
from recipes.benchmark import cases, costs, loops, timing
from recipes.benchmark.arguments import OF_STEPS, add_settings, settings_of
from recipes.benchmark.settings import ORDINARY

TIMESTEPS = (4, 16)
WITHOUT = "without XLA"
FORMS = {
    "XLA": (True, None),
    "XLA, loops unrolled": (True, True),
    WITHOUT: (False, None),
}
"""The values of `jit_compile` and of the argument of `loops.unrolled`."""


def add_arguments(parser):
    add_settings(parser, *OF_STEPS, "methods", timesteps=TIMESTEPS)


def run(arguments):
    settings = settings_of(arguments)
    with command_line.mistakes():
        device.check_backend("tensorflow", "XLA is a choice on TensorFlow alone.")
    cases.configure(settings)
    print(
        f"{device.name()}: {settings.subject}; median of {settings.rounds} rounds "
        "(quartiles)\n"
    )
    print(
        markdown.heading(
            (
                "method",
                "T",
                "form",
                "ms",
                f"ratio to {WITHOUT}",
                "compile, s",
                "operations",
                "MiB",
            )
        )
    )
    steps = [
        (ORDINARY, 1),
        *(
            (method, timesteps)
            for timesteps in settings.timesteps
            for method in settings.methods
        ),
    ]
    for method, timesteps in steps:
        for form, row in compared(settings, method, timesteps).items():
            ratio = timing.with_quartiles(row["ratio"], 1, 2)
            times = (
                f"{1000 * row['seconds']['median']:.1f}",
                ratio,
                f"{row['compile_seconds']:.1f}",
            )
            program = (
                ("", "")
                if form == WITHOUT
                else (f"{row['operations']:,}", f"{row['memory_bytes'] / 2**20:.0f}")
            )
            print(markdown.row((method, timesteps, form, *times, *program)), flush=True)


def compared(settings, method, timesteps):
    """`loops.compared` of the forms of a step, with what `costs.compiled_by_xla` tells
    of those with XLA."""
    batch = cases.batch(settings)
    forms = {
        form: (dataclasses.replace(settings, jit_compile=jit_compile), choice)
        for form, (jit_compile, choice) in FORMS.items()
        # A network without time has no loops.
        if choice is None or method != ORDINARY
    }

    def program(form, model):
        return {} if form == WITHOUT else costs.compiled_by_xla(model, *batch)

    return loops.compared(forms, method, timesteps, program)


main = command_line.command(__name__, "benchmark.xla", __doc__, add_arguments, run)
