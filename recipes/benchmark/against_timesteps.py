"""Accuracy, memory and time against T, for several methods: `python -m
recipes.benchmark.against_timesteps digits`.

This is figure 4 of Yu et al., NeurIPS 2024, for any recipe. For each T each method
trains the recipe with each seed. The memory of its training step is measured where the
backend reports it: on JAX, and on GPUs. At the end all steps are timed in turn. The
folder gets the record, `NAME.json`, and the figure, `NAME.png` and `NAME.svg`.
"""

import functools
import pathlib
import statistics
import sys

from recipes import command_line, markdown
from recipes.atomic_files import read_json, write_json

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
    show = "prints and draws what was measured before"
    parser.add_argument("--show", action="store_true", help=show)
    command_line.add_path(
        parser,
        "--output",
        "(default: %(default)s)",
        default=pathlib.Path("runs", "against_timesteps"),
    )


def compare(arguments):
    """Measures, prints and draws."""
    from recipes import plots

    path = arguments.output / f"{arguments.recipe}.json"
    with command_line.mistakes():
        record = read_json(path) if arguments.show else measure(arguments, path)
        print(table(record))
        plots.save(draw(record), path.with_suffix(".png"), dpi=90)


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


def measure(arguments, path):
    """Trains and measures all cases, and writes the record, a dictionary of plain
    numbers and names, which it returns.

    Args:
        arguments: The command line.
        path: Path of the file.

    Raises:
        FileExistsError: If there is a record already.
    """
    import keras

    from recipes import batches, device, run
    from recipes.benchmark import costs, timing

    # Duplicates are measured only once.
    arguments.timesteps = list(dict.fromkeys(arguments.timesteps))
    arguments.methods = list(dict.fromkeys(arguments.methods))
    recipes = recipes_of(arguments)
    if path.exists():
        raise FileExistsError(
            f"{path} was measured before. Pass --show to draw it, or another folder "
            "with --output."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
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
                try:
                    accuracies.append(run.trained_accuracy(model, recipe, dataset))
                except run.Diverged as error:
                    message = f"the training diverged: {error}. {command_line.SMALLER}"
                    raise command_line.Ended(message, command_line.DIVERGED) from error
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
    has_memory = not costs.needs_separate_process()
    record = {
        "recipe": arguments.recipe,
        "settings": arguments.set,
        "epochs": recipe.epochs,
        "batch": recipe.batch_size,
        "rounds": arguments.rounds,
        "tested": recipe.tested,
        "backend": keras.backend.backend(),
        "device": device.name(),
        "versions": device.versions(),
        "memory_measure": costs.memory_measure() if has_memory else None,
        "rows": list(rows.values()),
    }
    write_json(path, record)
    return record


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


main = command_line.command(
    __name__, "benchmark.against_timesteps", __doc__, add_arguments, compare
)
