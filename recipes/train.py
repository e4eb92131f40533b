"""Trains a recipe: `python -m recipes.train digits`. The backend is the one that KERAS_BACKEND names.

A run that was stopped, whatever stopped it, goes on from its last finished epoch with the same command.
"""

import argparse
import pathlib
import sys

import keras

from recipes import catalogue, run
from recipes.command_line import USER_MISTAKE
from recipes.run_folder import RunFolder, read_json

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""


def main(argv=None):
    """Runs the command line `argv`, by default that of the process; returns the exit status."""
    arguments = parser().parse_args(argv)
    try:
        recipe = catalogue.find(arguments.recipe).with_settings(arguments.set)
        folder = RunFolder(arguments.output or pathlib.Path("runs", recipe.name))
        folder.prepare(recipe.settings(), arguments.restart)
        if folder.result.exists():
            print(f"{folder.path} holds this run already, finished; --restart trains anew")
            print(f"test accuracy: {read_json(folder.result)['test_accuracy']:.4f}")
            return 0
        dataset = recipe.load(arguments.data_dir)
        model = run.build(recipe, dataset)
        folder.check_space(model)
        epochs_done = folder.restore(model, run.steps_per_epoch(recipe, dataset))
    except (ValueError, TypeError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_MISTAKE

    print(introduction(recipe, dataset, model, epochs_done), flush=True)
    try:
        record = run.fit(model, recipe, dataset, folder, epochs_done)
    except KeyboardInterrupt:
        print(f"\ninterrupted; the same command goes on from the last finished epoch, which is saved in {folder.path}")
        return INTERRUPTED
    print(f"trained in {record['seconds']:.0f} s; model and result saved: {folder.last}, {folder.result.name}")
    print(f"test accuracy: {record['test_accuracy']:.4f}")
    return 0


def parser():
    names = ", ".join(catalogue.RECIPES)
    result = argparse.ArgumentParser(
        prog="python -m recipes.train",
        description=f"Trains a recipe: {names}. The backend is the one that KERAS_BACKEND names.",
        epilog="A run that was stopped goes on from its last finished epoch with the same command.",
        allow_abbrev=False,
    )
    result.add_argument("recipe", metavar="NAME", help="python -m recipes.list tells them")
    result.add_argument(
        "--set",
        metavar="KEY=VALUE",
        nargs="+",
        action="extend",
        default=[],
        help="another value than the recipe has, for example timesteps=8 gradient=bptt epochs=20",
    )
    result.add_argument("--data-dir", type=pathlib.Path, metavar="DIR", help="folder of the data set's files")
    result.add_argument(
        "--output", type=pathlib.Path, metavar="DIR", help="folder of the run: checkpoints, logs, result (default: runs/NAME)"
    )
    result.add_argument("--restart", action="store_true", help="throws away the run that the folder holds, and starts anew")
    return result


def introduction(recipe, dataset, model, epochs_done):
    lines = [
        f"{recipe.name}: {keras.backend.backend()} backend, gradient {recipe.gradient}, T = {recipe.timesteps}, "
        f"{recipe.epochs} epochs of batches of {recipe.batch_size}, seed {recipe.seed}",
        f"{model.count_params():,} parameters, {dataset.train_size:,} images for training, {dataset.test_size:,} for testing",
    ]
    if epochs_done:
        lines.append(f"goes on after {epochs_done} epochs")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
