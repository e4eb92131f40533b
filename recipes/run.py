"""One training run: from a recipe and its data to a trained model and a record of how it came about."""

import math
import statistics

import keras
import numpy as np

import keras_ratesnn
from recipes import callbacks, device, optimizers, pipeline
from recipes.run_folder import write_json

SAMPLE = 256
"""On so many test images the firing rate is measured."""


def build(recipe, dataset):
    """The compiled, untrained model of a recipe. It sets the seed of all that follows.

    Args:
        recipe: A `Recipe`.
        dataset: The `Dataset` it will be trained on; its size sets the length of the schedule.

    Returns:
        A `keras_ratesnn.SpikingModel`, its optimizer built.
    """
    keras.config.set_dtype_policy(recipe.precision)
    keras.utils.set_random_seed(recipe.seed)
    network = recipe.build_network(recipe.width)
    model = keras_ratesnn.SpikingModel(network, recipe.timesteps, recipe.gradient_method(), recipe.step_mode)
    compile_model(model, recipe, dataset)
    return model


def compile_model(model, recipe, dataset):
    """Compiles a model as a recipe says, and builds its optimizer.

    Args:
        model: A built Keras model.
        recipe: A `Recipe`.
        dataset: The `Dataset` it will be trained on; its size sets the length of the schedule.
    """
    rates = recipe.learning_rate, recipe.weight_decay
    if recipe.as_the_authors:
        rates = optimizers.from_the_authors(*rates, recipe.timesteps)
    steps = recipe.epochs * steps_per_epoch(recipe, dataset)
    # Labels of mixed images are shares of classes.
    cross_entropy = keras.losses.SparseCategoricalCrossentropy if recipe.mix == "none" else keras.losses.CategoricalCrossentropy
    model.compile(
        optimizers.sgd_with_cosine_decay(model, steps, *rates, restart_step=_restart_step(recipe, steps)),
        cross_entropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=recipe.jit_compile,
    )
    model.optimizer.build(model.trainable_variables)


def _restart_step(recipe, steps):
    # A run of one step has no room for a restart.
    if recipe.restart_at is None or steps == 1:
        return None
    return min(max(round(recipe.restart_at * steps), 1), steps - 1)


def steps_per_epoch(recipe, dataset):
    """The number of batches in an epoch; the last may be a smaller one."""
    return math.ceil(dataset.train_size / recipe.batch_size)


def fit(model, recipe, dataset, folder, epochs_done=0, verbose=1):
    """Trains a model, tests and saves it after every epoch. The test accuracy is that of the last epoch, not of the best.

    Args:
        model: A model from `build`.
        recipe: Its `Recipe`.
        dataset: Its `Dataset`.
        folder: A prepared `RunFolder`.
        epochs_done: Integer, the number of epochs that lie behind, from `folder.restore`. Defaults to `0`.
        verbose: As in `keras.Model.fit`. Defaults to `1`.

    Returns:
        The record of the run, as `result.json` holds it.
    """
    test = pipeline.test_batches(dataset, recipe)
    sample = np.stack([image for image, _ in dataset.test_examples().take(SAMPLE).as_numpy_iterator()])
    best = max((row["val_accuracy"] for row in folder.rows()), default=-1.0)
    model.fit(
        pipeline.training_batches(dataset, recipe, epochs_done),
        steps_per_epoch=steps_per_epoch(recipe, dataset),
        initial_epoch=epochs_done,
        epochs=recipe.epochs,
        validation_data=test,
        shuffle=False,
        verbose=verbose,
        # In this order: the measures are logged, and an epoch that is saved has been logged.
        callbacks=[
            callbacks.EpochMeasures(dataset.train_size, sample),
            keras.callbacks.CSVLogger(str(folder.log), append=True),
            keras.callbacks.TensorBoard(str(folder.tensorboard), write_graph=False),
            callbacks.Checkpoint(folder.last, folder.best, best),
        ],
    )
    record = _record(model, recipe, dataset, folder.rows())
    write_json(folder.result, record)
    return record


def _record(model, recipe, dataset, rows):
    # Keras calls what is evaluated between epochs validation; here it is the test images.
    curve = {name.replace("val_", "test_"): [row[name] for row in rows] for name in rows[0] if name != "epoch"}
    return {
        "settings": recipe.settings(),
        "backend": keras.backend.backend(),
        "device": device.name(),
        "versions": device.versions(),
        "parameters": model.count_params(),
        "train_images": dataset.train_size,
        "test_images": dataset.test_size,
        "curve": curve,
        "test_accuracy": curve["test_accuracy"][-1],
        "best_test_accuracy": max(curve["test_accuracy"]),
        "seconds": round(sum(curve["seconds"]), 1),
        # The first epoch compiles.
        "seconds_per_epoch": round(statistics.median(curve["seconds"]), 2),
        "peak_memory_mib": round(device.peak_bytes() / 2**20),
    }
