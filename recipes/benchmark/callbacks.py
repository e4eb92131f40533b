"""What the callbacks of the library cost: `python -m recipes.benchmark.callbacks
digits`.

Prints the time of a training step of a recipe and, beside it, the time that each
callback takes at the end of an epoch, on a batch of the same size. All are timed in
turn, after a run of each that is not timed.
"""

import keras
import numpy as np

from keras_ratesnn import callbacks
from recipes import catalogue, command_line, device, markdown, run
from recipes.benchmark import timing
from recipes.settings import TEACHING_SETTINGS


def add_arguments(parser):
    command_line.add_recipe(parser)
    command_line.add_count(parser, "--rounds", "number of times each is timed", 10)


def measure(arguments):
    with command_line.mistakes():
        alone = "The training step is that of the spiking network alone."
        recipe = catalogue.chosen(arguments, dict.fromkeys(TEACHING_SETTINGS, alone))
        recipe.check_classifies("benchmark.callbacks")
        dataset = recipe.load(arguments.data_dir, in_memory_for="benchmark.callbacks")
        model = run.build(recipe, dataset)
    images, labels = (
        dataset.train_images[: recipe.batch_size],
        dataset.train_labels[: recipe.batch_size],
    )
    seconds = timing.interleaved(steps_of(model, images, labels), arguments.rounds + 1)
    print(
        f"{keras.backend.backend()} on {device.name()}: {recipe.name}, T = "
        f"{recipe.timesteps}, batch {len(images)}\n"
    )
    print(
        table(
            {name: of_step[1:] for name, of_step in seconds.items()},
            run.steps_per_epoch(recipe, dataset),
        )
    )


def steps_of(model, images, labels):
    """What is timed: functions without arguments, by name. The first is a training
    step."""
    measured = {
        "FiringRate": callbacks.FiringRate(images),
        "AccuracyOverTime": callbacks.AccuracyOverTime(images, labels),
        "GradientAgreement": callbacks.GradientAgreement(images, labels),
    }
    for callback in measured.values():
        callback.set_model(model)
        callback.on_train_begin()
    # `epoch` is a multiple of `every`.
    ends = {
        name: lambda callback=callback: callback.on_epoch_end(0, {})
        for name, callback in measured.items()
    }
    return {"training step": lambda: model.train_on_batch(images, labels), **ends}


def table(seconds, steps):
    """A Markdown table of the median times, beside those of a training step and of an
    epoch of `steps` steps."""
    medians = {name: np.median(times) for name, times in seconds.items()}
    step = medians["training step"]
    rows = (
        (
            name,
            f"{1000 * median:.1f}",
            f"{median / step:.1f}",
            f"{median / step / steps:.2f}",
        )
        for name, median in medians.items()
    )
    return markdown.table(("", "ms", "in training steps", "in epochs"), rows)


main = command_line.command(
    __name__, "benchmark.callbacks", __doc__, add_arguments, measure
)
