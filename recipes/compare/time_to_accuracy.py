"""Accuracy against time, memory and FLOPs, by us and by others: `python -m
recipes.compare.time_to_accuracy fashion_mnist`.

Trains a recipe on PyTorch by methods of this library, and in SpikingJelly and snnTorch
by their BPTT: the same network, initial weights, batches and optimizer. The seconds are
those of a step times the number of steps, and of what compiling takes at the start, so
trainings may run beside other work; `--time` measures the steps of all methods in turn.
On a CPU it is the time of the processor, with one thread, which other processes affect
little.

Interrupted trainings resume, and finished ones are not repeated. SpikingJelly's memory
optimisation keeps the gradient, so its accuracies are those of SpikingJelly. The folder
gets a run for each T, method and seed, the times of each T, and the figure.
"""

import functools
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
from recipes.atomic_files import allowed
from recipes.benchmark import timing
from recipes.benchmark.settings import PEERS
from recipes.command_line import DIVERGED, INTERRUPTED, SMALLER, Ended
from recipes.compare import training
from recipes.compare.announced import Announced
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
    **{
        "ordinary": "no",
        **dict.fromkeys(TEACHERS),
        "levels": None,
        "weights": None,
        "temporal": None,
    },
    **{
        "random_timesteps": None,
        "one_step_epochs": 0,
        "normalization": "batch",
        "mix": "none",
        "precision": "float32",
    },
}
"""Settings that the trainings in other libraries lack, and their values where they are
not used."""

BPTT = ["gradient=bptt", "step_mode=multi"]

SHOWN_BELOW = 0.1
"""How far below the goal the figure begins."""


def add_arguments(parser):
    command_line.add_recipe(parser)
    names = (
        f"as in recipes.compare, or of {', '.join(PEERS)} (default: "
        f"{' '.join(METHODS)})"
    )
    parser.add_argument(
        "--methods", nargs="+", default=METHODS, metavar="METHOD", help=names
    )
    command_line.add_count(
        parser,
        "--timesteps",
        "numbers of time steps (default: the recipe's)",
        nargs="+",
        metavar="T",
    )
    command_line.add_seeds(parser, default=1)
    command_line.add_count(parser, "--rounds", "number of times a step is timed", 10)
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument(
        "--time", action="store_true", help="times the steps instead of training"
    )
    mode.add_argument(
        "--show", action="store_true", help="prints and draws what is there already"
    )
    command_line.add_path(parser, "--output", "(default: runs/time_to_accuracy/NAME)")
    command_line.add_path(
        parser,
        "--plot",
        "the figure (default: time_to_accuracy.png in the output folder)",
        "FILE",
    )


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
                packages.imported(
                    PEERS[method].package, f"The method {method!r}", "bench"
                )
        recipes = recipes_of(arguments)
        for of_run, recipe in recipes.items():
            folder_of(arguments, *of_run).check(run_settings(recipe, of_run[1]))
        if not arguments.show:
            status = (
                _time(arguments, recipes)
                if arguments.time
                else _train(arguments, recipes)
            )
            if status:
                return status
        found = {
            timesteps: rows_of(arguments, recipes, timesteps)
            for timesteps in dict.fromkeys(key[0] for key in recipes)
        }
        for timesteps, rows in found.items():
            _, goal = goal_of(rows)
            print(
                "\nT = "
                f"{timesteps}{f', goal {goal:.4f}' if goal else ''}\n\n{table(rows)}",
                flush=True,
            )
        timed = {
            timesteps: rows
            for timesteps, rows in found.items()
            if any(row["seconds"] and row["accuracies"] for row in rows)
        }
        if timed:
            path = arguments.plot or arguments.output / "time_to_accuracy.png"
            plots.save(draw(timed, path), path, dpi=90)
    return 0


def recipes_of(arguments):
    """The recipes to train, a dictionary from `(timesteps, method, seed)`; raises
    TypeError or ValueError for a mistake."""
    of_methods = {
        method: BPTT if method in PEERS else methods.assignments(method, PEERS)
        for method in arguments.methods
    }
    in_place_of_set = {
        setting.partition("=")[0]: "Name the method with --methods."
        for of in of_methods.values()
        for setting in of
    }
    refused = {
        "seed": "Pass --seeds.",
        "timesteps": "Pass --timesteps.",
        **in_place_of_set,
    }
    found = {}
    for timesteps in arguments.timesteps or [
        catalogue.find(arguments.recipe).timesteps
    ]:
        for seed in range(arguments.seeds):
            for method, settings in of_methods.items():
                further = [*settings, f"timesteps={timesteps}", f"seed={seed}"]
                found[timesteps, method, seed] = _checked(
                    catalogue.chosen(arguments, refused, further)
                )
    return found


def _checked(recipe):
    recipe.check_classifies(COMMAND)
    settings = recipe.settings()
    for name, value in WITHOUT.items():
        if settings[name] != value:
            remedy = (
                "The other libraries train without it: pass --set "
                f"{name}={value}, or choose another recipe."
            )
            raise checks.mistake(name, repr(value), settings[name], remedy)
    if recipe.held_out is not None:
        raise checks.mistake(
            "held_out",
            "None",
            recipe.held_out,
            "The accuracies are those of test images. Leave it out.",
        )
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
    return recipe


def folder_of(arguments, timesteps, method, seed):
    """The `RunFolder` of a method; SpikingJelly's with memory optimisation is that
    without."""
    name = PEERS[method].package if method in PEERS else allowed(method)
    return RunFolder(arguments.output / f"T{timesteps}" / f"{name}-{seed}")


def run_settings(recipe, method):
    """The settings of a run, as its folder has them."""
    return {
        **recipe.settings(),
        **({"library": PEERS[method].package} if method in PEERS else {}),
    }


def _train(arguments, recipes):
    """Trains what is not finished; returns the exit status. An interrupted comparison
    has the same seeds for all methods."""
    pending = {}
    for key in sorted(recipes, key=lambda key: key[2]):
        folder = folder_of(arguments, *key)
        if not folder.result.exists():
            # SpikingJelly's training with memory optimisation is that without.
            pending.setdefault(folder.path, key)
    names = {
        (timesteps, method): f"{method} at T = {timesteps}"
        for timesteps, method, _ in recipes
    }
    to_train = [
        (names[timesteps, method], seed) for timesteps, method, seed in pending.values()
    ]
    announced, loaded = Announced(list(names.values()), to_train), {}
    for (timesteps, method, seed), name in zip(pending.values(), to_train, strict=True):
        recipe, folder = (
            recipes[timesteps, method, seed],
            folder_of(arguments, timesteps, method, seed),
        )
        if method not in PEERS:
            settings = [
                *methods.assignments(method),
                f"timesteps={timesteps}",
                f"seed={seed}",
            ]
            with announced.watching(name, folder):
                status = training.train(arguments, folder, settings)
            if status == INTERRUPTED:
                raise KeyboardInterrupt
            if status:
                # It has printed the reason.
                return status
            continue
        if timesteps not in loaded:
            loaded[timesteps] = recipe.load(arguments.data_dir, in_memory_for=COMMAND)
        _train_peer(
            recipe,
            loaded[timesteps],
            method,
            folder,
            functools.partial(announced.epoch, name),
        )
    return 0


def _train_peer(recipe, dataset, method, folder, after_epoch):
    # Imported here because it imports PyTorch.
    from recipes.compare import peer_training

    settings = run_settings(recipe, method)
    with folder.lock():
        folder.check(settings)
        folder.begin(settings)
        try:
            peer_training.train(recipe, dataset, method, folder, settings, after_epoch)
        except run.Diverged as error:
            raise Ended(
                f"the run in {folder.path} diverged: {error}. {SMALLER}, and another "
                "--output.",
                DIVERGED,
            ) from error


def _time(arguments, recipes):
    """Times the steps of each T that has no times yet."""
    from recipes.compare import step_times

    for timesteps in dict.fromkeys(key[0] for key in recipes):
        path, of_methods = (
            times_of(arguments, timesteps),
            recipes_of_methods(arguments, recipes, timesteps),
        )
        if not step_times.read(path, of_methods):
            recipe = recipes[timesteps, arguments.methods[0], 0]
            dataset = recipe.load(arguments.data_dir, in_memory_for=COMMAND)
            step_times.write(path, of_methods, dataset, arguments.rounds)


def times_of(arguments, timesteps):
    """The file of the times of the steps with T time steps."""
    return arguments.output / f"T{timesteps}" / "steps.json"


def recipes_of_methods(arguments, recipes, timesteps):
    """The recipes of the first seed with T time steps, a dictionary from methods."""
    return {method: recipes[timesteps, method, 0] for method in arguments.methods}


def rows_of(arguments, recipes, timesteps):
    """What is there of the methods with T time steps: a list of dictionaries.

    `method`; `accuracies` after the last epoch, and `curve`, the mean accuracy after
    each epoch, of the seeds that all methods have that have any; `times`, a row of
    `step_times.measure_all`, and the `seconds` and `flops` up to each epoch by it. What
    is missing is empty.
    """
    from recipes.compare import step_times

    of_methods = recipes_of_methods(arguments, recipes, timesteps)
    times = step_times.read(times_of(arguments, timesteps), of_methods)
    finished: dict = {method: {} for method in arguments.methods}
    for number, method, seed in recipes:
        folder = folder_of(arguments, number, method, seed)
        if number == timesteps and folder.result.exists():
            finished[method][seed] = folder.read_test_result()
    seeds = (
        set.intersection(*(set(records) for records in finished.values() if records))
        if any(finished.values())
        else set()
    )
    rows = []
    for method, by_seed in finished.items():
        records = [by_seed[seed] for seed in sorted(seeds) if by_seed]
        row = {
            "method": method,
            "accuracies": [test_score(record) for record in records],
            "times": times.get(method, {}),
        }
        row["curve"] = (
            np.mean([record["curve"]["test_accuracy"] for record in records], axis=0)
            if records
            else ()
        )
        epochs = range(1, of_methods[method].epochs + 1) if row["times"] else ()
        row["seconds"] = [
            row["times"]["start_seconds"] + epoch * row["times"]["epoch_seconds"]
            for epoch in epochs
        ]
        row["flops"] = [epoch * row["times"]["epoch_flops"] for epoch in epochs]
        rows.append(row)
    return rows


def epochs_to_goal(row, goal):
    """The number of epochs after which the mean accuracy of a method is at the goal for
    the first time, or `None`."""
    reached = [
        epoch for epoch, accuracy in enumerate(row["curve"], 1) if accuracy >= goal
    ]
    return reached[0] if reached else None


def goal_of(rows):
    """The row of `GOAL` and its accuracy after the last epoch minus `TOLERANCE`, or
    `(None, None)`."""
    row = next(
        (row for row in rows if row["method"] == GOAL and row["accuracies"]), None
    )
    return row, row and statistics.mean(row["accuracies"]) - TOLERANCE


COLUMNS = (
    "method",
    "seeds",
    "test accuracy",
    "step, ms",
    "start, s",
    "whole training, s",
    "memory, MiB",
    "parameters",
    "TFLOP",
)
TO_GOAL = ("epochs to the goal", "s to the goal", f"of {GOAL}'s whole training")


def table(rows):
    """A Markdown table of the rows of a T."""
    base, goal = goal_of(rows)
    cells = [
        (*_costs(row), *(_to_goal(row, base, goal) if base else ("", "", "")))
        for row in rows
    ]
    return markdown.table((*COLUMNS, *TO_GOAL), cells)


def _costs(row):
    times, accuracies = row["times"], row["accuracies"]
    cells = [
        row["method"],
        len(accuracies),
        markdown.mean_of(accuracies) if accuracies else "",
    ]
    if not times:
        return (*cells, *[""] * 6)
    step, memory = (
        timing.with_quartiles(times["seconds"], 1000, 1),
        f"{times['memory_bytes'] / 2**20:.1f}",
    )
    seconds = (f"{times['start_seconds']:.1f}", f"{row['seconds'][-1]:.1f}")
    return (
        *cells,
        step,
        *seconds,
        memory,
        f"{times['parameters']:,}",
        f"{row['flops'][-1] / 1e12:.3g}",
    )


def _to_goal(row, base, goal):
    epochs = epochs_to_goal(row, goal)
    if epochs is None:
        return ("not reached" if row["accuracies"] else "", "", "")
    if not row["seconds"] or not base["seconds"]:
        return epochs, "", ""
    seconds = row["seconds"][epochs - 1]
    return epochs, f"{seconds:.1f}", f"{seconds / base['seconds'][-1]:.2f}"


def draw(found, path):
    """A figure with a line of panels for each T: accuracy against the memory of a step,
    against seconds and against FLOPs."""
    figure = plots.new_figure(12, 3.6 * len(found), path)
    for (timesteps, rows), line in zip(
        found.items(), figure.subplots(len(found), 3, squeeze=False), strict=True
    ):
        of_memory, of_seconds, of_flops = line
        _, goal = goal_of(rows)
        for index, row in enumerate(rows):
            if not row["seconds"] or not row["accuracies"]:
                continue
            look = {
                **plots.style(index),
                "label": methods.in_words(row["method"]),
                "markersize": 4,
            }
            look["markevery"] = max(1, len(row["curve"]) // 10)
            deviation = (
                statistics.stdev(row["accuracies"])
                if len(row["accuracies"]) > 1
                else None
            )
            of_memory.errorbar(
                row["times"]["memory_bytes"] / 2**20,
                row["curve"][-1],
                deviation,
                capsize=3,
                **look,
            )
            of_seconds.plot(row["seconds"], row["curve"], **look)
            of_flops.plot(np.array(row["flops"]) / 1e12, row["curve"], **look)
        plots.dress(
            of_memory,
            f"T = {timesteps}: test accuracy after the last epoch",
            "memory of a step, MiB",
            "lower left",
        )
        plots.dress(
            of_seconds, "test accuracy after each epoch", "seconds, with compiling"
        )
        plots.dress(of_flops, "test accuracy after each epoch", "TFLOP")
        for axes in line:
            axes.set_xlim(left=0)
            if goal:
                highest = max(max(row["curve"], default=goal) for row in rows)
                axes.set_ylim(goal - SHOWN_BELOW, highest + SHOWN_BELOW / 10)
                axes.axhline(goal, color="0.5", linewidth=1)
    return figure


ADVICE = "; repeat the command to resume"

main = command_line.command(__name__, COMMAND, __doc__, add_arguments, compare, ADVICE)
