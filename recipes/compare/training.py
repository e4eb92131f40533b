"""Trains a recipe with several methods and seeds: `python -m recipes.compare digits --seeds 5`.

Each training is a separate run with its own folder and process. Interrupted runs resume, finished runs are not trained again,
and peak memory is measured for each run.
"""

import json
import pathlib
import subprocess
import sys

from recipes import catalogue, command_line, methods
from recipes.command_line import DIVERGED, INTERRUPTED, USER_MISTAKE, Ended
from recipes.compare import results
from recipes.run_folder import RunFolder, score_name, test_score

METHODS = ["rate-multi", "rate-single", "bptt-multi"]
"""Names of `recipes.methods`."""


def parser():
    result = command_line.parser("compare", __doc__)
    command_line.add_recipe(result)
    command_line.add_count(result, "--seeds", "number of seeds, which are 0 to N - 1", 5)
    result.add_argument(
        "--methods",
        nargs="+",
        default=METHODS,
        metavar="METHOD",
        help=f"for example rate-multi-2, sltt-single, ottt, os (default: {' '.join(METHODS)})",
    )
    result.add_argument(
        "--output", type=pathlib.Path, metavar="DIR", help="parent folder of the runs (default: runs/compare/NAME)"
    )
    return result


def compare(arguments):
    """Trains all methods with all seeds, and prints the table; returns the exit status."""
    output = arguments.output or pathlib.Path("runs", "compare", arguments.recipe)
    records, diverged = [], False
    with command_line.mistakes():
        check(arguments)
        # Seeds are the outer loop, so that an interrupted comparison has the same seeds for all methods.
        for seed in range(arguments.seeds):
            for method in dict.fromkeys(arguments.methods):
                folder = RunFolder(output / f"{method}-{seed}")
                status = train(arguments, folder, [*methods.assignments(method), f"seed={seed}"])
                if status == INTERRUPTED:
                    raise KeyboardInterrupt
                if status == USER_MISTAKE:
                    # It has printed the reason.
                    return status
                if status and not has_diverged(folder):
                    raise Ended(
                        f"the run in {folder.path} failed with exit status {status}; its own message is above. Repeat the "
                        "command to resume it."
                    )
                if status:
                    diverged = True
                else:
                    records.append(folder.read_result())
    print(results.table(records))
    return DIVERGED if diverged else 0


def check(arguments):
    """Checks the command line, before anything is trained; raises TypeError or ValueError."""
    refused = {"seed": "Pass --seeds.", **methods.in_place_of_set(arguments.methods)}
    trained_by = {}
    for method in dict.fromkeys(arguments.methods):
        recipe = catalogue.chosen(arguments, refused, methods.assignments(method))
        recipe.check_classifies("compare")
        other = trained_by.setdefault(json.dumps(recipe.settings(), sort_keys=True), method)
        if other != method:
            raise ValueError(f"`--methods` must name different methods. Received: {other} and {method}, which are the same.")


def has_diverged(folder):
    """Whether a run or its ordinary network has recorded that it diverged: a crash of Python has the same exit status."""
    written = [run for run in (folder, folder.ordinary) if run.result.exists()]
    return any(test_score(run.read_result()) is None for run in written)


def train(arguments, folder, settings):
    """Runs one training in a separate process, unless it is already finished; returns its exit status."""
    settings = [*arguments.set, *settings]
    command = [sys.executable, "-m", "recipes.train", arguments.recipe, "--output", str(folder.path), "--set", *settings]
    if arguments.data_dir:
        command += ["--data-dir", str(arguments.data_dir)]
    status = subprocess.run(command, stdout=subprocess.DEVNULL).returncode
    if status == 0:
        record = folder.read_result()
        print(f"{folder.path}: {score_name(record)} {test_score(record):.4f}", flush=True)
    return status
