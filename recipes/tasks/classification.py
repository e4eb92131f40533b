"""Classification: one class for each image."""

import keras

from recipes.tasks.task import Task


def compile_arguments(recipe, dataset):
    # Labels of mixed images are class fractions.
    cross_entropy = keras.losses.SparseCategoricalCrossentropy if recipe.mix == "none" else keras.losses.CategoricalCrossentropy
    return {"loss": cross_entropy(from_logits=True), "metrics": ["accuracy"]}


CLASSIFICATION = Task(score="accuracy", compile_arguments=compile_arguments, augments=True)
