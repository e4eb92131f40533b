"""What the callbacks of the library cost: `python -m recipes.benchmark.callbacks digits`.

Prints the time of a training step of a recipe and, beside it, the time that each callback takes at the end of an epoch, on a
batch of the same size. All are timed in turn, after a run of each that is not timed.
"""

import argparse
import sys

import keras
import numpy as np

from keras_ratesnn import callbacks
from keras_ratesnn._core import checks
from recipes import catalogue, device, run, teaching
from recipes.benchmark import timing
from recipes.command_line import add_recipe, check_set, interruptible, mistake
from recipes.data.dataset import check_in_memory


def main(argv=None):
    """Runs the command line `argv`, by default `sys.argv`; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m recipes.benchmark.callbacks", description=__doc__.splitlines()[0], allow_abbrev=False
    )
    add_recipe(parser)
    parser.add_argument("--rounds", type=int, default=10, metavar="N", help="how often each is timed (default: 10)")
    arguments = parser.parse_args(argv)
    try:
        checks.positive_integer("--rounds", arguments.rounds, advice="It is the number of times each is timed.")
        check_set(arguments.set, dict.fromkeys(teaching.SETTINGS, "The training step is that of the spiking network alone."))
        recipe = catalogue.find(arguments.recipe).with_settings(arguments.set)
        recipe.check_classifies("benchmark.callbacks")
        dataset = recipe.load(arguments.data_dir)
        check_in_memory(dataset, "benchmark.callbacks")
        model = run.build(recipe, dataset)
    except (ValueError, TypeError, OSError, ImportError) as error:
        return mistake(error)
    images, labels = dataset.train_images[: recipe.batch_size], dataset.train_labels[: recipe.batch_size]
    seconds = timing.interleaved(steps_of(model, images, labels), arguments.rounds + 1)
    print(f"{keras.backend.backend()} on {device.name()}: {recipe.name}, T = {recipe.timesteps}, batch {len(images)}\n")
    print(table({name: of_step[1:] for name, of_step in seconds.items()}, run.steps_per_epoch(recipe, dataset)))
    return 0


def steps_of(model, images, labels):
    """What is timed: functions without arguments, by name. The first is a training step."""
    measured = {
        "FiringRates": callbacks.FiringRates(images),
        "AccuracyOverTime": callbacks.AccuracyOverTime(images, labels),
        "GradientAgreement": callbacks.GradientAgreement(images, labels),
    }
    for callback in measured.values():
        callback.set_model(model)
        callback.on_train_begin()
    # `epoch` is a multiple of `every`.
    ends = {name: lambda callback=callback: callback.on_epoch_end(0, {}) for name, callback in measured.items()}
    return {"training step": lambda: model.train_on_batch(images, labels), **ends}


def table(seconds, steps):
    """A Markdown table of the median times, beside those of a training step and of an epoch of `steps` steps."""
    lines = ["| | ms | in training steps | in epochs |", "|---|---|---|---|"]
    medians = {name: np.median(times) for name, times in seconds.items()}
    step = medians["training step"]
    for name, median in medians.items():
        lines.append(f"| {name} | {1000 * median:.1f} | {median / step:.1f} | {median / step / steps:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(interruptible(main))
