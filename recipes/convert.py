"""Converts an ordinary network to a spiking one: `python -m recipes.convert digits`
prints the accuracies.

The network of a recipe is trained with ReLUs instead of neurons. For several T,
`spikify` then converts it, with thresholds calibrated on training images, and it is
fine-tuned with a few epochs of rate-based training. `--set levels=4` converts it to
integer spikes, `--set weights=int4` also to quantised weights.
"""

import dataclasses

import keras

from keras_ratesnn import spikify
from keras_ratesnn.deploy import quantize_aware
from recipes import batches, catalogue, command_line, markdown, run
from recipes.command_line import DIVERGED, SMALLER, Ended
from recipes.settings import DEFAULTS, SPIKING_SETTINGS, TEACHING_SETTINGS

RATE = "The converted network is fine-tuned by the rate gradient in one window."
UNUSED = {
    **dict.fromkeys(TEACHING_SETTINGS + SPIKING_SETTINGS, RATE),
    "timesteps": "Pass --timesteps.",
}
del UNUSED["levels"], UNUSED["weights"]
"""Settings that have no effect here, and why."""

SMALLER_STEPS = 10
"""Fine-tuning starts with the recipe's learning rate divided by this."""


def add_arguments(parser):
    command_line.add_recipe(parser)
    command_line.add_timesteps(parser, "numbers of time steps", [2, 4, 8])
    command_line.add_count(
        parser, "--fine-tuning-epochs", "number of epochs for each T", 3
    )


def convert(arguments):
    with command_line.mistakes():
        recipe = catalogue.chosen(arguments, UNUSED)
        recipe.check_classifies("convert")
        if recipe.has_time:
            raise ValueError(
                f"{recipe.name} has an input with time, but calibration needs images "
                "without time."
            )
        dataset = recipe.load(arguments.data_dir)
        batches.check(dataset, recipe)
        run.prepare(recipe)
    try:
        measure(recipe, dataset, arguments.timesteps, arguments.fine_tuning_epochs)
    except run.Diverged as error:
        raise Ended(f"the training diverged: {error}. {SMALLER}", DIVERGED) from error


def measure(recipe, dataset, numbers_of_steps, tuning_epochs):
    """Trains the ordinary network of a recipe, converts and fine-tunes it for each
    number of steps, and prints a table."""
    keras.utils.set_random_seed(recipe.seed)
    ordinary, alone = recipe.ordinary_network(dataset), recipe.without_spikes()
    run.compile_model(ordinary, alone, dataset)
    accuracy = run.trained_accuracy(ordinary, alone, dataset)
    print(
        f"{recipe.name}, {keras.backend.backend()}: {recipe.epochs} epochs with ReLUs, "
        f"{recipe.tested} accuracy {accuracy:.4f}\n"
    )
    after = f"after {tuning_epochs} epochs of rate-based training"
    print(markdown.heading(("T", "spiking, calibrated", after)), flush=True)
    images = run.calibration_images(dataset)
    tuning = dataclasses.replace(
        recipe,
        **{name: DEFAULTS[name] for name in UNUSED},
        epochs=tuning_epochs,
        learning_rate=recipe.learning_rate / SMALLER_STEPS,
    )
    for timesteps in numbers_of_steps:
        tuning = dataclasses.replace(tuning, timesteps=timesteps)
        spiking = spikify(
            ordinary,
            timesteps,
            neuron=recipe.converted_neuron,
            calibrate=images,
            verbose=0,
        )
        if recipe.weights is not None:
            spiking = quantize_aware(spiking, recipe.weights)
        run.compile_model(spiking, tuning, dataset)
        converted = run.scores(spiking, tuning, dataset)["accuracy"]
        tuned = run.trained_accuracy(spiking, tuning, dataset)
        print(markdown.row((timesteps, f"{converted:.4f}", f"{tuned:.4f}")), flush=True)


main = command_line.command(__name__, "convert", __doc__, add_arguments, convert)
