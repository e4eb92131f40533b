"""How many time steps images need if each stops when its class is sure: `python -m
recipes.until_sure fashion_mnist`.

For several errors the network of a run, or a pretrained one, is calibrated on a random
half of the test images, by which it was not trained, and measured on the other half.
The table has means over random halves: of the confidence, the accuracy, the mean number
of time steps, and the coverage, which is the share of images whose answer is not lost
by stopping early. Then images are classified with all time steps and until sure, in
turns, with batches of several sizes.
"""

import keras
import numpy as np

import keras_ratesnn as rsnn
from recipes import command_line, device, figures, markdown, plots
from recipes.benchmark import timing

ERRORS = (0.001, 0.002, 0.005, 0.01, 0.02)
SPLITS = 20
BATCHES = {1: 48, 128: 4}
"""Sizes of batches, and how many of them are timed."""

DPI = 180


def add_arguments(parser):
    parser.add_argument(
        "name",
        help="folder of a finished run, or name of a shipped network of a recipe",
    )
    command_line.add_data_dir(parser)
    command_line.add_count(
        parser,
        "--images",
        "number of test images",
        help="number of test images (default: all)",
    )
    errors = "largest shares of answers that stopping early may cost"
    parser.add_argument(
        "--errors", type=float, nargs="+", default=ERRORS, metavar="ERROR", help=errors
    )
    command_line.add_count(
        parser, "--rounds", "number of times each size of batches is timed", 10
    )
    command_line.add_path(
        parser,
        "--plot",
        "file of a figure: accuracy against the mean number of time steps",
    )


def until_sure(arguments):
    with command_line.mistakes():
        if arguments.plot is not None:
            plots.new_figure(1, 1, arguments.plot)
        model, dataset = figures.model_and_data(arguments.name, arguments.data_dir)
        images, labels = (
            dataset.test_images[: arguments.images],
            dataset.test_labels[: arguments.images],
        )
        found = rsnn.analysis.accuracy_until_sure(model, images, labels)
        confidence = {error: found.confidence_for(error) for error in arguments.errors}
    print(
        f"{arguments.name}, T = {model.timesteps}, {len(labels):,} test images, on "
        f"{keras.backend.backend()}"
    )
    after = " ".join(f"{found.right[:, t].mean():.4f}" for t in range(model.timesteps))
    print(f"accuracy after 1 to {model.timesteps} steps: {after}\n")
    print(f"means over {SPLITS} random halves, calibrated on the other half")
    print(
        markdown.heading(
            (
                "error",
                "confidence",
                "mean T",
                "accuracy",
                "less than with all steps",
                "coverage",
            )
        )
    )
    with command_line.mistakes():
        for error in arguments.errors:
            print(markdown.row((f"{error:g}", *_of_halves(found, error))), flush=True)
    if arguments.plot is not None:
        plots.save(found.plot(), arguments.plot, dpi=DPI)
    _print_times(model, images, confidence, arguments.rounds)


def _of_halves(found, error):
    """The cells of a row, for random halves of the images."""
    rows = []
    for seed in range(SPLITS):
        order = np.random.default_rng(seed).permutation(len(found.last))
        calibration, rest = np.array_split(order, 2)
        confidence, test = found.of(calibration).confidence_for(error), found.of(rest)
        measured = test.at(confidence)
        rows.append(
            (
                confidence,
                measured.mean_steps,
                measured.accuracy,
                test.at(1.0).accuracy,
                1 - measured.lost,
            )
        )
    confidence, steps, accuracy, with_all, coverage = np.mean(rows, axis=0)
    return (
        f"{confidence:.4f}",
        f"{steps:.2f}",
        f"{accuracy:.4f}",
        f"{with_all - accuracy:.4f}",
        f"{coverage:.4f}",
    )


def _print_times(model, images, confidences, rounds):
    error, confidence = next(iter(confidences.items()))
    print(
        f"\non {device.name()}, with the confidence {confidence:.4f} for error "
        f"{error:g}"
    )
    print(
        markdown.heading(
            (
                "batch",
                "ms per image, all steps",
                "until sure",
                "time that is left",
                "mean T",
            )
        )
    )
    for size, count in BATCHES.items():
        batches = [
            images[first : first + size]
            for first in range(0, min(size * count, len(images)), size)
        ]
        steps = np.concatenate(
            [
                rsnn.predict_until_sure(model, batch, confidence, size)[1]
                for batch in batches
            ]
        )

        def all_steps(batches=batches):
            for batch in batches:
                model.predict_on_batch(batch)

        def stopped(batches=batches, size=size):
            for batch in batches:
                rsnn.predict_until_sure(model, batch, confidence, size)

        all_steps()
        seconds = timing.interleaved({"all": all_steps, "sure": stopped}, rounds)
        left = timing.spread(timing.ratios(seconds["sure"], seconds["all"]))
        per_image = [
            f"{1000 * timing.spread(seconds[name])['median'] / len(steps):.2f}"
            for name in ("all", "sure")
        ]
        print(
            markdown.row(
                (
                    str(size),
                    *per_image,
                    timing.with_quartiles(left, 1, 2),
                    f"{steps.mean():.2f}",
                )
            ),
            flush=True,
        )


main = command_line.command(__name__, "until_sure", __doc__, add_arguments, until_sure)
