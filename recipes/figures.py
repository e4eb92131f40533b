"""Draws what `keras_ratesnn.analysis` measures for a run or a shipped network: `python
-m recipes.figures digits`.

Gradients, independence, rates and spikes are those of one batch of training images,
without augmentation; accuracies are those of test images. The folder has a PNG and an
SVG file for each figure; its numbers are printed. With `--untrained` the network is
that of a recipe, with its initial weights.

Two figures are drawn with `--only`:

* `windows`, the gradient for time windows and BPTT's, layer by layer: a row for each
  choice of windows and a column for each kernel, from the first layer to the last; for
  more than 12 kernels there are their smallest and their median instead. It shows the
  cosine similarity between the kernel's gradients. The last column is the ratio of the
  norms of all kernel gradients.
* `until_sure`, how many time steps images need if each stops when its class is sure.
  For several errors the network is calibrated on a random half of the test images, and
  measured on the other half. The table has means over random halves: of the confidence,
  the number of time steps, the accuracy, and the coverage, which is the share of images
  whose answer is not lost by stopping early. Then images are classified with all time
  steps and until sure, in turns, with batches of several sizes.
"""

import dataclasses
import pathlib

import keras
import numpy as np

import keras_ratesnn as rsnn
from keras_ratesnn import analysis, gradients, models
from recipes import catalogue, command_line, device, markdown, plots, run
from recipes.benchmark import timing
from recipes.evaluate import recipe_of
from recipes.run_folder import RunFolder, load_model

DPI = 90

COSTS = {
    "float32": analysis.Costs(),
    "int8": analysis.Costs.int8(),
    "int8_skips_zeros": analysis.Costs.int8(skips_zeros=True),
}

MOST_COLUMNS = 12
"""Kernels that fit into a table."""

ERRORS = (0.001, 0.002, 0.005, 0.01, 0.02)
"""Shares of answers that stopping early may cost."""

SPLITS = 20
BATCHES = {1: 48, 128: 4}
"""Sizes of batches, and how many of them are timed."""

ROUNDS = 10
"""How often the batches are timed with all steps and until sure, in turns."""

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def add_arguments(parser):
    network = (
        "folder of a finished run, or name of a shipped network of a recipe; with "
        "--untrained name of a recipe"
    )
    command_line.add_recipe(parser, network)
    parser.add_argument(
        "--untrained", action="store_true", help="draws a recipe, whose --set counts"
    )
    command_line.add_path(
        parser, "--output", "folder of the figures (default: figures/NAME)"
    )
    command_line.add_count(parser, "--images", "size of the batch", 128)
    command_line.add_count(
        parser, "--test-images", "number of test images, for accuracies", 1000
    )
    parser.add_argument(
        "--costs",
        choices=list(COSTS),
        default="float32",
        help="hardware of the energy",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="FIGURE",
        choices=[*ANALYSES, *TABLES],
        default=list(ANALYSES),
        help="some of the figures",
    )


def figures(arguments):
    name = pathlib.Path(arguments.recipe).name
    output = arguments.output or pathlib.Path("figures", name)
    with command_line.mistakes():
        plots.check_installed()
        if arguments.untrained:
            model, dataset = _untrained(arguments)
        elif arguments.set:
            raise ValueError(
                "--set is for the network of a recipe. Received: --set "
                f"{' '.join(arguments.set)}. Add --untrained."
            )
        else:
            model, dataset = model_and_data(arguments.recipe, arguments.data_dir)
        subject = Subject(model, dataset, arguments)
        output.mkdir(parents=True, exist_ok=True)
        for name in arguments.only:
            path = output / f"{name}.png"
            if name in TABLES:
                figure, text = TABLES[name](subject)
            else:
                measured = ANALYSES[name](subject)
                figure, text = measured.plot(), "\n".join(report(measured))
            plots.save(figure, path, dpi=DPI)
            print(f"{path}\n{text}", flush=True)


def _untrained(arguments):
    """The network of a recipe with its initial weights, and its data."""
    recipe = catalogue.chosen(arguments)
    recipe.check_classifies("figures")
    dataset = recipe.load(arguments.data_dir, in_memory_for="figures")
    return run.build(recipe, dataset), dataset


def model_and_data(name, data_dir):
    """The model and the `Dataset` of a run, a folder, or of a shipped network with a
    recipe of the same architecture.

    Args:
        name: String, the folder or the name of the network.
        data_dir: Folder of the data set's files, or None for its default.

    Raises:
        ValueError: If there is no such network.
        FileNotFoundError: If a run has no checkpoint.
    """
    folder = RunFolder(name)
    if folder.settings.exists():
        recipe = recipe_of(folder)
        recipe.check_classifies("figures")
        device.set_precision(recipe.precision)
        dataset = recipe.load(data_dir, in_memory_for="figures")
        return load_model(folder.last), dataset
    cards = models.list_pretrained()
    if name not in cards:
        raise ValueError(
            f"NAME must be the folder of a run, or one of {', '.join(cards)}. "
            f"Received: {name!r}."
        )
    recipe = catalogue.find(cards[name].architecture)
    dataset = recipe.load(data_dir, in_memory_for="figures")
    return models.load_pretrained(name), dataset


def report(measured):
    """Lines with the numbers of a measurement: its fields and properties that are a
    number, or one for each layer or step."""
    kind = type(measured)
    names = [field.name for field in dataclasses.fields(measured)]
    names += [name for name, value in vars(kind).items() if isinstance(value, property)]
    for name in names:
        value = getattr(measured, name)
        if isinstance(value, float):
            value = np.array([value])
        if isinstance(value, dict):
            numbers = ", ".join(f"{key} {number:.4g}" for key, number in value.items())
            yield f"  {name}: {numbers}"
        elif isinstance(value, np.ndarray) and value.ndim == 1:
            yield f"  {name}: {' '.join(f'{number:.4g}' for number in value)}"
    if kind is analysis.Energy:
        yield str(measured)


class Subject:
    """A model, with a batch of training images and some test images of its `Dataset`,
    as many as the arguments of the command say."""

    def __init__(self, model, dataset, arguments):
        self.model, self.costs = model, COSTS[arguments.costs]
        images, tests = arguments.images, arguments.test_images
        self.batch = dataset.train_images[:images], dataset.train_labels[:images]
        self.test = dataset.test_images[:tests], dataset.test_labels[:tests]
        # An image can be shown for longer than in training, a recording cannot.
        has_time = self.batch[0].ndim > len(model.network.input_shape)
        self.longest = model.timesteps if has_time else 2 * model.timesteps

    def neurons(self, count):
        """Arguments that choose neurons: an image, a layer in the middle of the
        network, and some of it, from slow to fast."""
        image = self.batch[0][:1]
        rates = analysis.firing_rates(self.model, image)
        middle = len(rates.layers) // 2
        layer_rates = rates.by_neuron[middle].ravel()
        slowest_first = np.argsort(layer_rates, kind="stable")
        spiking = slowest_first[np.count_nonzero(layer_rates == 0) :]
        positions = np.linspace(
            0, len(spiking) - 1, min(count, len(spiking)), dtype=int
        )
        chosen = spiking[positions].tolist() or count
        return self.model, image, rates.layers[middle], chosen


def windows(subject):
    """A figure and a table of the gradients for some numbers of windows from 1 to T,
    and for two equal halves, beside BPTT's."""
    model = subject.model
    timesteps = model.timesteps
    choices = list(range(1, min(timesteps, 4)))
    if timesteps > 2:
        choices.append((timesteps // 2, timesteps - timesteps // 2))
    agreements, rows = {}, []
    for choice in (*choices, timesteps):
        model.gradient = gradients.Rate(windows=choice)
        agreement = analysis.gradient_agreement(model, *subject.batch, loss=LOSS)
        columns = dict(zip(agreement.layers, agreement.cosine, strict=True))
        if len(columns) > MOST_COLUMNS:
            # Kernels without a gradient have no cosine.
            columns = {
                "smallest": np.nanmin(agreement.cosine),
                "median": np.nanmedian(agreement.cosine),
            }
        cosines = [f"{cosine:.3f}" for cosine in columns.values()]
        rows.append((choice, *cosines, f"{agreement.total_norm_ratio:.2f}"))
        agreements[choice] = agreement
    table = markdown.table(("windows", *columns, "norm ratio"), rows)
    return _drawn_windows(agreements, timesteps), table


def _drawn_windows(agreements, timesteps):
    """A figure of the cosines of all kernels, next to the cost of a training step."""
    figure = plots.new_figure(9, 4)
    cosines, cost = figure.subplots(1, 2)
    numbers = [number for number in agreements if isinstance(number, int)]
    names = agreements[1].layers
    for index, name in enumerate(names):
        # Also distinguishable in grey: from dark (first layer) to light.
        look = {
            "color": str(0.75 * index / max(1, len(names) - 1)),
            "marker": "osv^Dx*"[index % 7],
        }
        values = [agreements[number].cosine[index] for number in numbers]
        cosines.plot(numbers, values, label=name, **look)
    costs = [timesteps + 2 * number for number in numbers]
    cost.plot(numbers, costs, color="black", marker="o", label="rate, T + 2W")
    cost.axhline(3 * timesteps, color="0.4", linestyle="--", label="BPTT, 3T")
    cost.set_ylim(bottom=0)
    label = f"windows W, T = {timesteps}"
    plots.dress(cosines, "cosine with BPTT's gradient, by layer", label, "best")
    title = "cost of a training step, forward passes of one step"
    plots.dress(cost, title, label, "lower right")
    cosines.set_xticks(numbers)
    cost.set_xticks(numbers)
    return figure


def until_sure(subject):
    """A figure of the accuracy against the mean number of time steps, and tables of
    what a network gains if it stops when it is sure."""
    model, (images, labels) = subject.model, subject.test
    accuracies = analysis.accuracy_until_sure(model, images, labels)
    steps = [f"{right.mean():.4f}" for right in accuracies.right.T]
    columns = (
        "error",
        "confidence",
        "mean T",
        "accuracy",
        "less than with all steps",
        "coverage",
    )
    rows = [(f"{error:g}", *_mean_of_halves(accuracies, error)) for error in ERRORS]
    confidence = accuracies.confidence_for(ERRORS[0])
    text = [
        f"T = {model.timesteps}, {len(labels):,} test images, on "
        f"{keras.backend.backend()}",
        f"accuracy after 1 to {model.timesteps} steps: {' '.join(steps)}",
        f"\nmeans over {SPLITS} random halves, calibrated on the other half",
        markdown.table(columns, rows),
        f"\non {device.name()}, with the confidence {confidence:.4f} for error "
        f"{ERRORS[0]:g}",
        _times(model, images, confidence),
    ]
    return accuracies.plot(), "\n".join(text)


def _mean_of_halves(accuracies, error):
    """The cells of a row, for random halves of the images."""
    rows = []
    for seed in range(SPLITS):
        order = np.random.default_rng(seed).permutation(len(accuracies.last))
        calibration, rest = np.array_split(order, 2)
        confidence = accuracies.of(calibration).confidence_for(error)
        test = accuracies.of(rest)
        stopped = test.at(confidence)
        lost = test.at(1.0).accuracy - stopped.accuracy
        measured = stopped.mean_steps, stopped.accuracy, lost, 1 - stopped.lost
        rows.append((confidence, *measured))
    confidence, steps, *shares = np.mean(rows, axis=0)
    shown = [f"{share:.4f}" for share in shares]
    return [f"{confidence:.4f}", f"{steps:.2f}", *shown]


def _times(model, images, confidence):
    """A table of the times with all steps and until sure."""
    rows = []
    for size, count in BATCHES.items():
        some = images[: size * count]
        batches = [some[first : first + size] for first in range(0, len(some), size)]
        rows.append((size, *_times_of_batches(model, batches, confidence)))
    columns = ("batch", "ms per image, all steps", "until sure", "time that is left")
    return markdown.table((*columns, "mean T"), rows)


def _times_of_batches(model, batches, confidence):
    """The cells of a row, after the size of the batches."""

    def all_steps():
        for batch in batches:
            model.predict_on_batch(batch)

    def stopped():
        size, steps = len(batches[0]), []
        for batch in batches:
            steps.append(
                rsnn.deploy.predict_until_sure(model, batch, confidence, size)[1]
            )
        return np.concatenate(steps)

    steps = stopped()
    all_steps()
    seconds = timing.interleaved({"all": all_steps, "sure": stopped}, ROUNDS)
    left = timing.spread(timing.ratios(seconds["sure"], seconds["all"]))
    milliseconds = [
        f"{1000 * timing.spread(times)['median'] / len(steps):.2f}"
        for times in seconds.values()
    ]
    return [*milliseconds, timing.with_quartiles(left, 1, 2), f"{steps.mean():.2f}"]


ANALYSES = {
    "gradient_agreement": lambda subject: analysis.gradient_agreement(
        subject.model, *subject.batch, loss=LOSS
    ),
    "independence": lambda subject: analysis.independence(
        subject.model, *subject.batch, loss=LOSS
    ),
    "firing_rates": lambda subject: analysis.firing_rates(
        subject.model, subject.batch[0]
    ),
    "raster": lambda subject: analysis.raster(*subject.neurons(60)),
    "membranes": lambda subject: analysis.membranes(*subject.neurons(5)),
    "shuffle_in_time": lambda subject: analysis.shuffle_in_time(
        subject.model, *subject.test
    ),
    "accuracy_over_time": lambda subject: analysis.accuracy_over_time(
        subject.model, *subject.test, timesteps=subject.longest
    ),
    "energy": lambda subject: analysis.energy(
        subject.model, subject.batch[0], subject.costs
    ),
}
"""For each figure a function of a `Subject` that returns a result of `analysis`, to be
drawn."""

TABLES = {"windows": windows, "until_sure": until_sure}
"""Functions of a `Subject` that return a figure, and a text with tables."""

main = command_line.command(__name__, "figures", __doc__, add_arguments, figures)
