"""Trains a recipe: `python -m recipes.train digits`. The backend is the one that KERAS_BACKEND names."""

import argparse
import dataclasses
import pathlib
import sys

import keras

from keras_ratesnn import gradients
from keras_ratesnn.spiking_model import STEP_MODES
from recipes import catalogue, output, run

USER_MISTAKE = 2
"""Exit status, as argparse has it."""


def main(argv=None):
    """Runs the command line `argv`, by default that of the process; returns the exit status."""
    arguments = parser().parse_args(argv)
    try:
        recipe = chosen_recipe(arguments)
        folder = output.prepare(arguments.output or pathlib.Path("runs", recipe.name))
        dataset = recipe.load_data(arguments.data_dir)
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_MISTAKE

    model = run.build(recipe, dataset)
    print(introduction(recipe, dataset, model), flush=True)
    record = run.fit(model, recipe, dataset)
    output.save(folder, model, record)
    print(f"model and history saved in {folder} ({output.MODEL}, {output.HISTORY}), trained in {record['seconds']:.0f} s")
    print(f"test accuracy: {record['test_accuracy']:.4f}")
    return 0


def parser():
    names = ", ".join(catalogue.RECIPES)
    result = argparse.ArgumentParser(
        prog="python -m recipes.train",
        description=f"Trains a recipe: {names}. The backend is the one that KERAS_BACKEND names.",
        epilog="What is not given is as the recipe has it.",
        allow_abbrev=False,
    )
    result.add_argument("recipe", metavar="NAME", help=names)
    result.add_argument("--gradient", metavar="|".join(gradients.BY_NAME), help="how the gradient is found")
    result.add_argument("--step-mode", metavar="|".join(STEP_MODES), help="all steps in each layer, or one step at a time")
    result.add_argument("--timesteps", type=int, metavar="T", help="time steps that the network runs for")
    result.add_argument("--epochs", type=int, metavar="N", help="passes over the training images")
    result.add_argument("--batch-size", type=int, metavar="B", help="images in one training step")
    result.add_argument("--seed", type=int, metavar="S", help="sets the first weights and the order of the images")
    result.add_argument("--data-dir", type=pathlib.Path, metavar="DIR", help="folder of the data set's files")
    result.add_argument(
        "--output",
        type=pathlib.Path,
        metavar="DIR",
        help="folder for the model and its history, written over those of an earlier run (default: runs/NAME)",
    )
    return result


def chosen_recipe(arguments):
    """The recipe that the command line names, with the values that the command line sets."""
    recipe = catalogue.find(arguments.recipe)
    overrides = {name: getattr(arguments, name) for name in recipe.settings() if hasattr(arguments, name)}
    return dataclasses.replace(recipe, **{name: value for name, value in overrides.items() if value is not None})


def introduction(recipe, dataset, model):
    return (
        f"{recipe.name}: {keras.backend.backend()} backend, gradient {recipe.gradient}, T = {recipe.timesteps}, "
        f"{recipe.epochs} epochs of batches of {recipe.batch_size}, seed {recipe.seed}\n"
        f"{model.count_params():,} parameters, {len(dataset.train_images):,} images for training, "
        f"{len(dataset.test_images):,} for testing"
    )


if __name__ == "__main__":
    sys.exit(main())
