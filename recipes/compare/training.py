"""Trains a recipe with several methods and seeds: `python -m recipes.compare digits
--seeds 5`.

`--vary timesteps=1,2,4 levels=None,4` trains all combinations of these settings with
each method, except those that a method cannot have, such as two windows of one time
step. The second table has the differences between methods with the same seeds.

Each training is a separate run with its own folder and process. Interrupted runs
resume, finished runs are not trained again, and peak memory is measured for each run.
"""

import itertools
import json
import pathlib
import statistics
import subprocess
import sys

from recipes import atomic_files, catalogue, command_line, markdown, methods
from recipes.command_line import DIVERGED, INTERRUPTED, USER_MISTAKE, Ended
from recipes.compare import results
from recipes.run_folder import RunFolder, score_name, test_score

METHODS = ["rate-multi", "rate-single", "bptt-multi"]
"""Names of `recipes.methods`."""


def add_arguments(parser):
    command_line.add_recipe(parser)
    command_line.add_seeds(parser)
    methods = (
        "methods, for example rate-multi-2, sltt-single, ottt, os, "
        "my_module:Method-multi"
    )
    parser.add_argument(
        "--methods", nargs="+", default=METHODS, metavar="METHOD", help=methods
    )
    varied = (
        "settings of which all combinations are trained, for example "
        "timesteps=1,2,4 levels=None,4"
    )
    parser.add_argument(
        "--vary",
        metavar="KEY=VALUES",
        nargs="+",
        action="extend",
        default=[],
        help=varied,
    )
    command_line.add_path(
        parser, "--output", "parent folder of the runs (default: runs/compare/NAME)"
    )


def compare(arguments):
    """Trains all methods with all seeds, and prints the table; returns the exit
    status."""
    output = arguments.output or pathlib.Path("runs", "compare", arguments.recipe)
    records, scores, diverged = [], {}, False
    with command_line.mistakes():
        chosen = combinations(arguments)
        # Seeds are the outer loop, so that an interrupted comparison has the same seeds
        # for all methods.
        for seed in range(arguments.seeds):
            for name, settings in chosen.items():
                folder = RunFolder(output / f"{atomic_files.allowed(name)}-{seed}")
                status = train(arguments, folder, [*settings, f"seed={seed}"])
                if status == USER_MISTAKE:
                    # It has printed the reason.
                    return status
                if status and not has_diverged(folder):
                    what = (
                        f"the run in {folder.path} failed with exit status "
                        f"{status}; its own message is above."
                    )
                    raise Ended(f"{what} Repeat the command to resume it.")
                if status:
                    diverged = True
                else:
                    records.append(folder.read_result())
                    scores.setdefault(name, {})[seed] = test_score(records[-1])
    print(results.table(records))
    if rows := list(differences(scores, arguments.methods)):
        difference = f"difference to {arguments.methods[0]} ± standard error"
        print(f"\n{markdown.table(('method', difference, 'of each seed'), rows)}")
    return DIVERGED if diverged else 0


def differences(scores, methods):
    """Rows of a table: by how much the score of each run is higher than that by the
    first method, with the same seed.

    Args:
        scores: Dictionary of names, as `combinations` has them, to dictionaries of
            scores by seeds.
        methods: List of names of methods.
    """
    longest_first = sorted(methods, key=len, reverse=True)
    for name, by_seed in scores.items():
        method = next(method for method in longest_first if name.endswith(method))
        first = scores.get(f"{name.removesuffix(method)}{methods[0]}", {})
        paired = [
            score - first[seed] for seed, score in by_seed.items() if seed in first
        ]
        if method != methods[0] and len(paired) > 1:
            error = statistics.stdev(paired) / len(paired) ** 0.5
            mean = f"{statistics.mean(paired):+.4f} ± {error:.4f}"
            yield name, mean, ", ".join(f"{one:+.4f}" for one in paired)


def combinations(arguments):
    """Settings that the command line compares, checked before anything is trained.

    Returns:
        A dictionary of names, for the folders, to settings, lists of strings
        `key=value`.

    Raises:
        TypeError: If a value has the wrong type.
        ValueError: If a value is wrong, or no method fits the settings.
    """
    varied = _varied(arguments.vary)
    by_method = {method: methods.assignments(method) for method in arguments.methods}
    refused = {"seed": "Pass --seeds.", **methods.set_by_methods(by_method)}
    for key in varied:
        if key in refused:
            raise ValueError(
                f"`{key}` cannot be varied. Received: --vary "
                f"{key}={','.join(varied[key])}. {refused[key]}"
            )
    refused |= dict.fromkeys(varied, "Its values are those of --vary.")
    chosen, names = {}, {}
    for values in itertools.product(*varied.values()):
        further = [f"{key}={value}" for key, value in zip(varied, values, strict=True)]
        timesteps = catalogue.chosen(arguments, refused, further).timesteps
        for method, own in by_method.items():
            if "timesteps" in varied and not _fits(method, timesteps):
                continue
            name = "-".join([*further, method])
            settings = [*further, *own]
            recipe = catalogue.chosen(arguments, refused, settings)
            recipe.check_classifies("compare")
            identity = json.dumps(recipe.settings(), sort_keys=True)
            first = names.setdefault(identity, name)
            if first != name:
                raise ValueError(
                    f"`--methods` must name different methods. Received: {first} and "
                    f"{name}, which are the same."
                )
            chosen[name] = settings
    if not chosen:
        raise ValueError(
            "`--vary` has no number of time steps that a method can have. Received: "
            f"{arguments.vary}."
        )
    return chosen


def _fits(method, timesteps):
    """Whether a method can have this number of time steps; prints why it is left out if
    not."""
    try:
        methods.gradient_method(methods.settings_of(method)).check_timesteps(timesteps)
    except ValueError as error:
        print(f"{method} with timesteps={timesteps} is left out. {error}", flush=True)
        return False
    return True


def _varied(assignments):
    """The settings of `--vary` and their values, a dictionary of strings to lists of
    strings."""
    varied = {}
    for assignment in assignments:
        key, equals, values = assignment.partition("=")
        if not equals or not values or key in varied:
            raise ValueError(
                "--vary takes each key once, as key=value,value. Received: "
                f"{assignment!r}."
            )
        varied[key] = list(dict.fromkeys(values.split(",")))
    return varied


def has_diverged(folder):
    """Whether a run or its ordinary network has recorded that it diverged: a crash of
    Python has the same exit status."""
    written = [run for run in (folder, folder.ordinary) if run.result.exists()]
    return any(test_score(run.read_result()) is None for run in written)


def train(arguments, folder, settings):
    """Runs one training in a separate process, which prints its progress, unless it is
    already finished; returns its exit status.

    Raises:
        KeyboardInterrupt: If it was ended by Ctrl-C.
    """
    settings = [*arguments.set, *settings]
    command = [
        sys.executable,
        "-m",
        "recipes.train",
        arguments.recipe,
        "--output",
        str(folder.path),
        "--set",
        *settings,
    ]
    if arguments.data_dir:
        command += ["--data-dir", str(arguments.data_dir)]
    status = subprocess.run(command).returncode
    if status == INTERRUPTED:
        raise KeyboardInterrupt
    if status == 0:
        record = folder.read_result()
        print(
            f"{folder.path}: {score_name(record)} {test_score(record):.4f}", flush=True
        )
    return status
