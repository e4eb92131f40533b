"""The settings of a training, flat: what users type after `--set`, and what a run
writes down; their values, and when they have an effect.

Neither Keras nor a backend is imported.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from recipes import augmentation, checks
from recipes.checks import mistake

LARGEST_SEED = 2**31 - 1
"""The largest seed of TensorFlow's generators."""

COUNT = checks.positive_integer
POSITIVE = functools.partial(checks.real, above=0)


def setting(meaning, check, default: Any = dataclasses.MISSING) -> Any:
    """A field of `Settings`.

    Args:
        meaning: String, what it is, for the help of commands and for errors.
        check: Function `(name, value, advice=...)` that raises an error.
        default: The value where nothing is set, which is not checked. Defaults to none:
            the setting is required.
    """
    return dataclasses.field(
        default=default, metadata={"meaning": meaning, "check": check}
    )


def _one_of(*choices):
    return functools.partial(checks.one_of, choices=choices)


def _any(name, value, advice):
    """The check of settings that are looked at elsewhere."""


def _share(name, value, advice):
    if POSITIVE(name, value, advice=advice) > 1:
        raise mistake(name, "at most 1", value)


def _names(name, value, advice):
    if not isinstance(value, str) or not all(value.split(",")):
        raise mistake(
            name, "names of pretrained networks with commas between them", value
        )


def _two_integers(name, value, advice):
    if not isinstance(value, tuple) or len(value) != 2:
        must = (
            "two integers, the smallest and the largest number of time steps, as in "
            "random_timesteps=[1,4]"
        )
        raise mistake(name, must, value, kind=TypeError)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of a recipe.

    Raises:
        TypeError: If a number has the wrong type.
        ValueError: If a number is out of range or a name is unknown.
    """

    learning_rate: float = setting("the largest value of the schedule", POSITIVE)
    weight_decay: float = setting(
        "the decay of kernels: each step multiplies them by 1 - learning_rate * it",
        functools.partial(checks.real, at_least=0),
    )
    epochs: int = setting("the number of passes over the training images", COUNT)
    batch_size: int = setting("the number of images in one training step", COUNT)
    augment: str = setting(
        "how training images are changed", _one_of(*augmentation.AUGMENTATIONS), "none"
    )
    mix: str = setting(
        "how training images are mixed", _one_of(*augmentation.MIXES), "none"
    )
    image_side: int | None = setting(
        "the number of pixels to which images are resized", COUNT, None
    )
    frame_kind: str | None = setting(
        "what frames the recordings of an event camera become",
        _one_of(None, "count", "time"),
        None,
    )
    width: float = setting(
        "what the channels of every layer are multiplied by", POSITIVE, 1.0
    )
    train_images: int | None = setting(
        "the number of images to train on; None trains on all", COUNT, None
    )
    held_out: int | None = setting(
        "the number of training images, the last ones, that replace the test images; "
        "None uses the test images",
        COUNT,
        None,
    )
    precision: str = setting(
        "Keras' dtype policy",
        _one_of("float32", "mixed_bfloat16", "mixed_float16", "float64"),
        "float32",
    )
    jit_compile: bool | str = setting(
        "as in keras.Model.compile", _one_of(True, False, "auto"), "auto"
    )
    normalization: str = setting(
        "that of keras_ratesnn.models.VGG11",
        _one_of("batch", "weight", "online"),
        "batch",
    )
    temporal: str | None = setting(
        "what sees more of time than leaky neurons do",
        _one_of(None, "recurrent", "sliding_psn", "delays"),
        None,
    )
    seed: int = setting(
        "that of weights, order and augmentation",
        functools.partial(checks.integer, at_least=0, at_most=LARGEST_SEED),
        0,
    )
    optimizer: str = setting("the optimizer", _one_of("sgd", "adamw", "adam"), "sgd")
    as_the_authors: bool = setting(
        "whether rates are those of the paper's authors' program, True or False",
        checks.boolean,
        False,
    )
    restart_at: float | None = setting(
        "a fraction of the run, after which the learning rate starts again",
        functools.partial(checks.real, above=0, below=1),
        None,
    )
    ordinary: str = setting(
        "which networks are trained: the spiking one, the ordinary one with ReLUs, "
        "both, or first the ordinary one, with whose weights the spiking one starts",
        _one_of("no", "only", "beside", "first"),
        "no",
    )
    ordinary_epochs: int | None = setting(
        "the epochs of the ordinary network; None is `epochs`", COUNT, None
    )
    ordinary_learning_rate: float | None = setting(
        "that of the ordinary network; None is `learning_rate`", POSITIVE, None
    )
    timesteps: int = setting(
        "the number of time steps that the network runs for", COUNT, 1
    )
    levels: int | None = setting(
        "the most spikes of a neuron in a step; None is the recipe's neurons",
        COUNT,
        None,
    )
    weights: str | None = setting(
        "the type of quantised weights", _one_of(None, "int8", "int4", "ternary"), None
    )
    random_timesteps: tuple[int, int] | None = setting(
        "the smallest and the largest T of a batch", _two_integers, None
    )
    one_step_epochs: int = setting(
        "the number of epochs at the start with T = 1",
        functools.partial(checks.integer, at_least=0),
        0,
    )
    two_window_epochs: int = setting(
        "the number of epochs at the start with two windows",
        functools.partial(checks.integer, at_least=0),
        0,
    )
    initial_membrane: float = setting(
        "the membranes of neurons before the first step",
        functools.partial(checks.real, below=1),
        0.0,
    )
    start_from: str | None = setting(
        "a pretrained network, with whose weights training starts", _any, None
    )
    step_mode: str = setting(
        "as in keras_ratesnn.SpikingModel", _one_of("multi", "single"), "multi"
    )
    gradient: str = setting(
        "the training method: rate, bptt, sltt, ottt or package.module:Class",
        _any,
        "rate",
    )
    windows: int | tuple[int, ...] = setting(
        "time windows of rate: their number, or their sizes, [1,3]", _any, 1
    )
    random_steps: int | None = setting("random steps of sltt", _any, None)
    recompute: bool = setting(
        "layers run again in the backward pass of bptt", checks.boolean, False
    )
    teacher_weight: float | None = setting(
        "how much is learnt from a teacher; None is without", _share, None
    )
    branches: int | None = setting(
        "the number of branches that teach; None is without", COUNT, None
    )
    step_distillation: float | None = setting(
        "how much steps learn from those that are right; None is without",
        POSITIVE,
        None,
    )
    temperature: float | None = setting(
        "what softens the probabilities of teachers", POSITIVE, None
    )
    teachers: str | None = setting(
        "pretrained networks that teach instead of the ordinary one", _names, None
    )

    def __post_init__(self):
        for name, field in SETTINGS.items():
            value = getattr(self, name)
            if value is not field.default:
                meaning = field.metadata["meaning"]
                field.metadata["check"](name, value, advice=f"It is {meaning}.")


SETTINGS = {field.name: field for field in dataclasses.fields(Settings)}
"""The fields of settings by their names."""

DEFAULTS = {
    field.name: field.default
    for field in dataclasses.fields(Settings)
    if field.default is not dataclasses.MISSING
}
"""The defaults of settings, by name."""

TEACHERS = ("teacher_weight", "branches", "step_distillation")
"""Settings of which one at the most is not None."""

FROM_TEACHERS = (*TEACHERS, "temperature", "teachers")
FOR_ORDINARY = ("ordinary_epochs", "ordinary_learning_rate")

SPIKING_SETTINGS = (
    "timesteps",
    "levels",
    "weights",
    "random_timesteps",
    "one_step_epochs",
    "two_window_epochs",
    "initial_membrane",
    "start_from",
    "step_mode",
    "gradient",
    "windows",
    "random_steps",
    "recompute",
    *FROM_TEACHERS,
)
"""Settings of the spiking network: the training of the ordinary one does not depend on
them."""

UNSET_IF_ONLY = (*FOR_ORDINARY, *SPIKING_SETTINGS)
"""Settings without a meaning if only the ordinary network is trained."""

TEACHING_SETTINGS = ("ordinary", *FOR_ORDINARY, *FROM_TEACHERS)
"""Settings that train the spiking network with others: commands that train it alone do
not use them."""


@dataclasses.dataclass(frozen=True)
class Effect:
    """When a setting has an effect.

    Attributes:
        condition: Function of all settings, a dictionary.
        otherwise: String, where it has none.
        remedy: String, what gives it one.
    """

    condition: Callable
    otherwise: str
    remedy: str


def _only_with(name, value):
    """The effect of a setting that belongs to one value of another."""
    return Effect(
        lambda settings: settings[name] == value,
        f"with another {name} than {value!r}",
        f"Set {name}={value}",
    )


WITH_ORDINARY = Effect(
    lambda settings: settings["ordinary"] != "no",
    "if no ordinary network is trained",
    "Set ordinary=first or ordinary=beside",
)
EFFECTS = {
    "as_the_authors": _only_with("optimizer", "sgd"),
    "restart_at": _only_with("optimizer", "sgd"),
    "windows": _only_with("gradient", "rate"),
    "two_window_epochs": Effect(
        lambda settings: settings["gradient"] == "rate" and settings["windows"] == 1,
        "with another gradient than one window of rate",
        "Set gradient=rate windows=1",
    ),
    "random_steps": _only_with("gradient", "sltt"),
    "recompute": _only_with("gradient", "bptt"),
    "ordinary_epochs": WITH_ORDINARY,
    "ordinary_learning_rate": WITH_ORDINARY,
    "teacher_weight": Effect(
        lambda settings: settings["ordinary"] != "no" or settings["teachers"],
        "if no ordinary network is trained and no teachers are set",
        "Set teachers, ordinary=first or ordinary=beside",
    ),
    "teachers": Effect(
        lambda settings: settings["teacher_weight"] is not None,
        "without teacher_weight",
        "Set teacher_weight",
    ),
    "temperature": Effect(
        lambda settings: any(settings[name] is not None for name in TEACHERS),
        "without a teacher, branches and step_distillation",
        "Set teacher_weight, branches or step_distillation",
    ),
}
"""Settings that have no effect in some kinds of training: there they have their
defaults, and to set them is a mistake."""


def effective(settings, given):
    """The values of all settings, with those that are given, and without those that
    have no effect.

    Raises:
        ValueError: If one that is given has no effect.
    """
    values = {**settings, **given}
    for name, effect in EFFECTS.items():
        if not effect.condition(values):
            if given.get(name, DEFAULTS[name]) != DEFAULTS[name]:
                must = f"{DEFAULTS[name]} {effect.otherwise}"
                remedy = f"{effect.remedy}, or leave it out."
                raise mistake(name, must, given[name], remedy)
            values[name] = DEFAULTS[name]
    return _only_ordinary(values, given) if values["ordinary"] == "only" else values


def _only_ordinary(values, given):
    """The values of settings if only the ordinary network is trained."""
    unused = [
        f"{name}={given[name]}"
        for name in SPIKING_SETTINGS
        if given.get(name, DEFAULTS[name]) != DEFAULTS[name]
    ]
    if unused:
        raise ValueError(
            "With ordinary=only there is no spiking network, to which these settings "
            f"belong. Received: --set {' '.join(unused)}. Leave them out, or set "
            "ordinary=beside or ordinary=first to train both networks."
        )
    own = {}
    for name in ("epochs", "learning_rate"):
        keys = f"ordinary_{name}", name
        # What is given comes before what the recipe has.
        wanted = [source.get(key) for source in (given, values) for key in keys]
        own[name] = next(value for value in wanted if value is not None)
    return {**values, **{name: DEFAULTS[name] for name in UNSET_IF_ONLY}, **own}
