"""One training run: from a recipe and its data to a trained model and a record of the run."""

import math
import statistics

import keras
import numpy as np

import keras_ratesnn
from recipes import callbacks, device, engine, optimizers, pipeline
from recipes.callbacks import Diverged
from recipes.progress import this_part
from recipes.whole_file import write_json

BYTES_OF_A_WEIGHT = 3 * 4
"""For the weight itself, its gradient and its momentum."""

SAMPLE = 256
"""The number of test images for the measurement of the firing rate."""


def build(recipe, dataset):
    """The compiled, untrained model of a recipe. Sets the global random seed.

    Args:
        recipe: A `Recipe`.
        dataset: The `Dataset` for training; its size determines the length of the schedule.

    Returns:
        A `keras_ratesnn.SpikingModel` with a built optimizer.

    Raises:
        ValueError: If the network is too wide for the memory of this machine.
    """
    _check_width(recipe)
    device.set_precision(recipe.precision)
    keras.utils.set_random_seed(recipe.seed)
    network = recipe.network()
    model = keras_ratesnn.SpikingModel(network, recipe.timesteps, recipe.gradient_method(), recipe.step_mode)
    compile_model(model, recipe, dataset)
    return model


def _check_width(recipe):
    """Raises an error if the network does not fit into memory, before it is built."""
    if recipe.width <= 1:
        return
    # Nearly all weights connect two layers that both grow with the width.
    weights = recipe.network(1.0).count_params() * recipe.width**2
    # Resets the numbers in layer names.
    keras.utils.clear_session(free_memory=False)
    needed, memory = weights * BYTES_OF_A_WEIGHT, device.memory_bytes()
    if needed > memory:
        raise ValueError(
            f"`width` must be small enough for the network to fit in memory. Received: width={recipe.width}, which gives about "
            f"{weights:,.0f} weights. They take {needed / 2**30:,.0f} GiB with gradients and momenta, but this machine has "
            f"{memory / 2**30:,.0f}. Use a smaller width."
        )


def compile_model(model, recipe, dataset):
    """Compiles a model with the settings of a recipe, and builds its optimizer.

    Args:
        model: A built Keras model.
        recipe: A `Recipe`.
        dataset: The `Dataset` for training; its size determines the length of the schedule.
    """
    rates = recipe.learning_rate, recipe.weight_decay
    if recipe.as_the_authors:
        rates = optimizers.from_the_authors(*rates, recipe.timesteps)
    steps = recipe.epochs * steps_per_epoch(recipe, dataset)
    # Labels of mixed images are class fractions.
    cross_entropy = keras.losses.SparseCategoricalCrossentropy if recipe.mix == "none" else keras.losses.CategoricalCrossentropy
    model.compile(
        optimizers.sgd_with_cosine_decay(model, steps, *rates, restart_step=_restart_step(recipe, steps)),
        cross_entropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=recipe.jit_compile,
    )
    model.optimizer.build(model.trainable_variables)


def _restart_step(recipe, steps):
    # A run of one step cannot have a restart.
    if recipe.restart_at is None or steps == 1:
        return None
    return min(max(round(recipe.restart_at * steps), 1), steps - 1)


def steps_per_epoch(recipe, dataset):
    """The number of batches in an epoch; the last may be smaller."""
    return math.ceil(dataset.train_size / recipe.batch_size)


def fit(model, recipe, dataset, folder, progress, verbose=1):
    """Trains a model; tests and saves it after every epoch. The test accuracy is that of the last epoch, not the best.

    Args:
        model: A model from `build`.
        recipe: Its `Recipe`.
        dataset: Its `Dataset`.
        folder: A prepared `RunFolder`.
        progress: The `Progress` of the run, from `folder.restore`.
        verbose: As in `keras.Model.fit`. Defaults to `1`.

    Returns:
        The record of the run, as in `result.json`, which the first process writes.

    Raises:
        Diverged: If a metric is not finite. The record contains this.
        OSError: If the run's files cannot be written.
    """
    this_process = engine.current
    test = pipeline.evaluation_batches(dataset, recipe, this_process.test_part)
    sample = np.stack([image for image, _ in dataset.test_examples().take(SAMPLE).as_numpy_iterator()])
    # The order matters: only finite values are measured, and checkpoints are saved even if TensorBoard fails.
    measures = [
        callbacks.StopWhereDiverged(each_batch=not this_process.is_apart),
        callbacks.EpochMeasures(dataset.train_size),
        keras_ratesnn.callbacks.FiringRate(sample),
    ]
    files = [
        callbacks.Checkpoint(folder, progress),
        keras.callbacks.TensorBoard(str(folder.tensorboard), write_graph=False),
    ]
    others = [(callbacks.Count if this_process.is_apart else callbacks.SavesInVain)(progress)]
    try:
        model.fit(
            pipeline.training_batches(dataset, recipe, progress.epochs, this_process.part, divides_rest=this_process.is_apart),
            steps_per_epoch=steps_per_epoch(recipe, dataset),
            initial_epoch=progress.epochs,
            epochs=recipe.epochs,
            validation_data=test,
            shuffle=False,
            verbose=verbose if this_process.is_first else 0,
            callbacks=measures + (files if this_process.is_first else others),
        )
    except Diverged as error:
        where = {"epoch": error.epoch, "learning_rate": error.learning_rate, "message": str(error)}
        if this_process.is_first:
            write_json(folder.result, _record(model, recipe, dataset, progress, diverged=where))
        raise
    record = _record(model, recipe, dataset, progress)
    if this_process.is_first:
        write_json(folder.result, record)
    return record


def _record(model, recipe, dataset, progress, diverged=None):
    # Keras calls evaluation between epochs validation; here it uses the test images.
    names = progress.rows[0] if progress.rows else ()
    curve = {name.replace("val_", "test_"): [row[name] for row in progress.rows] for name in names}
    # The run may have stopped before it completed an epoch.
    parts = progress.parts or [{"first_epoch": 1, **this_part()}]
    return {
        "settings": recipe.settings(),
        "diverged": diverged,
        "backend": _all_of("backend", parts),
        "device": _all_of("device", parts),
        "versions": {name: version for part in parts for name, version in part["versions"].items()},
        "parts": parts,
        "batch_per_device": recipe.batch_size / engine.current.devices,
        "parameters": model.count_params(),
        "train_images": dataset.train_size,
        "test_images": dataset.test_size,
        "curve": curve,
        "test_accuracy": None if diverged else curve["test_accuracy"][-1],
        "best_test_accuracy": max(curve["test_accuracy"]) if curve else None,
        "seconds": round(sum(curve.get("seconds", ())), 1),
        # The median, because the first epoch includes compilation.
        "seconds_per_epoch": round(statistics.median(curve["seconds"]), 2) if curve else None,
        "peak_memory_mib": round(device.peak_bytes() / 2**20),
    }


def _all_of(key, parts):
    """The distinct values of a key in the parts of a run, which may have resumed elsewhere."""
    return "+".join(dict.fromkeys(part[key] for part in parts))
