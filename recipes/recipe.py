"""Recipe: all that one training run is made of."""

import dataclasses
import pathlib
from collections.abc import Callable

import keras

from keras_ratesnn import checks, gradients
from keras_ratesnn.spiking_model import STEP_MODES
from recipes.data.dataset import Dataset

LARGEST_SEED = 2**32 - 1
"""NumPy's generator takes no larger one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is trained, on what and how: the defaults of `python -m recipes.train NAME`.

    A run with other values is another recipe: `dataclasses.replace(recipe, timesteps=8)`.

    Attributes:
        name: What the command line calls it.
        load_data: Function from a folder, or None where none was given, to a `Dataset`.
        build_network: Function to the network of one time step.
        build_optimizer: Function of `(network, steps, learning_rate, weight_decay)` to a Keras optimizer; `steps` is the
            number of batches in the whole run.
        learning_rate: Float, the largest that the schedule takes.
        weight_decay: Float, in the manner of Keras: each step multiplies a kernel by `1 - learning_rate * weight_decay`.
        epochs: Integer >= 1.
        batch_size: Integer >= 1.
        timesteps: Integer >= 1, the number of time steps T.
        gradient: Name of a training method of `keras_ratesnn.gradients`.
        step_mode: "multi" or "single", see `keras_ratesnn.SpikingModel`.
        seed: Integer >= 0. It sets the first weights and the order of the images.

    Raises:
        TypeError: If a number is of another type.
        ValueError: If a number is out of its range or `gradient` is unknown.
    """

    name: str
    load_data: Callable[[pathlib.Path | None], Dataset]
    build_network: Callable[[], keras.Model]
    build_optimizer: Callable[[keras.Model, int, float, float], keras.optimizers.Optimizer]
    learning_rate: float
    weight_decay: float
    epochs: int
    batch_size: int
    timesteps: int
    gradient: str = "rate"
    step_mode: str = "multi"
    seed: int = 0

    def __post_init__(self):
        checks.positive_integer("epochs", self.epochs, advice="It is the number of passes over the training images.")
        checks.positive_integer("batch_size", self.batch_size, advice="It is the number of images in one training step.")
        checks.positive_integer("timesteps", self.timesteps, advice="It is the number of time steps that the network runs for.")
        gradients.get(self.gradient)
        checks.one_of("step_mode", self.step_mode, STEP_MODES)
        if not 0 <= self.seed <= LARGEST_SEED:
            raise ValueError(f"`seed` must be from 0 to {LARGEST_SEED}. Received: seed={self.seed}.")

    def settings(self):
        """The values that can differ between two runs of one recipe, as a dictionary of plain numbers and names."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in values.items() if not callable(value)}
