"""Converts an ordinary network to a spiking one: `python -m recipes.convert digits` prints the accuracies.

The network of a recipe is trained with ReLUs instead of neurons. For several T, `spikify` then converts it, with thresholds
calibrated on training images, and it is fine-tuned with a few epochs of rate-based training.
"""

import argparse
import dataclasses
import sys

import keras

from keras_ratesnn import spikify
from keras_ratesnn._core import checks
from recipes import catalogue, device, run, teaching
from recipes.command_line import add_recipe, check_set, ended_by_divergence, interruptible, mistake
from recipes.ordinary import without_time
from recipes.recipe import OF_SPIKING

UNUSED = {
    **dict.fromkeys(
        (*teaching.SETTINGS, *OF_SPIKING), "The converted network is fine-tuned by the rate gradient in one window."
    ),
    "timesteps": "Pass --timesteps.",
}
"""Settings that have no effect here, and why."""

SMALLER_STEPS = 10
"""Fine-tuning starts with the recipe's learning rate divided by this."""


def main(argv=None):
    """Runs the command line `argv`, by default `sys.argv`; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m recipes.convert", description=__doc__.splitlines()[0])
    add_recipe(parser)
    parser.add_argument("--timesteps", type=int, nargs="+", default=[2, 4, 8], metavar="T", help="(default: 2 4 8)")
    parser.add_argument("--fine-tuning-epochs", type=int, default=3, metavar="N", help="for each T (default: 3)")
    arguments = parser.parse_args(argv)
    try:
        for timesteps in arguments.timesteps:
            checks.positive_integer("--timesteps", timesteps, advice="It is a number of time steps.")
        checks.positive_integer("--fine-tuning-epochs", arguments.fine_tuning_epochs, advice="They are those for each T.")
        check_set(arguments.set, UNUSED)
        recipe = catalogue.find(arguments.recipe).with_settings(arguments.set)
        tuning = dataclasses.replace(
            recipe, epochs=arguments.fine_tuning_epochs, learning_rate=recipe.learning_rate / SMALLER_STEPS
        )
        recipe.check_classifies("convert")
        if recipe.has_time:
            raise ValueError(f"{recipe.name} has an input with time, but calibration needs images without time.")
        dataset = recipe.load(arguments.data_dir)
    except (ValueError, TypeError, OSError, ImportError) as error:
        return mistake(error)
    try:
        measure(recipe, tuning, dataset, arguments.timesteps)
    except run.Diverged as error:
        return ended_by_divergence(error)
    return 0


def measure(recipe, tuning, dataset, numbers_of_steps):
    """Trains the ordinary network of a recipe, converts and fine-tunes it for each number of steps, and prints a table."""
    device.set_precision(recipe.precision)
    keras.utils.set_random_seed(recipe.seed)
    ordinary = without_time(recipe.network())
    run.compile_model(ordinary, recipe, dataset)
    accuracy = run.trained_accuracy(ordinary, recipe, dataset)
    trained = f"{recipe.name}, {keras.backend.backend()}: {recipe.epochs} epochs with ReLUs"
    print(f"{trained}, {recipe.tested} accuracy {accuracy:.4f}\n")
    print(f"| T | spiking, calibrated | after {tuning.epochs} epochs of rate-based training |\n|---|---|---|", flush=True)
    images = run.calibration_images(dataset)
    for timesteps in numbers_of_steps:
        spiking = spikify(ordinary, timesteps, calibrate=images, verbose=0)
        run.compile_model(spiking, tuning, dataset)
        converted = run.scores(spiking, tuning, dataset)["accuracy"]
        tuned = run.trained_accuracy(spiking, tuning, dataset)
        print(f"| {timesteps} | {converted:.4f} | {tuned:.4f} |", flush=True)


if __name__ == "__main__":
    sys.exit(interruptible(main))
