"""Draws what `keras_ratesnn.analysis` measures for a run or a shipped network: `python -m recipes.figures digits`.

Gradients, independence, rates and spikes are those of one batch of training images, without augmentation; the accuracies are those
of test images. The folder has a PNG file for each figure.
"""

import argparse
import pathlib
import sys

import keras

from keras_ratesnn import analysis, models
from recipes import catalogue, device
from recipes.checkpoint import load_model
from recipes.command_line import USER_MISTAKE
from recipes.evaluate import recipe_of
from recipes.run_folder import RunFolder

DPI = 90


def main(argv=None):
    """Runs the command line `argv`, by default `sys.argv`; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m recipes.figures", description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("name", metavar="NAME", help="folder of a finished run, or name of a shipped network of a recipe")
    parser.add_argument("--output", type=pathlib.Path, metavar="DIR", help="folder of the figures (default: figures/NAME)")
    parser.add_argument("--images", type=int, default=128, metavar="N", help="size of the batch (default: 128)")
    parser.add_argument("--test-images", type=int, default=1000, metavar="N", help="for accuracies (default: 1000)")
    parser.add_argument("--timesteps", type=int, metavar="T", help="number of time steps (default: as in training)")
    parser.add_argument("--data-dir", type=pathlib.Path, metavar="DIR", help="folder of the data set's files")
    parser.add_argument(
        "--only", nargs="+", choices=list(FIGURES), default=list(FIGURES), metavar="FIGURE", help="(default: all)"
    )
    arguments = parser.parse_args(argv)
    output = arguments.output or pathlib.Path("figures", pathlib.Path(arguments.name).name)
    try:
        model, dataset = model_and_data(arguments.name, arguments.data_dir)
        if arguments.timesteps is not None:
            model.timesteps = arguments.timesteps
        output.mkdir(parents=True, exist_ok=True)
        subject = Subject(model, dataset, arguments.images, arguments.test_images)
        for name in arguments.only:
            path = output / f"{name}.png"
            FIGURES[name](subject).plot().savefig(path, dpi=DPI)
            print(path)
    except (ValueError, TypeError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_MISTAKE
    return 0


def model_and_data(name, data_dir):
    """The model and the `Dataset` of a run, a folder, or of a shipped network with a recipe of the same architecture.

    Raises:
        ValueError: If there is no such network.
        FileNotFoundError: If a run has no checkpoint.
    """
    folder = RunFolder(pathlib.Path(name))
    if folder.settings.exists():
        recipe = recipe_of(folder)
        device.set_precision(recipe.precision)
        return load_model(folder.last), recipe.load(data_dir)
    cards = models.list_pretrained()
    if name not in cards:
        raise ValueError(f"NAME must be the folder of a run, or one of {', '.join(cards)}. Received: {name!r}.")
    return models.load_pretrained(name), catalogue.find(cards[name].architecture).load(data_dir)


class Subject:
    """A model, with a batch of training images and some test images.

    Args:
        model: A `SpikingModel`.
        dataset: A `Dataset`.
        images: Integer, the size of the batch.
        test_images: Integer, the number of test images.
    """

    def __init__(self, model, dataset, images, test_images):
        self.model = model
        self.batch = dataset.train_images[:images], dataset.train_labels[:images]
        self.test = dataset.test_images[:test_images], dataset.test_labels[:test_images]
        self.loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @property
    def middle(self):
        """The name of a neuron layer in the middle of the network."""
        layers = analysis.firing_rates(self.model, self.batch[0][:1]).layers
        return layers[len(layers) // 2]


FIGURES = {
    "gradient_agreement": lambda of: analysis.gradient_agreement(of.model, *of.batch, loss=of.loss),
    "independence": lambda of: analysis.independence(of.model, *of.batch, loss=of.loss),
    "firing_rates": lambda of: analysis.firing_rates(of.model, of.batch[0]),
    "raster": lambda of: analysis.raster(of.model, of.batch[0][:1], of.middle),
    "membranes": lambda of: analysis.membranes(of.model, of.batch[0][:1], of.middle),
    "shuffle_in_time": lambda of: analysis.shuffle_in_time(of.model, *of.test),
    "accuracy_over_time": lambda of: analysis.accuracy_over_time(of.model, *of.test, timesteps=2 * of.model.timesteps),
    "energy": lambda of: analysis.energy(of.model, of.batch[0]),
}
"""What is drawn: a function of a `Subject` for each figure."""


if __name__ == "__main__":
    sys.exit(main())
