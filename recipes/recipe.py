"""Recipe: the configuration of a training run."""

import ast
import dataclasses
import functools
import inspect
from collections.abc import Callable

import keras

from keras_ratesnn.layers import ILIF, Neuron
from recipes import recipe_checks, setting_names
from recipes.activations import integer_network, relu_network
from recipes.data.dataset import Dataset
from recipes.optimizers import SGD, AdamW
from recipes.stages import SpikingStage
from recipes.tasks.task import CLASSIFICATION, Task


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """Network, data and training settings: the defaults of `python -m recipes.train
    NAME`.

    For other values use `dataclasses.replace(recipe, epochs=8)` or
    `recipe.with_settings`. What only some kinds of training need is in the parts
    `optimizer` and `spiking`.

    Attributes:
        name: The name on the command line.
        description: One line: network and data set.
        load_data: Function from a folder, or None if none was given, to a `Dataset`; if
            `has_time`, a function of `(folder, timesteps)`.
        build_network: Function from `width` to the network of one time step, which
            takes raw pixels and returns logits. It may also take `normalization`,
            `temporal`, and `dataset`, the `Dataset` for training.
        neuron: The argument `neuron` of `spikify`, which converts the network if
            `build_network` returns an ordinary one. None if it returns a network of
            neurons. With the setting `levels` of `spiking`, all networks have other
            neurons.
        task: What the network is trained for.
        has_time: Whether an example is a sequence of `timesteps` frames instead of one
            image.
        mask_value: The number that all elements of a frame have which is padding, see
            `keras_ratesnn.SpikingModel`; None if there is no padding.
        learning_rate: Float, the largest value of the schedule.
        weight_decay: Float, as in Keras: each step multiplies a kernel by `1 -
            learning_rate * weight_decay`.
        optimizer: `optimizers.SGD` or `optimizers.AdamW`.
        epochs: Integer >= 1, the passes over the training images.
        batch_size: Integer >= 1.
        augment: Name of the augmentation of training images, one of
            `augmentation.AUGMENTATIONS`.
        mix: Name of the mix of the training images of a batch, one of
            `augmentation.MIXES`.
        image_side: Integer >= 1, the height and width to which images from a folder are
            resized, for recipes that resize them; None for others.
        frame_kind: What frames the recordings of an event camera become, one of
            `data.frame_kinds.KINDS`, for recipes that read recordings; None for the
            recipe's own.
        width: Float > 0 that multiplies the number of channels of every layer.
        train_images: Integer >= 1, the number of images to train on, or None for all.
        held_out: Integer >= 1, the number of images at the end of the training images
            that replace the test images, or None to use the test images. For choosing
            settings without looking at the test images.
        precision: Name of a Keras dtype policy.
        jit_compile: True, False or "auto", as in `keras.Model.compile`.
        normalization: "batch", "weight" or "online", see `keras_ratesnn.models.VGG11`.
        temporal: What in the network sees more of time than leaky neurons do, one of
            `temporal.TEMPORAL`; None for the recipe's own neurons. For recipes whose
            `build_network` takes it.
        spiking: `SpikingStage`, the training of the spiking network; None to train only
            the ordinary network, with ReLUs instead of neurons.
        seed: Integer >= 0. It determines the initial weights, the order of the images
            and their augmentation.

    Raises:
        TypeError: If a number has the wrong type.
        ValueError: If a number is out of range or a name is unknown.
    """

    name: str
    description: str
    load_data: Callable[..., Dataset]
    build_network: Callable[..., keras.Model]
    neuron: Callable[..., Neuron | None] | None = None
    task: Task = CLASSIFICATION
    has_time: bool = False
    mask_value: float | None = None
    learning_rate: float
    weight_decay: float
    optimizer: SGD | AdamW = dataclasses.field(default_factory=SGD)
    epochs: int
    batch_size: int
    augment: str = "none"
    mix: str = "none"
    image_side: int | None = None
    frame_kind: str | None = None
    width: float = 1.0
    train_images: int | None = None
    held_out: int | None = None
    precision: str = "float32"
    jit_compile: bool | str = "auto"
    normalization: str = "batch"
    temporal: str | None = None
    spiking: SpikingStage | None
    seed: int = 0

    def __post_init__(self):
        recipe_checks.check(self)

    @property
    def tested(self):
        """What images the scores are of, for people: "test" or "held-out"."""
        return "test" if self.held_out is None else "held-out"

    @property
    def timesteps(self):
        """The number of time steps T, 1 for an ordinary network."""
        return 1 if self.spiking is None else self.spiking.timesteps

    @property
    def levels(self):
        """The most spikes of a neuron in a step, D, in a network of integer spikes;
        None for the recipe's own neurons."""
        return None if self.spiking is None else self.spiking.levels

    @property
    def slots(self):
        """The number of time steps T · D of the network of binary spikes that
        `keras_ratesnn.unroll` makes."""
        return self.timesteps * (self.levels or 1)

    @property
    def in_time(self):
        """How the network runs in time, for people: "T = 4", or "T = 1, 4 slots" with
        integer spikes."""
        if self.spiking is None:
            return "ordinary network"
        return f"T = {self.timesteps}" + (
            "" if self.levels is None else f", {self.slots} slots"
        )

    @property
    def converted_neuron(self):
        """The argument `neuron` of `spikify`."""
        if self.levels is None:
            return self.neuron
        # Without a leak, and with the gradient of the reset, as in the default neurons
        # of `spikify`.
        return functools.partial(ILIF, self.levels, decay=1.0, detach_reset=False)

    @property
    def ordinary_stage(self):
        """The `OrdinaryStage` before that of the spiking network, or None."""
        return None if self.spiking is None else self.spiking.after

    def ordinary_alone(self):
        """The recipe that trains the network of `ordinary_stage` alone, with the
        settings that it has in this recipe.

        It does not depend on the spiking network, so that runs that differ in that
        share the ordinary network.
        """
        return dataclasses.replace(
            self,
            spiking=None,
            **self.ordinary_stage.own(self.epochs, self.learning_rate),
        )

    def network(self, dataset=None, width=None):
        """The network of one time step, with the neurons of the setting `levels`;
        otherwise as `own_network`."""
        network = self.own_network(dataset, width)
        return (
            network
            if self.levels is None or self.neuron is not None
            else integer_network(network, self.levels)
        )

    def own_network(self, dataset=None, width=None):
        """The network of one time step with the recipe's own neurons, and with its
        width unless another is given.

        Args:
            dataset: The `Dataset` for training. Defaults to `None`, for recipes whose
                network does not depend on it.
            width: Float. Defaults to `None`, the recipe's.

        Raises:
            ValueError: If the recipe's network does not support the normalisation.
        """
        accepted = inspect.signature(self.build_network).parameters
        options = {"dataset": dataset, "temporal": self.temporal}
        options = {name: value for name, value in options.items() if name in accepted}
        if self.normalization != "batch":
            if "normalization" not in accepted:
                raise recipe_checks.unfit(
                    self,
                    "normalization",
                    "'batch'",
                    "whose network has no choice of it",
                )
            options["normalization"] = self.normalization
        return self.build_network(self.width if width is None else width, **options)

    def ordinary_network(self, dataset):
        """The network with ReLUs instead of neurons, an ordinary Keras model; for
        `dataset` see `own_network`."""
        network = self.own_network(dataset)
        return relu_network(network) if self.neuron is None else network

    def check_classifies(self, command):
        """Checks that the recipe trains a spiking network that classifies images.

        Raises:
            ValueError: If not; the message names the command.
        """
        if self.task is not CLASSIFICATION or self.spiking is None:
            raise ValueError(
                f"python -m recipes.{command} takes spiking networks that classify "
                f"images. Received: recipe {self.name!r} with the score "
                f"{self.task.score!r} and "
                f"ordinary={setting_names.ordinary(self.spiking)!r}."
            )

    def settings(self):
        """The values that can differ between runs of a recipe, as a dictionary of plain
        numbers and names."""
        return setting_names.of(self)

    @property
    def keys(self):
        """The names of the settings that `with_settings` takes."""
        return [name for name in self.settings() if name != "name"]

    def with_settings(self, assignments):
        """This recipe with other values, in the format of the command line.

        Args:
            assignments: Iterable of strings `key=value`.

        Raises:
            ValueError: If a string does not have this form, a key is not a setting, or
                a value is out of range or has no effect.
            TypeError: If a value has the wrong type.
        """
        values = {}
        for assignment in assignments:
            key, equals, text = assignment.partition("=")
            if not equals or key not in self.keys:
                raise ValueError(
                    f"--set takes key=value, and the keys are: {', '.join(self.keys)}. "
                    f"Received: {assignment!r}."
                )
            values[key] = _literal(text)
        return setting_names.changed(self, values)

    def load(self, data_dir, in_memory_for=None):
        """The `Dataset` of this recipe, from a folder, or from its default source if
        that is None.

        Args:
            data_dir: Path of the folder, or None.
            in_memory_for: Name of a command that takes no stream, or None.

        Raises:
            ValueError: If `held_out` leaves no training image, or the data set is a
                stream that a command does not take, or of which no part can be taken.
        """
        options = {
            name: getattr(self, name)
            for name in recipe_checks.OF_DATA
            if getattr(self, name) is not None
        }
        dataset = self.load_data(
            data_dir, *([self.timesteps] if self.has_time else []), **options
        )
        if (self.held_out or self.train_images) and not isinstance(dataset, Dataset):
            raise ValueError(
                "`held_out` and `train_images` must be None for a data set that is "
                f"read as a stream, as in {self.name}. Received: "
                f"held_out={self.held_out}, train_images={self.train_images}. Leave "
                "them out."
            )
        if in_memory_for is not None and not isinstance(dataset, Dataset):
            command = f"python -m recipes.{in_memory_for}"
            raise ValueError(
                f"{command} takes data sets in memory. Received: one that is read as a "
                "stream."
            )
        if self.held_out is not None:
            dataset = dataset.with_held_out(self.held_out)
        return (
            dataset if self.train_images is None else dataset.first(self.train_images)
        )


def _literal(text):
    """Parses Python numbers, True, False and None, and lists of numbers as tuples;
    returns anything else as text."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    # In JSON, the format of a run's settings, tuples become lists.
    return tuple(value) if isinstance(value, list) else value
