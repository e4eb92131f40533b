"""Accuracy, memory and time against T, for several methods: `python -m
recipes.benchmark.against_timesteps digits`.

This is figure 4 of Yu et al., NeurIPS 2024, for any recipe. For each T each method
trains the recipe with each seed. The memory of its training step is measured where the
backend reports it: on JAX, and on GPUs. At the end all steps are timed in turn. The
folder gets the record, `NAME.json`, and the figure, `NAME.png` and `NAME.svg`. With the
same arguments a finished record is only drawn again; with other ones it is an error.
"""

import functools
import pathlib
import statistics
import sys

from recipes import command_line, markdown
from recipes.atomic_files import read_json, write_json

FIELDS = {"settings": list, "backend": str, "memory_measure": str | None, "rows": list}
"""Fields of a record that are read, with their types."""

ROW_FIELDS = {"timesteps", "method", "accuracies", "memory_bytes", "seconds"}
ADVICE = (
    "It is not a record of python -m recipes.benchmark.against_timesteps; remove "
    "it, or name another file or folder."
)

WARM_UP_STEPS = 2


def add_arguments(parser):
    command_line.add_recipe(parser)
    parser.add_argument(
        "--methods",
        nargs="+",
        default=["rate-multi", "bptt-multi"],
        metavar="NAME",
        help="as in recipes.compare",
    )
    command_line.add_count(
        parser,
        "--timesteps",
        "numbers of time steps",
        [1, 2, 4, 8],
        nargs="+",
        metavar="T",
    )
    command_line.add_seeds(parser, default=3)
    command_line.add_count(parser, "--rounds", "number of times a step is timed", 20)
    command_line.add_path(
        parser,
        "--output",
        "(default: %(default)s)",
        default=pathlib.Path("runs", "against_timesteps"),
    )


def compare(arguments):
    """Measures what the record does not have yet, prints and draws it."""
    from recipes import plots, run

    # Duplicates are measured only once.
    arguments.timesteps = list(dict.fromkeys(arguments.timesteps))
    arguments.methods = list(dict.fromkeys(arguments.methods))
    record_path = arguments.output / f"{arguments.recipe}.json"
    with command_line.mistakes():
        recipes = recipes_of(arguments)
        if record_path.exists():
            record = read_record(record_path)
            check_same(record, arguments, record_path)
        else:
            arguments.output.mkdir(parents=True, exist_ok=True)
            try:
                record = measure(arguments, recipes)
            except run.Diverged as error:
                message = f"the training diverged: {error}. {command_line.SMALLER}"
                raise command_line.Ended(message, command_line.DIVERGED) from error
            write_json(record_path, record)
        print(table(record))
        plots.save(draw(record), record_path.with_suffix(".png"), dpi=90)


def recipes_of(arguments):
    """The recipes to train, a dictionary from `(timesteps, method, seed)`; raises
    TypeError or ValueError for a mistake."""
    from recipes import methods
    from recipes.settings import TEACHING_SETTINGS

    alone = dict.fromkeys(TEACHING_SETTINGS, "The spiking network is trained alone.")
    assignments = {name: methods.assignments(name) for name in arguments.methods}
    recipes = methods.cases(arguments, assignments, arguments.timesteps, alone)
    for recipe in recipes.values():
        recipe.check_classifies("benchmark.against_timesteps")
    return recipes


def read_record(path):
    """The record in a file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged or something else.
    """
    record = read_json(path, FIELDS, ADVICE)
    if not record["rows"] or not all(
        isinstance(row, dict) and row.keys() >= ROW_FIELDS for row in record["rows"]
    ):
        raise ValueError(
            f"{path} must have 'rows' with {', '.join(sorted(ROW_FIELDS))}. {ADVICE}"
        )
    return record


def check_same(record, arguments, path):
    """Checks that a record was measured with these arguments; raises ValueError, with
    the path of its file, if not."""
    import keras

    rows = record["rows"]
    timesteps = list(dict.fromkeys(row["timesteps"] for row in rows))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    measured_with = {
        "--set": (record["settings"], arguments.set),
        "--timesteps": (timesteps, arguments.timesteps),
        "--methods": (methods, arguments.methods),
        "--seeds": ([len(rows[0]["accuracies"])], [arguments.seeds]),
        # Records of earlier versions lack it.
        "--rounds": ([record.get("rounds", arguments.rounds)], [arguments.rounds]),
        "KERAS_BACKEND": ([record["backend"]], [keras.backend.backend()]),
    }
    changed = [
        f"{name} {' '.join(map(str, before)) or 'nothing'}, now "
        f"{' '.join(map(str, now)) or 'nothing'}"
        for name, (before, now) in measured_with.items()
        if before != now
    ]
    if changed:
        raise ValueError(
            f"{path} was measured with other arguments: {'; '.join(changed)}. Repeat "
            "those to draw it again; for a new measurement pass another folder with "
            "--output, or remove the file."
        )


def measure(arguments, recipes):
    """Trains and measures all cases; returns the record, a dictionary of plain numbers
    and names.

    Args:
        arguments: The command line.
        recipes: The result of `recipes_of`.
    """
    import keras

    from recipes import batches, device, run
    from recipes.benchmark import costs, timing

    steps, rows, dataset = {}, {}, None
    for timesteps in arguments.timesteps:
        recipe = recipes[timesteps, arguments.methods[0], 0]
        # Frames of an event camera depend on the number of time steps.
        if dataset is None or recipe.has_time:
            dataset = recipe.load(
                arguments.data_dir, in_memory_for="benchmark.against_timesteps"
            )
        for method in arguments.methods:
            accuracies = []
            for seed in range(arguments.seeds):
                recipe = recipes[timesteps, method, seed]
                model = run.build(recipe, dataset)
                accuracies.append(run.trained_accuracy(model, recipe, dataset))
                print(
                    f"T = {timesteps}, {method}, seed {seed}: {accuracies[-1]:.4f}",
                    file=sys.stderr,
                    flush=True,
                )
            batch = next(iter(batches.training_batches(dataset, recipe)))
            batch = [part.numpy() for part in batch]
            case = timesteps, method
            steps[case] = functools.partial(model.train_on_batch, *batch)
            rows[case] = {
                "timesteps": timesteps,
                "method": method,
                "accuracies": accuracies,
                "memory_bytes": memory_of(model, steps[case], batch),
            }
    # All in turn, so that the load of the machine affects each T alike.
    timing.interleaved(steps, WARM_UP_STEPS)
    for case, seconds in timing.interleaved(steps, arguments.rounds).items():
        rows[case]["seconds"] = timing.spread(seconds)
    return {
        "recipe": arguments.recipe,
        "settings": arguments.set,
        "epochs": recipe.epochs,
        "batch": recipe.batch_size,
        "rounds": arguments.rounds,
        "tested": recipe.tested,
        "backend": keras.backend.backend(),
        "device": device.name(),
        "versions": device.versions(),
        "memory_measure": None
        if costs.needs_separate_process()
        else costs.memory_measure(),
        "rows": list(rows.values()),
    }


def memory_of(model, step, batch):
    """The memory of a training step in bytes, or `None` where only a process of its own
    could measure it."""
    import keras

    from recipes.benchmark import costs

    if keras.backend.backend() == "jax":
        batch = map(keras.ops.convert_to_tensor, batch)
        return costs.compiled(model, *batch)["memory_bytes"]
    if costs.needs_separate_process():
        return None
    step()
    return costs.memory_rise(step)


def table(record):
    """The record as a Markdown table."""
    rows = []
    for row in record["rows"]:
        memory = "not measured"
        if row["memory_bytes"] is not None:
            memory = f"{row['memory_bytes'] / 2**20:.1f}"
        accuracy = markdown.mean_of(row["accuracies"])
        milliseconds = f"{1000 * row['seconds']['median']:.1f}"
        rows.append((row["timesteps"], row["method"], accuracy, memory, milliseconds))
    accuracy = f"{_tested(record)} accuracy"
    columns = ("T", "method", accuracy, "memory, MiB", "time of a step, ms")
    return markdown.table(columns, rows)


def panels(record):
    """What is drawn: for each panel its title, and a function of a row that returns a
    value and its bounds."""
    drawn = [
        (f"{_tested(record)} accuracy", lambda row: _with_deviation(row["accuracies"]))
    ]
    if record["memory_measure"]:
        drawn.append(
            ("memory of a step, MiB", lambda row: (row["memory_bytes"] / 2**20,) * 3)
        )
    drawn.append(
        ("time of a step, ms", lambda row: (1000 * row["seconds"]["median"],) * 3)
    )
    return drawn


def _tested(record):
    """Which images the accuracies are of, "test" or "held-out"; records of earlier
    versions are of test images."""
    return record.get("tested", "test")


def _with_deviation(values):
    mean = statistics.mean(values)
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return mean, mean - deviation, mean + deviation


def draw(record):
    """A figure with a panel for accuracy, memory and time against T."""
    from recipes import plots

    chosen = panels(record)
    figure = plots.new_figure(3.2 * len(chosen), 3.2)
    for axes, panel in zip(figure.subplots(1, len(chosen)), chosen, strict=True):
        draw_panel(axes, record, *panel)
    return figure


def draw_panel(axes, record, title, value):
    """One line for each method against T."""
    from recipes import plots

    plots.against_timesteps(axes, title, record["rows"], value)
    # Costs are compared by their ratio.
    if "accuracy" not in title:
        axes.set_ylim(bottom=0)


EPILOG = (
    "A finished record in the output folder is only drawn again, and only with "
    "the arguments it was measured with."
)

main = command_line.command(
    __name__,
    "benchmark.against_timesteps",
    __doc__,
    add_arguments,
    compare,
    epilog=EPILOG,
)
