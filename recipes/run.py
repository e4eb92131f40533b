"""One training run: from a recipe and its data to a trained model and a record of the
run."""

import concurrent.futures
import math
import statistics

import keras

import keras_ratesnn
from keras_ratesnn.layers import Neuron
from recipes import callbacks, device, engine, pipeline, teaching, temporal
from recipes.atomic_files import write_json, writing
from recipes.callbacks import Diverged
from recipes.checks import mistake
from recipes.progress import this_part

BYTES_OF_A_WEIGHT = 3 * 4
"""For the weight itself, its gradient and its momentum."""

CALIBRATION = 512
"""The number of training images for the thresholds of a network that starts from the
weights of an ordinary one."""

COMPARED_TIMESTEPS = 1, 2, 4
"""Numbers of time steps at which a spiking network is compared with the ordinary
one."""

SAMPLE = 256
"""The number of test images for the measurement of firing rate and energy."""


def build(recipe, dataset, ordinary_weights=None):
    """The compiled, untrained model of a recipe. Sets the global random seed.

    Args:
        recipe: A `Recipe`.
        dataset: The `Dataset` for training; its size determines the length of the
            schedule.
        ordinary_weights: Path of the checkpoint of the trained ordinary network, from
            which the spiking one starts if its stage gives weights. Defaults to `None`,
            from scratch.

    Returns:
        A `keras_ratesnn.SpikingModel` with a built optimizer; an ordinary Keras model
        if `recipe.spiking` is None.

    Raises:
        ValueError: If the network is too wide for the memory of this machine, or the
            task cannot use several devices.
    """
    prepare(recipe, dataset)
    keras.utils.set_random_seed(recipe.seed)
    return prepared(recipe, dataset, ordinary_weights)


def prepare(recipe, dataset):
    """Checks what `build` checks, and sets the precision of the recipe."""
    if engine.current.devices > 1 and not recipe.task.several_devices:
        raise ValueError(
            f"--devices must be 1 for {recipe.name}. Received: "
            f"{engine.current.devices} devices. Leave it out."
        )
    taught_by = recipe.spiking and recipe.spiking.taught_by
    if engine.current.devices > 1 and isinstance(taught_by, teaching.Teacher):
        raise ValueError(
            "--devices must be 1 with `teacher_weight`. Received: "
            f"{engine.current.devices} devices, teacher_weight={taught_by.amount}. "
            "Leave one of the two out."
        )
    _check_width(recipe, dataset)
    device.set_precision(recipe.precision)


def prepared(recipe, dataset, ordinary_weights=None):
    """The model of `build`, after `prepare`, with other initial weights at each
    call."""
    model = _model(recipe, dataset, ordinary_weights)
    compile_model(model, recipe, dataset)
    return model


def _model(recipe, dataset, ordinary_weights):
    if recipe.spiking is None:
        return recipe.ordinary_network(dataset)
    model, weights = (
        _spiking_model(recipe, dataset, ordinary_weights),
        recipe.spiking.weights,
    )
    if recipe.spiking.start_from is not None:
        model = _start_from(recipe, model)
    return model if weights is None else keras_ratesnn.quantize_aware(model, weights)


def _spiking_model(recipe, dataset, ordinary_weights):
    stage = recipe.spiking
    spiking = {
        "timesteps": stage.timesteps,
        "gradient": stage.gradient,
        "step_mode": stage.step_mode,
    }
    starts_from_weights = (
        ordinary_weights is not None
        and stage.after is not None
        and stage.after.gives_weights
    )
    if recipe.neuron is None and not starts_from_weights:
        return keras_ratesnn.SpikingModel(
            recipe.network(dataset), mask_value=recipe.mask_value, **spiking
        )
    network, calibrate = recipe.ordinary_network(dataset), None
    if starts_from_weights:
        network.load_weights(ordinary_weights)
        calibrate = calibration_images(dataset)
    return keras_ratesnn.spikify(
        network,
        neuron=recipe.converted_neuron,
        calibrate=calibrate,
        verbose=False,
        **spiking,
    )


def _start_from(recipe, model):
    """A model like a new one, with a pretrained network: what was converted has scales
    beside its weights."""
    stage, name = recipe.spiking, recipe.spiking.start_from
    network = keras_ratesnn.models.load_pretrained(name, dtype=recipe.precision).network
    for what, found in (
        ("weights have other shapes", _shapes),
        ("neurons have other levels of spikes", _levels),
    ):
        if found(network) != found(model.network):
            raise mistake(
                "start_from",
                "a pretrained network of this recipe and its settings",
                name,
                f"Its {what}.",
            )
    if stage.weights is None and any(
        hasattr(layer, "weight_type") for layer in _layers(network)
    ):
        raise mistake(
            "start_from",
            "a network of floats, unless weights are set",
            name,
            "Set weights=int8, int4 or ternary.",
        )
    return keras_ratesnn.SpikingModel(
        network,
        stage.timesteps,
        stage.gradient,
        stage.step_mode,
        mask_value=recipe.mask_value,
    )


def _shapes(network):
    return [array.shape for array in network.get_weights()]


def _levels(network):
    return {
        getattr(layer, "levels", None)
        for layer in _layers(network)
        if isinstance(layer, Neuron)
    }


def _layers(network):
    """The layers of a network and of networks in it."""
    for layer in network.layers:
        yield layer
        if isinstance(layer, keras.Model):
            yield from _layers(layer)


def to_fit(model, recipe, dataset, ordinary_weights=None):
    """What `fit` trains: a model from `build`, or a compiled model around it, with a
    teacher or branches.

    Both have the same layers, so the training of the one trains the other.

    Args:
        model: A model from `build`.
        recipe: Its `Recipe`.
        dataset: The `Dataset` for training.
        ordinary_weights: Path of the checkpoint of the trained ordinary network, the
            teacher. Defaults to `None`: it is untrained.

    Raises:
        ValueError: If the network has too few stages for the branches.
    """
    if recipe.spiking is None or recipe.spiking.taught_by is None:
        return model
    fitted, arguments = recipe.spiking.taught_by.around(
        model, recipe, dataset, ordinary_weights
    )
    compile_model(fitted, recipe, dataset, arguments)
    return fitted


def calibration_images(dataset):
    """The training images from which `spikify` sets thresholds."""
    return _first_images(dataset.train_examples((0, 0)), CALIBRATION)


def _first_images(examples, number):
    # As one batch: each element that is fetched by itself takes time.
    images, _ = next(examples.take(number).batch(number).as_numpy_iterator())
    return images


def _check_width(recipe, dataset):
    """Raises an error if the network does not fit into memory, before it is built."""
    if recipe.width <= 1:
        return
    # Nearly all weights connect two layers that both grow with the width.
    weights = (
        numbered_anew(lambda: recipe.network(dataset, 1.0).count_params())
        * recipe.width**2
    )
    needed, memory = weights * BYTES_OF_A_WEIGHT, device.memory_bytes()
    if needed > memory:
        raise ValueError(
            "`width` must be small enough for the network to fit in memory. Received: "
            f"width={recipe.width}, which gives about {weights:,.0f} weights. They "
            f"take {needed / 2**30:,.0f} GiB with gradients and momenta, but this "
            f"machine has {memory / 2**30:,.0f}. Use a smaller width."
        )


def numbered_anew(make):
    """What a function makes in a thread of its own: Keras numbers the layers of each
    thread, in their names, from the start."""
    with concurrent.futures.ThreadPoolExecutor(1) as own:
        return own.submit(make).result()


def compile_model(model, recipe, dataset, arguments=None):
    """Compiles a model with the settings of a recipe, and builds its optimizer.

    Args:
        model: A built Keras model.
        recipe: A `Recipe`.
        dataset: The `Dataset` for training; its size determines the length of the
            schedule.
        arguments: Dictionary, those of `compile` besides the optimizer. Defaults to
            `None`, those of the recipe's task.
    """
    steps = recipe.epochs * steps_per_epoch(recipe, dataset)
    model.compile(
        optimizer=recipe.optimizer.build(
            model, steps, recipe.learning_rate, recipe.weight_decay, recipe.timesteps
        ),
        jit_compile=recipe.jit_compile,
        **(
            recipe.task.compile_arguments(recipe, dataset)
            if arguments is None
            else arguments
        ),
    )
    model.optimizer.build(model.trainable_variables)


def steps_per_epoch(recipe, dataset):
    """The number of batches in an epoch; the last may be smaller."""
    return math.ceil(dataset.train_size / recipe.batch_size)


def fit(model, fitted, recipe, dataset, folder, progress, verbose=1):
    """Trains a model; tests and saves it after every epoch. The test accuracy is that
    of the last epoch, not the best.

    Args:
        model: A model from `build`.
        fitted: That from `to_fit`.
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

    def add_scores(epoch, logs):
        """Adds the scores of the task that are not Keras metrics to the logs of an
        epoch."""
        found = recipe.task.further_scores(fitted, test, dataset)
        logs.update({f"val_{name}": value for name, value in found.items()})

    # The order matters: only finite values are measured, and an epoch is saved before
    # anything else is written.
    measures = [
        callbacks.SeedOfEpoch(recipe.seed, this_process.process),
        callbacks.StopWhereDiverged(each_batch=not this_process.is_apart),
        callbacks.EpochMeasures(dataset.train_size),
        keras.callbacks.LambdaCallback(on_epoch_end=add_scores),
    ]
    if recipe.spiking is not None:
        sample = _first_images(dataset.test_examples(), SAMPLE)
        measures.append(keras_ratesnn.callbacks.FiringRate(sample))
        measures = _changes_in_time(recipe) + measures
    own = folder if this_process.is_first else None
    files = [callbacks.Checkpoint(model, progress, own, this_process.is_apart)]
    files += (
        [callbacks.TensorBoard(folder.tensorboard)] if this_process.is_first else []
    )
    try:
        # A run that was killed after its last checkpoint has no epochs left, which
        # Keras' `fit` does not expect.
        if progress.epochs < recipe.epochs:
            fitted.fit(
                pipeline.training_batches(
                    dataset,
                    recipe,
                    progress.epochs,
                    this_process.part,
                    divides_rest=this_process.is_apart,
                ),
                steps_per_epoch=steps_per_epoch(recipe, dataset),
                initial_epoch=progress.epochs,
                epochs=recipe.epochs,
                validation_data=test,
                shuffle=False,
                verbose=verbose if this_process.is_first else 0,
                callbacks=measures + files,
            )
    except Diverged as error:
        where = {
            "epoch": error.epoch,
            "learning_rate": error.learning_rate,
            "message": str(error),
        }
        if this_process.is_first:
            write_json(
                folder.result, _record(model, recipe, dataset, progress, diverged=where)
            )
        raise
    record = _record(model, recipe, dataset, progress)
    if recipe.ordinary_stage is not None:
        record["comparison"] = compared(model, recipe, dataset, folder.ordinary)
    if recipe.spiking is not None:
        energy = keras_ratesnn.analysis.energy(model, sample)
        record |= {
            "joules": energy.total,
            "joules_without_spikes": energy.total_without_spikes,
        }
    if this_process.is_first:
        if recipe.task.draw is not None:
            with writing(folder.picture) as part:
                recipe.task.draw(model, dataset, part)
        write_json(folder.result, record)
    return record


def _changes_in_time(recipe):
    """The callbacks that change T or delays, a list. In front of others, so that they
    see the model's own T."""
    return temporal.callbacks(recipe) + (
        [] if recipe.spiking is None else recipe.spiking.changes(recipe.seed)
    )


def trained_accuracy(model, recipe, dataset):
    """Trains a compiled model with a recipe, without files; returns its accuracy on the
    test images.

    Raises:
        Diverged: If a metric is not finite.
    """
    stop = callbacks.StopWhereDiverged(each_batch=True)
    model.fit(
        pipeline.training_batches(dataset, recipe),
        steps_per_epoch=steps_per_epoch(recipe, dataset),
        epochs=recipe.epochs,
        shuffle=False,
        verbose=0,
        callbacks=[*_changes_in_time(recipe), stop],
    )
    found = scores(model, recipe, dataset)
    # The last step may have been the first to diverge.
    stop.on_epoch_end(recipe.epochs, found)
    return found["accuracy"]


def compared(model, recipe, dataset, ordinary):
    """The test loss and scores of a spiking model with several numbers of time steps,
    and those of the ordinary network.

    Args:
        model: The trained `SpikingModel`.
        recipe: Its `Recipe`.
        dataset: Its `Dataset`.
        ordinary: The `RunFolder` of the ordinary network.

    Returns:
        Dict of `"ordinary"`, a dict of scores; `"spiking"`, a dict of numbers of time
        steps, as strings, to such dicts; and `"converted"`, the scores of the spiking
        model before its training, if it started from the ordinary network.
    """
    spiking = {}
    for timesteps in sorted({*COMPARED_TIMESTEPS, recipe.timesteps}):
        model.timesteps = timesteps
        spiking[str(timesteps)] = scores(model, recipe, dataset)
    model.timesteps = recipe.timesteps
    names, curve = spiking[str(recipe.timesteps)], ordinary.read_result()["curve"]
    comparison = {
        "ordinary": {name: curve[f"test_{name}"][-1] for name in names},
        "spiking": spiking,
    }
    if recipe.ordinary_stage.gives_weights:
        comparison["converted"] = scores(
            build(recipe, dataset, ordinary.last), recipe, dataset
        )
    return comparison


def scores(model, recipe, dataset):
    """The loss of a compiled model on the test images, and all scores of the recipe's
    task, as a dict."""
    batches = pipeline.evaluation_batches(dataset, recipe)
    measured = model.evaluate(batches, return_dict=True, verbose=0)
    return {**measured, **recipe.task.further_scores(model, batches, dataset)}


def _record(model, recipe, dataset, progress, diverged=None):
    # Keras calls evaluation between epochs validation; here it uses the test images.
    names = progress.rows[0] if progress.rows else ()
    curve = {
        name.replace("val_", "test_"): [row[name] for row in progress.rows]
        for name in names
    }
    # The run may have stopped before it completed an epoch.
    parts = progress.parts or [{"first_epoch": 1, **this_part()}]
    score = f"test_{recipe.task.score}"
    return {
        "settings": recipe.settings(),
        "slots": recipe.slots,
        "score": recipe.task.score,
        "diverged": diverged,
        "backend": _all_of("backend", parts),
        "device": _all_of("device", parts),
        "versions": {
            name: version
            for part in parts
            for name, version in part["versions"].items()
        },
        "parts": parts,
        "batch_per_device": recipe.batch_size / engine.current.devices,
        "parameters": model.count_params(),
        "train_images": dataset.train_size,
        "test_images": dataset.test_size,
        "curve": curve,
        score: None if diverged else curve[score][-1],
        f"best_{score}": max(curve[score]) if curve else None,
        "seconds": round(sum(curve.get("seconds", ())), 1),
        # The median, because the first epoch includes compilation.
        "seconds_per_epoch": round(statistics.median(curve["seconds"]), 2)
        if curve
        else None,
        # That of the epochs: this process may have trained only the last of them, or
        # none.
        "peak_memory_mib": round((progress.peak_bytes or device.peak_bytes()) / 2**20),
    }


def _all_of(key, parts):
    """The distinct values of a key in the parts of a run, which may have resumed
    elsewhere."""
    return "+".join(dict.fromkeys(part[key] for part in parts))
