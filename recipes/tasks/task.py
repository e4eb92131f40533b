"""Task: what the network of a recipe is trained for."""

import dataclasses
from collections.abc import Callable


# Functions with names, unlike lambdas, can be sent to another process.
def _nothing_needed():
    pass


def _no_further_scores(model, batches, dataset):
    return {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """Loss, metrics and pictures of a recipe.

    Attributes:
        score: Name of the score that tells how good a model is, the larger the better.
            It is in the logs of each epoch.
        compile_arguments: Function of a recipe and its `Dataset` that returns the
            arguments of `compile` besides the optimizer.
        check_packages: Function that raises an ImportError if a package is missing.
            Defaults to none.
        further_scores: Function of a compiled model, test batches and their `Dataset`
            that returns a dict of scores that are not Keras metrics, computed after
            each epoch. Defaults to none.
        draw: Function `(model, dataset, path)` that draws some predictions at the end
            of a run, or None. Defaults to None.
        augments: Boolean, whether `augment` and `mix`, which do not change where things
            are in an image, fit the labels. Defaults to False.
        several_devices: Boolean, whether the loss can be computed on several devices.
            Defaults to True.
    """

    score: str
    compile_arguments: Callable
    check_packages: Callable = _nothing_needed
    further_scores: Callable = _no_further_scores
    draw: Callable | None = None
    augments: bool = False
    several_devices: bool = True


def classification_arguments(recipe, dataset):
    """The loss and metrics of one class for each image."""
    import keras

    # Labels of mixed images are class fractions.
    cross_entropy = (
        keras.losses.SparseCategoricalCrossentropy
        if recipe.mix == "none"
        else keras.losses.CategoricalCrossentropy
    )
    return {"loss": cross_entropy(from_logits=True), "metrics": ["accuracy"]}


CLASSIFICATION = Task(
    score="accuracy", compile_arguments=classification_arguments, augments=True
)
