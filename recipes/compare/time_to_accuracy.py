"""Accuracy against time, memory and FLOPs, by us and by others: `python -m
recipes.compare.time_to_accuracy fashion_mnist`.

Trains a recipe on PyTorch by methods of this library, and in SpikingJelly and snnTorch
by their BPTT: the same network, initial weights, batches and optimizer. The seconds are
those of a step times the number of steps, and of what compiling takes at the start, so
trainings may run beside other work; `--time` measures the steps of all methods in turn.
On a CPU it is the time of the processor, with one thread, which other processes affect
little.

Finished trainings are not repeated. SpikingJelly's memory optimisation keeps the
gradient, so its accuracies are those of SpikingJelly. The folder gets a run for each T,
method and seed, the times of each T, and the figure.
"""

import dataclasses
import pathlib
import statistics

import numpy as np

from recipes import (
    catalogue,
    checks,
    command_line,
    device,
    markdown,
    methods,
    packages,
    plots,
    run,
)
from recipes.atomic_files import allowed, write_json
from recipes.benchmark import timing
from recipes.benchmark.settings import PEERS
from recipes.command_line import DIVERGED, SMALLER, Ended
from recipes.compare import training
from recipes.run_folder import RunFolder, test_score
from recipes.settings import TEACHERS

COMMAND = "compare.time_to_accuracy"
METHODS = [
    "rate-multi",
    "rate-multi-2",
    "bptt-multi",
    "spikingjelly",
    "spikingjelly-memopt",
    "snntorch",
]
GOAL, TOLERANCE = "spikingjelly", 0.002
"""The goal of all methods is the test accuracy of this one after its last epoch, minus
0.2 points."""

WITHOUT = {
    "ordinary": "no",
    **dict.fromkeys(TEACHERS),
    "levels": None,
    "weights": None,
    "temporal": None,
    "random_timesteps": None,
    "one_step_epochs": 0,
    "two_window_epochs": 0,
    "initial_membrane": 0.0,
    "normalization": "batch",
    "mix": "none",
    "precision": "float32",
    "held_out": None,
}
"""Settings that the trainings in other libraries lack, and their values where they are
not used."""

BPTT = ["gradient=bptt", "step_mode=multi"]

SHOWN_BELOW = 0.1
"""How far below the goal the figure begins."""


def add_arguments(parser):
    command_line.add_recipe(parser)
    names = f"methods as in recipes.compare, or of {', '.join(PEERS)}"
    parser.add_argument(
        "--methods", nargs="+", default=METHODS, metavar="METHOD", help=names
    )
    numbers = "numbers of time steps (default: the recipe's)"
    command_line.add_timesteps(parser, numbers)
    command_line.add_seeds(parser, default=1)
    command_line.add_count(parser, "--rounds", "number of times a step is timed", 10)
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument(
        "--time", action="store_true", help="times the steps instead of training"
    )
    mode.add_argument(
        "--show", action="store_true", help="prints and draws what is there already"
    )
    output = "folder of runs, times and figure (default: runs/time_to_accuracy/NAME)"
    command_line.add_path(parser, "--output", output)


def compare(arguments):
    """Trains or times what the folder does not have yet; prints the table and draws the
    figure. Returns the exit status."""
    arguments.output = arguments.output or pathlib.Path(
        "runs", "time_to_accuracy", arguments.recipe
    )
    arguments.methods = list(dict.fromkeys(arguments.methods))
    with command_line.mistakes():
        device.check_backend("torch", "The other libraries are for PyTorch.")
        for method in arguments.methods:
            if method in PEERS:
                package = PEERS[method].package
                packages.imported(package, f"The method {method!r}", "bench")
        recipes = recipes_of(arguments)
        for _, method, recipe, folder in cases_of(arguments, recipes):
            folder.check(run_settings(recipe, method))
        if arguments.time:
            for timesteps, by_method in recipes.items():
                _time(arguments, timesteps, by_method)
        elif not arguments.show:
            status = _train(arguments, recipes)
            if status:
                return status
        tables = {}
        for timesteps, by_method in recipes.items():
            rows = rows_of(arguments, timesteps, by_method)
            if rows:
                _, goal = goal_of(rows)
                title = f"T = {timesteps}" + (f", goal {goal:.4f}" if goal else "")
                print(f"\n{title}\n\n{table(rows)}", flush=True)
                tables[timesteps] = rows
        if tables:
            plots.save(draw(tables), arguments.output / "time_to_accuracy.png", dpi=90)
        print(f"\n{done_and_next(arguments, recipes)}")
    return 0


def done_and_next(arguments, recipes):
    """The results that the folder has, and those that it lacks, for people."""
    results = {folder.result for *_, folder in cases_of(arguments, recipes)}
    trained = sum(path.exists() for path in results)
    timed = sum(_times_path(arguments, timesteps).exists() for timesteps in recipes)
    if trained < len(results):
        advice = "To train the others, repeat the command without --time and --show."
    elif timed < len(recipes):
        advice = "To time the others, repeat the command with --time."
    else:
        advice = "Nothing is left to do: see time_to_accuracy.png there."
    return (
        f"{arguments.output} has {trained} of {len(results)} trainings, and steps are "
        f"timed for {timed} of {len(recipes)} numbers of time steps. {advice}"
    )


def recipes_of(arguments):
    """The recipes to train with the first seed, by T and method: a dictionary of
    dictionaries; raises TypeError or ValueError for a mistake."""
    assignments = {
        method: BPTT if method in PEERS else methods.assignments(method, PEERS)
        for method in arguments.methods
    }
    refused = {
        "seed": "Pass --seeds.",
        "timesteps": "Pass --timesteps.",
        **methods.set_by_methods(assignments),
    }
    recipes: dict = {}
    for timesteps in arguments.timesteps or [
        catalogue.find(arguments.recipe).timesteps
    ]:
        by_method = recipes.setdefault(timesteps, {})
        for method, settings in assignments.items():
            further = [*settings, f"timesteps={timesteps}", "seed=0"]
            by_method[method] = catalogue.chosen(arguments, refused, further)
            _check(by_method[method])
    return recipes


def cases_of(arguments, recipes):
    """Yields T, the method, the recipe and the `RunFolder` of all trainings. Seeds are
    the outer loop, so that an interrupted comparison has the same for all methods."""
    for seed in range(arguments.seeds):
        for timesteps, by_method in recipes.items():
            for method, recipe in by_method.items():
                folder = folder_of(arguments, timesteps, method, seed)
                seeded = dataclasses.replace(recipe, seed=seed)
                yield timesteps, method, seeded, folder


def _check(recipe):
    recipe.check_classifies(COMMAND)
    settings = recipe.settings()
    for name, value in WITHOUT.items():
        if settings[name] != value:
            remedy = (
                "The other libraries train without it: pass --set "
                f"{name}={value}, or choose another recipe."
            )
            raise checks.mistake(name, repr(value), settings[name], remedy)
    if recipe.has_time and recipe.mask_value is None:
        remedy = (
            "The other libraries are given images, or sequences of unequal "
            "length; choose another recipe."
        )
        raise checks.mistake(
            "recipe",
            "one of images or of sequences of unequal length",
            recipe.name,
            remedy,
        )


def folder_of(arguments, timesteps, method, seed):
    """The `RunFolder` of a method; SpikingJelly's with memory optimisation is that
    without."""
    name = PEERS[method].package if method in PEERS else allowed(method)
    return RunFolder(arguments.output / f"T{timesteps}" / f"{name}-{seed}")


def run_settings(recipe, method):
    """The settings of a run, as its folder has them."""
    settings = {**recipe.settings()}
    if method in PEERS:
        settings["library"] = PEERS[method].package
    return settings


def _train(arguments, recipes):
    """Trains what is not finished; returns the exit status."""
    datasets = {}
    for timesteps, method, recipe, folder in cases_of(arguments, recipes):
        # SpikingJelly's training with memory optimisation is that without.
        if folder.result.exists():
            continue
        if method in PEERS:
            if timesteps not in datasets:
                datasets[timesteps] = recipe.load(
                    arguments.data_dir, in_memory_for=COMMAND
                )
            _train_peer(recipe, datasets[timesteps], method, folder)
            continue
        settings = methods.assignments(method)
        settings += [f"timesteps={timesteps}", f"seed={recipe.seed}"]
        status = training.train(arguments, folder, settings)
        if status:
            # It has printed the reason.
            return status
    return 0


def _train_peer(recipe, dataset, method, folder):
    # Imported here because it imports PyTorch.
    from recipes.compare import peer_training

    settings = run_settings(recipe, method)
    try:
        with folder.lock():
            folder.begin(settings)
            record = peer_training.train(recipe, dataset, method, folder.path)
    except run.Diverged as error:
        what = f"the run in {folder.path} diverged: {error}. {SMALLER}, and another"
        raise Ended(f"{what} --output.", DIVERGED) from error
    write_json(folder.result, {"settings": settings, **record})


def _time(arguments, timesteps, by_method):
    """Times the steps of a T that has no times yet."""
    from recipes.compare import step_times

    path = _times_path(arguments, timesteps)
    if not step_times.read(path, by_method):
        recipe = by_method[arguments.methods[0]]
        dataset = recipe.load(arguments.data_dir, in_memory_for=COMMAND)
        step_times.write(path, by_method, dataset, arguments.rounds)


def _times_path(arguments, timesteps):
    """The file of the times of the steps with T time steps."""
    return arguments.output / f"T{timesteps}" / "steps.json"


def rows_of(arguments, timesteps, by_method):
    """The methods with T time steps that are trained and timed: a list of dictionaries.

    `method`; `accuracies` after the last epoch, and `curve`, the mean accuracy after
    each epoch, of the seeds that all methods have that have any; `times`, a row of
    `step_times.measure_all`, and the `seconds` and `flops` up to each epoch by it.
    """
    from recipes.compare import step_times

    all_times = step_times.read(_times_path(arguments, timesteps), by_method)
    finished: dict = {}
    for _, method, recipe, folder in cases_of(arguments, {timesteps: by_method}):
        if method in all_times and folder.result.exists():
            records = finished.setdefault(method, {})
            records[recipe.seed] = folder.read_test_result()
    seeds = [set(records) for records in finished.values()]
    common = sorted(set.intersection(*seeds)) if seeds else []
    rows = []
    for method, by_seed in finished.items():
        records = [by_seed[seed] for seed in common]
        curves = [record["curve"]["test_accuracy"] for record in records]
        times = all_times[method]
        epochs = np.arange(1, by_method[method].epochs + 1)
        row = {
            "method": method,
            "accuracies": [test_score(record) for record in records],
            "times": times,
            "curve": np.mean(curves, axis=0),
            "seconds": times["start_seconds"] + times["epoch_seconds"] * epochs,
            "flops": times["epoch_flops"] * epochs,
        }
        rows.append(row)
    return rows


def goal_of(rows):
    """The row of `GOAL` and its accuracy after the last epoch minus `TOLERANCE`, or
    `(None, None)`."""
    row = next((row for row in rows if row["method"] == GOAL), None)
    return row, row and statistics.mean(row["accuracies"]) - TOLERANCE


COLUMNS = (
    "method",
    "seeds",
    "test accuracy",
    "step, ms",
    "start, s",
    "whole training, s",
    "memory, MiB",
    "TFLOP",
    "epochs to the goal",
    "s to the goal",
    f"of {GOAL}'s whole training",
)


def table(rows):
    """A Markdown table of the rows of a T."""
    base, goal = goal_of(rows)
    lines = []
    for row in rows:
        times = row["times"]
        costs = (
            row["method"],
            len(row["accuracies"]),
            markdown.mean_of(row["accuracies"]),
            timing.with_quartiles(times["seconds"], 1000, 1),
            f"{times['start_seconds']:.1f}",
            f"{row['seconds'][-1]:.1f}",
            f"{times['memory_bytes'] / 2**20:.1f}",
            f"{row['flops'][-1] / 1e12:.3g}",
        )
        to_goal = _to_goal(row, base, goal) if base else ("", "", "")
        lines.append((*costs, *to_goal))
    return markdown.table(COLUMNS, lines)


def _to_goal(row, base, goal):
    """When the mean accuracy of a method is at the goal for the first time."""
    reached = np.flatnonzero(np.greater_equal(row["curve"], goal))
    if not reached.size:
        return "not reached", "", ""
    seconds = row["seconds"][reached[0]]
    return reached[0] + 1, f"{seconds:.1f}", f"{seconds / base['seconds'][-1]:.2f}"


def draw(tables):
    """A figure with a line of panels for each T: accuracy against the memory of a step,
    against seconds and against FLOPs."""
    figure = plots.new_figure(12, 3.6 * len(tables))
    lines = figure.subplots(len(tables), 3, squeeze=False)
    for (timesteps, rows), line in zip(tables.items(), lines, strict=True):
        _draw_rows(line, rows)
        memory, seconds, flops = line
        title = f"T = {timesteps}: test accuracy after the last epoch"
        plots.dress(memory, title, "memory of a step, MiB", "lower left")
        title = "test accuracy after each epoch"
        plots.dress(seconds, title, "seconds, with compiling")
        plots.dress(flops, title, "TFLOP")
        _, goal = goal_of(rows)
        highest = max(max(row["curve"]) for row in rows)
        for axes in line:
            axes.set_xlim(left=0)
            if goal:
                axes.set_ylim(goal - SHOWN_BELOW, highest + SHOWN_BELOW / 10)
                axes.axhline(goal, color="0.5", linewidth=1)
    return figure


def _draw_rows(line, rows):
    memory, seconds, flops = line
    for index, row in enumerate(rows):
        accuracies, curve = row["accuracies"], row["curve"]
        look = {
            **plots.style(index),
            "label": methods.in_words(row["method"]),
            "markersize": 4,
            "markevery": max(1, len(curve) // 10),
        }
        deviation = statistics.stdev(accuracies) if len(accuracies) > 1 else None
        mebibytes = row["times"]["memory_bytes"] / 2**20
        memory.errorbar(mebibytes, curve[-1], deviation, capsize=3, **look)
        seconds.plot(row["seconds"], curve, **look)
        flops.plot(row["flops"] / 1e12, curve, **look)


ADVICE = "; repeat the command to go on"

main = command_line.command(__name__, COMMAND, __doc__, add_arguments, compare, ADVICE)
