"""Attacks runs or shipped networks by the gradients of several methods: `python -m recipes.robustness digits`.

The table has the accuracy on test images under each attack, and under all of them, see `keras_ratesnn.analysis.robustness`.
Inputs stay between the smallest and the largest value of the training images.
"""

import pathlib
import warnings

import keras
import numpy as np

from keras_ratesnn import analysis
from recipes import command_line, figures, markdown

EPSILONS = (2 / 255, 4 / 255, 8 / 255)


def add_arguments(parser):
    what = "folder of a finished run, or name of a shipped network of a recipe"
    parser.add_argument("names", metavar="NAME", nargs="+", help=what)
    command_line.add_count(parser, "--test-images", "number of test images", 1000)
    fractions = "the largest changes, fractions of the range of inputs (default: 2, 4 and 8 of 255)"
    parser.add_argument("--epsilons", type=float, nargs="+", default=EPSILONS, metavar="EPSILON", help=fractions)
    command_line.add_count(parser, "--steps", "number of steps of an attack by PGD", 10)
    command_line.add_data_dir(parser)


def attack(arguments):
    signs, attacks = [], None
    for name in arguments.names:
        with command_line.mistakes():
            model, dataset = figures.model_and_data(name, arguments.data_dir)
            with warnings.catch_warnings():
                # It follows below the table.
                warnings.filterwarnings("ignore", "Gradients of model", UserWarning)
                found = robustness(model, dataset, arguments.test_images, list(arguments.epsilons), arguments.steps)
        if found.attacks != attacks:
            # A network with another T may be attacked by other methods.
            columns = ("network", "epsilon", "accuracy", *found.attacks, "all attacks")
            print(("\n" if attacks else "") + markdown.heading(columns))
            attacks = found.attacks
        for epsilon, attacked, robust in zip(found.epsilons, found.attacked.T, found.robust, strict=True):
            accuracies = (f"{accuracy:.4f}" for accuracy in (found.accuracy, *attacked, robust))
            print(markdown.row((pathlib.Path(name).name, f"{epsilon:.4f}", *accuracies)), flush=True)
        signs += [f"MASKED, {name}: {sign}" for sign in found.masked]
    for sign in signs:
        print(sign)


def robustness(model, dataset, images, epsilons, steps):
    """The `keras_ratesnn.analysis.Robustness` of a model on the first test images of a `Dataset`."""
    values = (
        dataset.train_images if model.mask_value is None else dataset.train_images[dataset.train_images != model.mask_value]
    )
    bounds = float(np.nanmin(values)), float(np.nanmax(values))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    test = dataset.test_images[:images], dataset.test_labels[:images]
    return analysis.robustness(model, *test, epsilons, bounds=bounds, steps=steps, loss=loss, verbose=0)


main = command_line.command(__name__, "robustness", __doc__, add_arguments, attack)
