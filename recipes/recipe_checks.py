"""Checks of a recipe's settings. Each error names the setting, the value received and the remedy."""

import inspect
from typing import get_args

from keras_ratesnn._core import checks
from keras_ratesnn._core.annotations import Normalizer
from keras_ratesnn.spiking_model import STEP_MODES
from recipes import augmentation, optimizers
from recipes.tasks.classification import CLASSIFICATION

NORMALIZATIONS = get_args(Normalizer)

ORDINARY = ("no", "only", "beside", "first")
"""Choices of the ordinary network, see `Recipe`."""

LARGEST_SEED = 2**31 - 1
"""The largest seed of TensorFlow's generators."""

COUNTS = {
    "epochs": "It is the number of passes over the training images.",
    "batch_size": "It is the number of images in one training step.",
    "timesteps": "It is the number of time steps that the network runs for.",
}
OPTIONAL_COUNTS = {
    "train_images": "None trains on all images.",
    "held_out": "None uses the test images.",
    "image_side": "It is a number of pixels.",
    "ordinary_epochs": "None trains as long as `epochs`.",
    "branches": "None is without branches.",
}


def check(recipe):
    """Checks all settings of a `Recipe`.

    Raises:
        TypeError: If a number has the wrong type.
        ValueError: If a number is out of range, a name is unknown, or settings do not fit together.
    """
    _check_numbers(recipe)
    _check_names(recipe)
    _check_image_side(recipe)
    _check_ordinary(recipe)
    _check_teaching(recipe)
    _check_optimizer(recipe)
    _check_augmentation(recipe)
    recipe.gradient_method().check_timesteps(recipe.timesteps)


def _check_numbers(recipe):
    checks.real("learning_rate", recipe.learning_rate, above=0, advice="It is the largest value of the schedule.")
    checks.real("weight_decay", recipe.weight_decay, at_least=0, advice="It is the decay of kernels.")
    checks.real("width", recipe.width, above=0, advice="It multiplies the number of channels of every layer.")
    for name, advice in COUNTS.items():
        checks.positive_integer(name, getattr(recipe, name), advice=advice)
    for name, advice in OPTIONAL_COUNTS.items():
        if getattr(recipe, name) is not None:
            checks.positive_integer(name, getattr(recipe, name), advice=advice)
    if recipe.restart_at is not None:
        checks.real("restart_at", recipe.restart_at, above=0, below=1, advice="It is a fraction of the run, or None.")
    if recipe.ordinary_learning_rate is not None:
        checks.real("ordinary_learning_rate", recipe.ordinary_learning_rate, above=0, advice="None is `learning_rate`.")
    if recipe.temperature is not None:
        checks.real("temperature", recipe.temperature, above=0, advice="It softens the probabilities.")
    if recipe.teacher_weight is not None:
        weight = checks.real("teacher_weight", recipe.teacher_weight, above=0, advice="None is without a teacher.")
        if weight > 1:
            raise ValueError(f"`teacher_weight` must be at most 1. Received: teacher_weight={weight}.")
    if not 0 <= checks.integer("seed", recipe.seed) <= LARGEST_SEED:
        raise ValueError(f"`seed` must be from 0 to {LARGEST_SEED}. Received: seed={recipe.seed}.")


def _check_names(recipe):
    checks.boolean("as_the_authors", recipe.as_the_authors)
    checks.one_of("ordinary", recipe.ordinary, ORDINARY)
    checks.one_of("optimizer", recipe.optimizer, optimizers.BY_NAME)
    checks.one_of("augment", recipe.augment, augmentation.AUGMENTATIONS)
    checks.one_of("mix", recipe.mix, augmentation.MIXES)
    checks.one_of("precision", recipe.precision, ("float32", "mixed_bfloat16", "mixed_float16", "float64"))
    checks.one_of("jit_compile", recipe.jit_compile, (True, False, "auto"))
    checks.one_of("step_mode", recipe.step_mode, STEP_MODES)
    checks.one_of("normalization", recipe.normalization, NORMALIZATIONS)


def _check_image_side(recipe):
    if recipe.image_side is not None and "image_side" not in inspect.signature(recipe.load_data).parameters:
        raise ValueError(
            f"`image_side` must be None in recipe {recipe.name!r}, which does not resize images. Received: "
            f"image_side={recipe.image_side}. Leave it out."
        )


def _check_ordinary(recipe):
    if recipe.has_time and recipe.ordinary != "no":
        raise ValueError(
            f"`ordinary` must be 'no' in recipe {recipe.name!r}, whose input has time. Received: ordinary={recipe.ordinary!r}."
        )
    for name in ("ordinary_epochs", "ordinary_learning_rate", "teacher_weight"):
        if recipe.ordinary == "no" and getattr(recipe, name) is not None:
            raise ValueError(
                f"`{name}` must be None if no ordinary network is trained. Received: {name}={getattr(recipe, name)} with "
                "ordinary='no'. Set ordinary=first or ordinary=beside, or leave it out."
            )


def _check_teaching(recipe):
    given = [name for name in ("teacher_weight", "branches") if getattr(recipe, name) is not None]
    if len(given) == 2:
        raise ValueError(
            f"`teacher_weight` and `branches` cannot both be set. Received: teacher_weight={recipe.teacher_weight}, "
            f"branches={recipe.branches}. Leave one of the two out."
        )
    if given and recipe.task is not CLASSIFICATION:
        raise ValueError(
            f"`{given[0]}` must be None in recipe {recipe.name!r}, which does not classify images. Received: "
            f"{given[0]}={getattr(recipe, given[0])}. Leave it out."
        )
    if recipe.temperature is not None and not given:
        raise ValueError(
            f"`temperature` must be None without a teacher and branches. Received: temperature={recipe.temperature}. Set "
            "teacher_weight or branches, or leave it out."
        )


def _check_optimizer(recipe):
    if recipe.optimizer != "sgd" and (recipe.as_the_authors or recipe.restart_at):
        raise ValueError(
            "`as_the_authors` and `restart_at` belong to the optimizer 'sgd'. Received: "
            f"optimizer={recipe.optimizer!r}. Leave one of the two out."
        )


def _check_augmentation(recipe):
    received = f"augment={recipe.augment!r}, mix={recipe.mix!r}"
    if not recipe.task.augments and (recipe.augment, recipe.mix) != ("none", "none"):
        raise ValueError(
            f"`augment` and `mix` must be 'none' in recipe {recipe.name!r}, whose labels say where things are in an image. "
            f"Received: {received}. Leave them out."
        )
    if recipe.has_time and (recipe.augment not in augmentation.BY_NAME or recipe.mix != "none"):
        raise ValueError(
            f"`augment` must be one of {', '.join(augmentation.BY_NAME)} and `mix` 'none' in recipe {recipe.name!r}: layers "
            f"of Keras take images, not frames. Received: {received}."
        )
