"""Checks of a recipe's settings. Each error names the setting, the value received and the remedy."""

import inspect

from recipes import augmentation, checks, setting_names
from recipes.data.frame_kinds import KINDS
from recipes.tasks.classification import CLASSIFICATION
from recipes.temporal import TEMPORAL

NORMALIZATIONS = "batch", "weight", "online"

LARGEST_SEED = 2**31 - 1
"""The largest seed of TensorFlow's generators."""

COUNTS = {
    "epochs": "It is the number of passes over the training images.",
    "batch_size": "It is the number of images in one training step.",
}
OPTIONAL_COUNTS = {
    "train_images": "None trains on all images.",
    "held_out": "None uses the test images.",
    "image_side": "It is a number of pixels.",
}

OF_DATA = {"image_side": "resize images", "frame_kind": "read recordings of event cameras"}
"""Settings that are arguments of `Recipe.load_data`, and what recipes without them do not do."""


def check(recipe):
    """Checks all settings of a `Recipe`.

    Raises:
        TypeError: If a number has the wrong type.
        ValueError: If a number is out of range, a name is unknown, or settings do not fit together.
    """
    _check_numbers(recipe)
    _check_names(recipe)
    _check_data(recipe)
    _check_temporal(recipe)
    _check_ordinary(recipe)
    _check_teaching(recipe)
    _check_other_timesteps(recipe)
    _check_levels(recipe)
    _check_augmentation(recipe)


def _check_numbers(recipe):
    checks.real("learning_rate", recipe.learning_rate, above=0, advice="It is the largest value of the schedule.")
    checks.real("weight_decay", recipe.weight_decay, at_least=0, advice="It is the decay of kernels.")
    checks.real("width", recipe.width, above=0, advice="It multiplies the number of channels of every layer.")
    for name, advice in COUNTS.items():
        checks.positive_integer(name, getattr(recipe, name), advice=advice)
    for name, advice in OPTIONAL_COUNTS.items():
        if getattr(recipe, name) is not None:
            checks.positive_integer(name, getattr(recipe, name), advice=advice)
    if not 0 <= checks.integer("seed", recipe.seed) <= LARGEST_SEED:
        raise ValueError(f"`seed` must be from 0 to {LARGEST_SEED}. Received: seed={recipe.seed}.")


def _check_names(recipe):
    checks.one_of("augment", recipe.augment, augmentation.AUGMENTATIONS)
    checks.one_of("mix", recipe.mix, augmentation.MIXES)
    checks.one_of("precision", recipe.precision, ("float32", "mixed_bfloat16", "mixed_float16", "float64"))
    checks.one_of("jit_compile", recipe.jit_compile, (True, False, "auto"))
    checks.one_of("normalization", recipe.normalization, NORMALIZATIONS)


def _check_data(recipe):
    for name, what in OF_DATA.items():
        value = getattr(recipe, name)
        if value is not None and name not in inspect.signature(recipe.load_data).parameters:
            raise ValueError(
                f"`{name}` must be None in recipe {recipe.name!r}, which does not {what}. Received: {name}={value}. "
                "Leave it out."
            )
    checks.one_of("frame_kind", recipe.frame_kind, (None, *KINDS))


def _check_temporal(recipe):
    checks.one_of("temporal", recipe.temporal, (None, *TEMPORAL))
    if recipe.temporal is None:
        return
    if "temporal" not in inspect.signature(recipe.build_network).parameters:
        raise ValueError(
            f"`temporal` must be None in recipe {recipe.name!r}, whose network has no choice of it. Received: "
            f"temporal={recipe.temporal!r}. Leave it out."
        )
    if recipe.levels is not None:
        raise ValueError(
            f"`levels` must be None with temporal={recipe.temporal!r}, which has neurons of its own. Received: "
            f"levels={recipe.levels}. Leave one of the two out."
        )


def _check_ordinary(recipe):
    ordinary = setting_names.ordinary(recipe)
    if recipe.has_time and ordinary != "no":
        raise ValueError(
            f"`ordinary` must be 'no' in recipe {recipe.name!r}, whose input has time. Received: ordinary={ordinary!r}."
        )


def _check_teaching(recipe):
    if recipe.spiking and recipe.spiking.taught_by and recipe.task is not CLASSIFICATION:
        settings = recipe.settings()
        name = next(name for name in setting_names.TEACHERS if settings[name] is not None)
        raise ValueError(
            f"`{name}` must be None in recipe {recipe.name!r}, which does not classify images. Received: "
            f"{name}={settings[name]}. "
            "Leave it out."
        )


def _check_other_timesteps(recipe):
    if not recipe.has_time or not recipe.spiking:
        return
    for name, unset in (("random_timesteps", None), ("one_step_epochs", 0)):
        value = getattr(recipe.spiking, name)
        if value != unset:
            raise ValueError(
                f"`{name}` must be {unset} in recipe {recipe.name!r}, whose input has time. Received: {name}={value}. "
                "Leave it out."
            )


def _check_levels(recipe):
    if recipe.levels is not None and recipe.normalization != "batch":
        raise ValueError(
            f"`levels` must be None with normalization={recipe.normalization!r}, which has neurons of its own. Received: "
            f"levels={recipe.levels}. Leave one of the two out."
        )


def _check_augmentation(recipe):
    received = f"augment={recipe.augment!r}, mix={recipe.mix!r}"
    if not recipe.task.augments and (recipe.augment, recipe.mix) != ("none", "none"):
        raise ValueError(
            f"`augment` and `mix` must be 'none' in recipe {recipe.name!r}, whose labels say where things are in an image. "
            f"Received: {received}. Leave them out."
        )
    if recipe.mask_value is not None and (recipe.augment, recipe.mix) != ("none", "none"):
        raise ValueError(
            f"`augment` and `mix` must be 'none' in recipe {recipe.name!r}, whose sequences are padded: they do not know "
            f"what is padding. Received: {received}. Leave them out."
        )
    of_sequences = "none", augmentation.layers.OF_SEQUENCES
    if recipe.has_time and (recipe.augment not in augmentation.BY_NAME or recipe.mix not in of_sequences):
        raise ValueError(
            f"`augment` must be one of {', '.join(augmentation.BY_NAME)} and `mix` one of {', '.join(of_sequences)} in recipe "
            f"{recipe.name!r}: layers of Keras take images, not frames. Received: {received}."
        )
    if not recipe.has_time and recipe.mix == of_sequences[1]:
        raise ValueError(
            f"`mix` must not be {recipe.mix!r} in recipe {recipe.name!r}, whose images have no time. Received: {received}. "
            "Set mix=cutmix."
        )
