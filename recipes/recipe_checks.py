"""Checks of a recipe's settings. Each error names the setting, the value received and
the remedy."""

import inspect

from recipes import augmentation, checks, setting_names
from recipes.checks import mistake
from recipes.data.frame_kinds import KINDS
from recipes.tasks.task import CLASSIFICATION
from recipes.temporal import TEMPORAL

NORMALIZATIONS = "batch", "weight", "online"

LARGEST_SEED = 2**31 - 1
"""The largest seed of TensorFlow's generators."""

COUNTS = {
    "epochs": "It is the number of passes over the training images.",
    "batch_size": "It is the number of images in one training step.",
    "train_images": "None trains on all images.",
    "held_out": "None uses the test images.",
    "image_side": "It is a number of pixels.",
}
OPTIONAL = ("train_images", "held_out", "image_side")
"""Of these what may be None."""

OF_DATA = {
    "image_side": "resize images",
    "frame_kind": "read recordings of event cameras",
}
"""Settings that are arguments of `Recipe.load_data`, and what recipes without them do
not do."""


def check(recipe):
    """Checks all settings of a `Recipe`.

    Raises:
        TypeError: If a number has the wrong type.
        ValueError: If a number is out of range, a name is unknown, or settings do not
            fit together.
    """
    _check_numbers(recipe)
    _check_names(recipe)
    _check_data(recipe)
    _check_neurons(recipe)
    _check_training(recipe)
    _check_augmentation(recipe)


def unfit(recipe, name, wanted, why, remedy="Leave it out."):
    """The error for a setting that does not fit a recipe."""
    return mistake(
        name,
        f"{wanted} in recipe {recipe.name!r}, {why}",
        recipe.settings()[name],
        remedy,
    )


def _check_numbers(recipe):
    checks.real(
        "learning_rate",
        recipe.learning_rate,
        above=0,
        advice="It is the largest value of the schedule.",
    )
    checks.real(
        "weight_decay",
        recipe.weight_decay,
        at_least=0,
        advice="It is the decay of kernels.",
    )
    checks.real(
        "width",
        recipe.width,
        above=0,
        advice="It multiplies the number of channels of every layer.",
    )
    for name, advice in COUNTS.items():
        if getattr(recipe, name) is not None or name not in OPTIONAL:
            checks.positive_integer(name, getattr(recipe, name), advice=advice)
    if not 0 <= checks.integer("seed", recipe.seed) <= LARGEST_SEED:
        raise ValueError(
            f"`seed` must be from 0 to {LARGEST_SEED}. Received: seed={recipe.seed}."
        )


def _check_names(recipe):
    checks.one_of("augment", recipe.augment, augmentation.AUGMENTATIONS)
    checks.one_of("mix", recipe.mix, augmentation.MIXES)
    checks.one_of(
        "precision",
        recipe.precision,
        ("float32", "mixed_bfloat16", "mixed_float16", "float64"),
    )
    checks.one_of("jit_compile", recipe.jit_compile, (True, False, "auto"))
    checks.one_of("normalization", recipe.normalization, NORMALIZATIONS)


def _check_data(recipe):
    for name, what in OF_DATA.items():
        if (
            getattr(recipe, name) is not None
            and name not in inspect.signature(recipe.load_data).parameters
        ):
            raise unfit(recipe, name, None, f"which does not {what}")
    checks.one_of("frame_kind", recipe.frame_kind, (None, *KINDS))


def _check_neurons(recipe):
    checks.one_of("temporal", recipe.temporal, (None, *TEMPORAL))
    if (
        recipe.temporal is not None
        and "temporal" not in inspect.signature(recipe.build_network).parameters
    ):
        raise unfit(recipe, "temporal", None, "whose network has no choice of it")
    for name, usual in (("temporal", None), ("normalization", "batch")):
        value, remedy = getattr(recipe, name), "Leave one of the two out."
        if recipe.levels is not None and value != usual:
            raise mistake(
                "levels",
                f"None with {name}={value!r}, which has neurons of its own",
                recipe.levels,
                remedy,
            )


def _check_training(recipe):
    settings = recipe.settings()
    for name in setting_names.TEACHERS:
        if settings[name] is not None and recipe.task is not CLASSIFICATION:
            raise unfit(recipe, name, None, "which does not classify images")
    without_time = {"ordinary": "no", "random_timesteps": None, "one_step_epochs": 0}
    for name, unset in without_time.items() if recipe.has_time else ():
        if settings[name] != unset:
            raise unfit(recipe, name, repr(unset), "whose input has time")


def _check_augmentation(recipe):
    received = f"Received: augment={recipe.augment!r}, mix={recipe.mix!r}."
    why = (
        None
        if recipe.task.augments
        else "whose labels say where things are in an image"
    )
    if recipe.mask_value is not None:
        why = "whose sequences are padded: they do not know what is padding"
    if why is not None and (recipe.augment, recipe.mix) != ("none", "none"):
        raise ValueError(
            f"`augment` and `mix` must be 'none' in recipe {recipe.name!r}, {why}. "
            f"{received} Leave them out."
        )
    of_sequences = "none", augmentation.layers.OF_SEQUENCES
    of_images = "none", *augmentation.BY_NAME
    if recipe.has_time and (
        recipe.augment not in of_images or recipe.mix not in of_sequences
    ):
        raise ValueError(
            f"`augment` must be one of {', '.join(of_images)} and `mix` one of "
            f"{', '.join(of_sequences)} in recipe {recipe.name!r}: layers of Keras "
            f"take images, not frames. {received}"
        )
    if not recipe.has_time and recipe.mix == of_sequences[1]:
        raise unfit(
            recipe, "mix", "of images", "whose images have no time", "Set mix=cutmix."
        )
