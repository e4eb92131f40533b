"""Recipe: network, data and settings of a training.

Neither Keras nor a backend is imported before they are needed.
"""

import ast
import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any

from recipes import augmentation
from recipes.checks import both_set, mistake
from recipes.data.dataset import Dataset
from recipes.settings import (
    DEFAULTS,
    SETTINGS,
    TEACHERS,
    UNSET_IF_ONLY,
    Settings,
    effective,
)
from recipes.tasks.task import CLASSIFICATION, Task

DATA_SETTINGS = ("image_side", "frame_kind")
"""Settings that are arguments of `Recipe.load_data`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe(Settings):
    """Network, data and training settings: the defaults of `python -m recipes.train
    NAME`.

    For other values use `dataclasses.replace(recipe, epochs=8)` or
    `recipe.with_settings`.

    Attributes:
        name: The name on the command line.
        load_data: Function from a folder, or None if none was given, to a `Dataset`; if
            `has_time`, a function of `(folder, timesteps)`.
        build_network: Function from `width` to the network of one time step, which
            takes raw pixels and returns logits. It may also take `normalization`,
            `temporal`, and `dataset`, the `Dataset` for training.
        neuron: The argument `neuron` of `spikify`, which converts the network if
            `build_network` returns an ordinary one. None if it returns a network of
            neurons. With the setting `levels` all networks have other neurons.
        task: What the network is trained for.
        has_time: Whether an example is a sequence of `timesteps` frames instead of one
            image.
        mask_value: The number that all elements of a frame have which is padding, see
            `keras_ratesnn.SpikingModel`; None if there is no padding.

    Raises:
        TypeError: If a number has the wrong type.
        ValueError: If a number is out of range, a name is unknown, or settings do not
            fit together.
    """

    name: str
    load_data: Callable[..., Dataset]
    build_network: Callable[..., Any]
    neuron: Callable[..., Any] | None = None
    task: Task = CLASSIFICATION
    has_time: bool = False
    mask_value: float | None = None

    def __post_init__(self):
        super().__post_init__()
        _check_fit(self)
        _check_levels(self)
        _check_training(self)
        _check_time(self)
        _check_augmentation(self)

    @property
    def tested(self):
        """The images that the scores are of, for people: "test" or "held-out"."""
        return "test" if self.held_out is None else "held-out"

    @property
    def is_spiking(self):
        """Whether the spiking network is trained, not the ordinary one alone."""
        return self.ordinary != "only"

    @property
    def has_ordinary_before(self):
        """Whether the ordinary network is trained before the spiking one."""
        return self.ordinary in ("beside", "first")

    @property
    def method(self):
        """The `keras_ratesnn.gradients.GradientMethod`."""
        from recipes import methods

        return methods.gradient_method(self.settings())

    @property
    def substeps(self):
        """The number of time steps T · D of the network of binary spikes that
        `keras_ratesnn.deploy.unroll` makes."""
        return self.timesteps * (self.levels or 1)

    @property
    def in_time(self):
        """How the network runs in time, for people: "T = 4", or "T = 1, 4 substeps"
        with integer spikes."""
        if not self.is_spiking:
            return "ordinary network"
        count = "" if self.levels is None else f", {self.substeps} substeps"
        return f"T = {self.timesteps}{count}"

    @property
    def converted_neuron(self):
        """The argument `neuron` of `spikify`."""
        if self.levels is None:
            return self.neuron
        from keras_ratesnn.layers import ILIF

        # Without a leak, and with the gradient of the reset, as in the default neurons
        # of `spikify`.
        return functools.partial(ILIF, self.levels, decay=1.0, detach_reset=False)

    def without_spikes(self):
        """The recipe that trains the ordinary network alone, as long as this one."""
        return dataclasses.replace(
            self, ordinary="only", **{name: DEFAULTS[name] for name in UNSET_IF_ONLY}
        )

    def ordinary_alone(self):
        """The recipe that trains the ordinary network alone, with the settings that it
        has in this recipe.

        It does not depend on the spiking network, so that runs that differ in that
        share the ordinary network.
        """
        return dataclasses.replace(
            self.without_spikes(),
            epochs=self.ordinary_epochs or self.epochs,
            learning_rate=self.ordinary_learning_rate or self.learning_rate,
        )

    def network(self, dataset=None, width=None):
        """The network of one time step, with the neurons of the settings `levels` and
        `initial_membrane`; otherwise as `own_network`."""
        network = self.own_network(dataset, width)
        if self.neuron is not None:
            return network
        from recipes import layers

        if self.levels is not None:
            network = layers.integer_network(network, self.levels)
        if self.initial_membrane:
            network = layers.started_network(network, self.initial_membrane)
        return network

    def own_network(self, dataset=None, width=None):
        """The network of one time step with the recipe's own neurons, and with its
        width unless another is given.

        Args:
            dataset: The `Dataset` for training. Defaults to `None`, for recipes whose
                network does not depend on it.
            width: Float. Defaults to `None`, the recipe's.
        """
        options = {
            "dataset": dataset,
            "temporal": self.temporal,
            "normalization": self.normalization,
        }
        accepted = inspect.signature(self.build_network).parameters
        options = {name: value for name, value in options.items() if name in accepted}
        return self.build_network(self.width if width is None else width, **options)

    def ordinary_network(self, dataset):
        """The network with ReLUs instead of neurons, an ordinary Keras model; for
        `dataset` see `own_network`."""
        network = self.own_network(dataset)
        if self.neuron is not None:
            return network
        from recipes.layers import relu_network

        return relu_network(network)

    def check_classifies(self, command):
        """Checks that the recipe trains a spiking network that classifies images.

        Raises:
            ValueError: If not; the message names the command.
        """
        if self.task is not CLASSIFICATION or not self.is_spiking:
            raise ValueError(
                f"python -m recipes.{command} takes spiking networks that classify "
                f"images. Received: recipe {self.name!r} with the score "
                f"{self.task.score!r} and ordinary={self.ordinary!r}."
            )

    def settings(self):
        """The name and the settings, as a dictionary of plain numbers and names."""
        return {"name": self.name, **{name: getattr(self, name) for name in SETTINGS}}

    def with_settings(self, assignments):
        """This recipe with other values, in the format of the command line.

        Args:
            assignments: Iterable of strings `key=value`.

        Raises:
            ValueError: If a string does not have this form, a key is not a setting, or
                a value is out of range or has no effect.
            TypeError: If a value has the wrong type.
        """
        given = {}
        for assignment in assignments:
            key, equals, text = assignment.partition("=")
            if not equals or key not in SETTINGS:
                raise ValueError(
                    f"--set takes key=value, and the keys are: {', '.join(SETTINGS)}. "
                    f"Received: {assignment!r}."
                )
            given[key] = _literal(text)
        if "gradient" in given:
            from recipes import methods

            # A class of one's own has the name of where it is defined.
            values = {**self.settings(), **given}
            given["gradient"] = methods.name_of(methods.gradient_method(values))
        return dataclasses.replace(self, **effective(self.settings(), given))

    def load(self, data_dir, in_memory_for=None):
        """The `Dataset` of this recipe, from a folder, or from its default source if
        that is None.

        Args:
            data_dir: Path of the folder, or None.
            in_memory_for: Name of a command that takes no stream. Defaults to `None`, a
                stream is allowed.

        Raises:
            ValueError: If `held_out` leaves no training image, or the data set is a
                stream that a command does not take, or of which no part can be taken.
        """
        options = {name: getattr(self, name) for name in DATA_SETTINGS}
        options = {name: value for name, value in options.items() if value is not None}
        time = [self.timesteps] if self.has_time else []
        dataset = self.load_data(data_dir, *time, **options)
        if isinstance(dataset, Dataset):
            if self.held_out is not None:
                dataset = dataset.with_held_out(self.held_out)
            if self.train_images is not None:
                dataset = dataset.first(self.train_images)
            return dataset
        if self.held_out or self.train_images:
            raise ValueError(
                "`held_out` and `train_images` must be None for a data set that is "
                f"read as a stream, as in {self.name}. Received: "
                f"held_out={self.held_out}, train_images={self.train_images}. Leave "
                "them out."
            )
        if in_memory_for is not None:
            raise ValueError(
                f"python -m recipes.{in_memory_for} takes data sets in memory. "
                "Received: one that is read as a stream."
            )
        return dataset

    def unfit(self, name, wanted, why, remedy="Leave it out."):
        """The error for a setting that does not fit this recipe."""
        must = f"{wanted} in recipe {self.name!r}, {why}"
        return mistake(name, must, getattr(self, name), remedy)


def _literal(text):
    """Parses Python numbers, True, False and None, and lists of numbers as tuples;
    returns anything else as text."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    # In JSON, the format of a run's settings, tuples become lists.
    return tuple(value) if isinstance(value, list) else value


# Checks of settings that depend on each other.


def _check_fit(recipe):
    """Checks that what settings change is part of the recipe."""
    data_options = inspect.signature(recipe.load_data).parameters
    network_options = inspect.signature(recipe.build_network).parameters
    no_choice = "whose network has no choice of it"
    for names, fits, why in (
        (["image_side"], "image_side" in data_options, "which does not resize images"),
        (
            ["frame_kind"],
            "frame_kind" in data_options,
            "which does not read recordings of event cameras",
        ),
        (["temporal"], "temporal" in network_options, no_choice),
        (["normalization"], "normalization" in network_options, no_choice),
        (
            ["initial_membrane"],
            recipe.neuron is None and recipe.temporal is None,
            "whose neurons start as they must",
        ),
        (TEACHERS, recipe.task is CLASSIFICATION, "which does not classify images"),
        (
            ("ordinary", "random_timesteps", "one_step_epochs"),
            not recipe.has_time,
            "whose input has time",
        ),
    ):
        for name in names:
            if getattr(recipe, name) != DEFAULTS[name] and not fits:
                raise recipe.unfit(name, repr(DEFAULTS[name]), why)


def _check_levels(recipe):
    if recipe.levels is None:
        return
    for name in ("temporal", "normalization"):
        value = getattr(recipe, name)
        if value != DEFAULTS[name]:
            must = f"None with {name}={value!r}, which has neurons of its own"
            remedy = "Leave one of the two out."
            raise mistake("levels", must, recipe.levels, remedy)


def _check_training(recipe):
    teachers = [name for name in TEACHERS if getattr(recipe, name) is not None]
    if len(teachers) > 1:
        raise both_set(**{name: getattr(recipe, name) for name in teachers[:2]})
    if recipe.start_from is not None and recipe.ordinary == "first":
        raise both_set(start_from=recipe.start_from, ordinary="first")


def _check_time(recipe):
    """Checks that the training method can be used with each T of training."""
    method = recipe.method
    method.check_timesteps(recipe.timesteps)
    random, first = recipe.random_timesteps, recipe.one_step_epochs
    names = ("one_step_epochs", "two_window_epochs", "random_timesteps")
    chosen = {name: getattr(recipe, name) for name in names if getattr(recipe, name)}
    if len(chosen) > 1:
        raise both_set(**chosen)
    if recipe.two_window_epochs and recipe.timesteps == 1:
        raise recipe.unfit("two_window_epochs", "0", "with timesteps=1")
    if random is not None:
        from keras_ratesnn.callbacks import RandomTimesteps

        try:
            RandomTimesteps(*random)
            for timesteps in range(random[0], random[1] + 1):
                method.check_timesteps(timesteps)
        except (TypeError, ValueError) as error:
            must = "numbers of time steps that can be trained"
            raise mistake(
                "random_timesteps", must, list(random), error, type(error)
            ) from error
    if first:
        try:
            method.check_timesteps(1)
        except ValueError as error:
            raise ValueError(
                "`one_step_epochs` needs a gradient for T = 1. Received: "
                f"one_step_epochs={first}. {error}"
            ) from error


def _check_augmentation(recipe):
    received = f"Received: augment={recipe.augment!r}, mix={recipe.mix!r}."
    is_augmented = (recipe.augment, recipe.mix) != ("none", "none")
    if is_augmented and not recipe.task.augments:
        raise ValueError(
            f"`augment` and `mix` must be 'none' in recipe {recipe.name!r}, whose "
            f"labels say where things are in an image. {received} Leave them out."
        )
    image_augmentations = "none", *augmentation.IMAGE_FUNCTIONS
    fits_time = recipe.augment in image_augmentations and recipe.mix == "none"
    if recipe.has_time and not fits_time:
        raise ValueError(
            f"`augment` must be one of {', '.join(image_augmentations)} and `mix` "
            f"'none' in recipe {recipe.name!r}: layers of Keras take images, not "
            f"frames. {received}"
        )
