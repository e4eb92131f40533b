"""Does the data of a recipe need time? `python -m recipes.probe digits` trains twins
that see more and more of it.

`keras_ratesnn.analysis.temporal_probe` says what they are. They have the epochs,
batches and optimizer of the recipe, without augmentation, and are compared on the test
images; `--set held_out=N` takes training images instead. Interrupted probes resume, and
with more `--seeds` only the new ones are trained.
"""

import pathlib

from keras_ratesnn import analysis
from recipes import catalogue, command_line, plots, run
from recipes.settings import DEFAULTS, TEACHERS, TEACHING_SETTINGS

SETTINGS_OF_TWINS = dict.fromkeys(
    ("gradient", "windows", "random_steps", "two_window_epochs"), "Twins have several."
)
WITHOUT = (
    "augment",
    "mix",
    "ordinary",
    "one_step_epochs",
    *TEACHERS,
    "teachers",
    "random_timesteps",
)
"""Settings that twins do not have."""


def add_arguments(parser):
    command_line.add_recipe(parser)
    command_line.add_seeds(parser)
    command_line.add_path(
        parser, "--output", "folder of the twins' results (default: runs/probe/NAME)"
    )
    command_line.add_path(parser, "--plot", "draws accuracies and gains", "FILE")


def probe(arguments):
    """Trains the twins of a recipe, and prints what they tell."""
    output = arguments.output or pathlib.Path("runs", "probe", arguments.recipe)
    with command_line.mistakes():
        if arguments.plot:
            plots.new_figure(1, 1, arguments.plot)
        without = dict.fromkeys(
            (*WITHOUT, *TEACHING_SETTINGS), "Twins are trained without it."
        )
        recipe = catalogue.chosen(arguments, {**SETTINGS_OF_TWINS, **without})
        recipe.check_classifies("probe")
        recipe = recipe.with_settings(f"{name}={DEFAULTS[name]}" for name in WITHOUT)
        if recipe.temporal == "delays":
            raise recipe.unfit(
                "temporal",
                "another one",
                "whose twins have no callback that narrows delays",
            )
        dataset = recipe.load(arguments.data_dir, in_memory_for="probe")
        run.prepare(recipe)
        ladder = analysis.temporal_probe(
            lambda: run.prepared(recipe, dataset),
            dataset.train_images,
            dataset.train_labels,
            (dataset.test_images, dataset.test_labels),
            epochs=recipe.epochs,
            batch_size=recipe.batch_size,
            seeds=arguments.seeds,
            folder=output,
        )
    print(ladder)
    if arguments.plot:
        plots.save(ladder.plot(), arguments.plot, dpi=150)


main = command_line.command(
    __name__, "probe", __doc__, add_arguments, probe, "; repeat the command to resume"
)
