"""Unrolled against compiled time loops of neuron layers: `KERAS_BACKEND=jax python -m
recipes.benchmark.unrolling`.

Prints the time of a training step in both forms for each T, compile time and memory,
and which `unrolled_steps` of `keras_ratesnn.engine_settings` this device asks for.
Rate-based training has loops without gradient, BPTT loops with gradient.
"""

from recipes import command_line, device, markdown
from recipes.benchmark import cases, loops
from recipes.benchmark.arguments import OF_STEPS, add_settings, settings_of

METHODS = {False: "rate-multi", True: "bptt-multi"}
"""A method whose loops have a gradient or not, by that."""

TIMESTEPS = (2, 4, 8, 16)
FORMS = {"unrolled": True, "loop": False}


def add_arguments(parser):
    add_settings(parser, *OF_STEPS, timesteps=TIMESTEPS)


def run(arguments):
    settings = settings_of(arguments, methods=tuple(METHODS.values()))
    with command_line.mistakes():
        device.check_backend(
            "jax",
            "This benchmark needs JAX, the backend that always compiles the time loops "
            "of layers.",
        )
    cases.configure(settings)
    print(f"{device.name()}: {settings.subject}\n")
    print(
        markdown.heading(
            ("method", "T", "unrolled, ms", "loop, ms", "compile, s", "MiB")
        )
    )
    found = {with_gradient: {} for with_gradient in METHODS}
    for timesteps in sorted(settings.timesteps):
        for with_gradient, method in METHODS.items():
            forms = loops.compared(
                {form: (settings, choice) for form, choice in FORMS.items()},
                method,
                timesteps,
            )
            found[with_gradient][timesteps] = forms
            times = [f"{1000 * row['seconds']['median']:.1f}" for row in forms.values()]
            compiling = " and ".join(
                f"{row['compile_seconds']:.1f}" for row in forms.values()
            )
            memory = " and ".join(
                f"{row['memory_bytes'] / 2**20:.0f}" for row in forms.values()
            )
            print(
                markdown.row((method, timesteps, *times, compiling, memory)), flush=True
            )
    print(
        "\nUnrolled up to this T it is faster: "
        + repr({key: last_faster(rows) for key, rows in found.items()})
    )


def last_faster(rows):
    """The largest T up to which the unrolled form was faster at every measured T; 1 if
    it never was.

    Args:
        rows: Dictionary from T, in increasing order, to results of `loops.compared`.
    """
    last = 1
    for timesteps, row in rows.items():
        if row["unrolled"]["seconds"]["median"] > row["loop"]["seconds"]["median"]:
            return last
        last = timesteps
    return last


main = command_line.command(
    __name__, "benchmark.unrolling", __doc__, add_arguments, run
)
