"""Draws what `keras_ratesnn.analysis` measures for a run or a shipped network: `python
-m recipes.figures digits`.

Gradients, independence, rates and spikes are those of one batch of training images,
without augmentation; accuracies are those of test images. The folder has a PNG and an
SVG file for each figure; its numbers are printed.
"""

import dataclasses
import pathlib

import keras
import numpy as np

from keras_ratesnn import analysis, models
from recipes import catalogue, command_line, device, plots
from recipes.checkpoint import load_model
from recipes.evaluate import recipe_of, with_timesteps
from recipes.run_folder import RunFolder

DPI = 90

COSTS = {
    "float32": analysis.Costs(),
    "int8": analysis.Costs.int8(),
    "int8_skips_zeros": analysis.Costs.int8(skips_zeros=True),
}


def add_arguments(parser):
    parser.add_argument(
        "name",
        metavar="NAME",
        help="folder of a finished run, or name of a shipped network of a recipe",
    )
    command_line.add_path(
        parser, "--output", "folder of the figures (default: figures/NAME)"
    )
    command_line.add_count(parser, "--images", "size of the batch", 128)
    command_line.add_count(
        parser, "--test-images", "number of test images, for accuracies", 1000
    )
    training = "number of time steps (default: as in training)"
    command_line.add_count(
        parser, "--timesteps", "number of time steps", metavar="T", help=training
    )
    parser.add_argument(
        "--costs",
        choices=list(COSTS),
        default="float32",
        help="hardware of the energy (default: float32)",
    )
    command_line.add_data_dir(parser)
    chosen = {"choices": list(FIGURES), "default": list(FIGURES)}
    parser.add_argument(
        "--only", nargs="+", metavar="FIGURE", help="(default: all)", **chosen
    )


def figures(arguments):
    output = arguments.output or pathlib.Path(
        "figures", pathlib.Path(arguments.name).name
    )
    with command_line.mistakes():
        model, dataset = model_and_data(
            arguments.name, arguments.data_dir, arguments.timesteps
        )
        subject = Subject(
            model,
            dataset,
            arguments.images,
            arguments.test_images,
            COSTS[arguments.costs],
        )
        output.mkdir(parents=True, exist_ok=True)
        for name in arguments.only:
            path = output / f"{name}.png"
            found = FIGURES[name](subject)
            plots.save(found.plot(), path, dpi=DPI)
            report = [str(found)] if isinstance(found, analysis.Energy) else []
            print("\n".join([str(path), *numbers(found), *report]))


def model_and_data(name, data_dir, timesteps=None):
    """The model and the `Dataset` of a run, a folder, or of a shipped network with a
    recipe of the same architecture.

    Args:
        name: String, the folder or the name of the network.
        data_dir: Folder of the data set's files, or None for its default.
        timesteps: Integer, the number of time steps. Defaults to `None`, that of
            training.

    Raises:
        ValueError: If there is no such network.
        FileNotFoundError: If a run has no checkpoint.
    """
    folder = RunFolder(name)
    if folder.settings.exists():
        recipe = recipe_of(folder)
        recipe.check_classifies("figures")
        device.set_precision(recipe.precision)
    else:
        cards = models.list_pretrained()
        if name not in cards:
            raise ValueError(
                f"NAME must be the folder of a run, or one of {', '.join(cards)}. "
                f"Received: {name!r}."
            )
        recipe = catalogue.find(cards[name].architecture)
    # Frames of an event camera depend on the number of time steps.
    dataset = (recipe if timesteps is None else with_timesteps(recipe, timesteps)).load(
        data_dir, in_memory_for="figures"
    )
    model = (
        load_model(folder.last)
        if folder.settings.exists()
        else models.load_pretrained(name)
    )
    if timesteps is not None:
        model.timesteps = timesteps
    return model, dataset


def numbers(found):
    """Lines with the numbers of a measurement: its fields and properties that are a
    number, or one for each layer or step."""
    properties = [
        name for name, value in vars(type(found)).items() if isinstance(value, property)
    ]
    for name in (*(field.name for field in dataclasses.fields(found)), *properties):
        value = getattr(found, name)
        if isinstance(value, dict):
            yield (
                f"  {name}: "
                f"{', '.join(f'{key} {number:.4g}' for key, number in value.items())}"
            )
        elif isinstance(value, float) or (
            isinstance(value, np.ndarray) and value.ndim == 1
        ):
            yield (
                f"  {name}: "
                f"{' '.join(f'{number:.4g}' for number in np.atleast_1d(value))}"
            )


class Subject:
    """A model, with a batch of training images and some test images.

    Args:
        model: A `SpikingModel`.
        dataset: A `Dataset`.
        images: Integer, the size of the batch.
        test_images: Integer, the number of test images.
        costs: `keras_ratesnn.analysis.Costs`, of the energy. Defaults to `None`, those
            of floats.
    """

    def __init__(self, model, dataset, images, test_images, costs=None):
        self.model, self.costs = model, costs
        self.batch = dataset.train_images[:images], dataset.train_labels[:images]
        self.test = dataset.test_images[:test_images], dataset.test_labels[:test_images]
        # An image can be shown for longer than in training, a recording cannot.
        has_time = self.batch[0].ndim > len(model.network.input_shape)
        self.steps_of_a_sequence = model.timesteps if has_time else 2 * model.timesteps
        self.loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def neurons(self, count):
        """Arguments that choose neurons: an image, a layer in the middle of the
        network, and some of it, from slow to fast."""
        image = self.batch[0][:1]
        rates = analysis.firing_rates(self.model, image)
        middle = len(rates.layers) // 2
        slowest_first = np.argsort(rates.by_neuron[middle].ravel(), kind="stable")
        spiking = slowest_first[np.count_nonzero(rates.by_neuron[middle] == 0) :]
        chosen = spiking[
            np.linspace(0, len(spiking) - 1, min(count, len(spiking)), dtype=int)
        ]
        return self.model, image, rates.layers[middle], chosen.tolist() or count


FIGURES = {
    "gradient_agreement": lambda of: analysis.gradient_agreement(
        of.model, *of.batch, loss=of.loss
    ),
    "independence": lambda of: analysis.independence(of.model, *of.batch, loss=of.loss),
    "firing_rates": lambda of: analysis.firing_rates(of.model, of.batch[0]),
    "raster": lambda of: analysis.raster(*of.neurons(60)),
    "membranes": lambda of: analysis.membranes(*of.neurons(5)),
    "shuffle_in_time": lambda of: analysis.shuffle_in_time(of.model, *of.test),
    "accuracy_over_time": lambda of: analysis.accuracy_over_time(
        of.model, *of.test, timesteps=of.steps_of_a_sequence
    ),
    "energy": lambda of: analysis.energy(of.model, of.batch[0], of.costs),
}
"""What is drawn: a function of a `Subject` for each figure."""


main = command_line.command(__name__, "figures", __doc__, add_arguments, figures)
