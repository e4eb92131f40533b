"""One training run: from a recipe and its data to a trained model and a record of how it came about."""

import importlib
import math
import platform
import time

import keras
import numpy as np

import keras_ratesnn


def build(recipe, dataset):
    """The compiled, untrained model of a recipe. It sets the seed of all that follows.

    Args:
        recipe: A `Recipe`.
        dataset: The `Dataset` it will be trained on; its size sets the length of the schedule.

    Returns:
        A `keras_ratesnn.SpikingModel`.
    """
    keras.utils.set_random_seed(recipe.seed)
    network = recipe.build_network()
    steps = recipe.epochs * math.ceil(len(dataset.train_images) / recipe.batch_size)
    model = keras_ratesnn.SpikingModel(network, recipe.timesteps, gradient=recipe.gradient, step_mode=recipe.step_mode)
    model.compile(
        recipe.build_optimizer(network, steps, recipe.learning_rate, recipe.weight_decay),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def fit(model, recipe, dataset, verbose=1):
    """Trains a model and tests it after every epoch. The test accuracy is that of the last epoch, not of the best.

    Returns:
        The record of the run: a dictionary that can be written as JSON.
    """
    start = time.perf_counter()
    history = model.fit(
        dataset.train_images,
        dataset.train_labels,
        batch_size=recipe.batch_size,
        epochs=recipe.epochs,
        validation_data=(dataset.test_images, dataset.test_labels),
        verbose=verbose,
    )
    seconds = time.perf_counter() - start
    # Keras calls what is evaluated between epochs validation; here it is the test images.
    curve = {name.replace("val_", "test_"): values for name, values in history.history.items()}
    return {
        "settings": recipe.settings(),
        "backend": keras.backend.backend(),
        "versions": versions(),
        "parameters": model.count_params(),
        "train_images": len(dataset.train_images),
        "test_images": len(dataset.test_images),
        "curve": curve,
        "test_accuracy": curve["test_accuracy"][-1],
        "seconds": round(seconds, 1),
    }


def versions():
    """The versions of what a result may depend on, by name."""
    backend = keras.backend.backend()
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "keras": keras.__version__,
        "keras_ratesnn": keras_ratesnn.__version__,
        backend: importlib.import_module(backend).__version__,
    }
