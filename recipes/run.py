"""One training run: from a recipe and its data to a trained model and a record of the
run."""

import statistics

import keras

import keras_ratesnn
from keras_ratesnn.callbacks import LowerSigma, RandomTimesteps, TimestepSchedule
from keras_ratesnn.layers import Neuron
from recipes import batches, callbacks, device, distribution, optimizers, teaching
from recipes.atomic_files import write_json, writing
from recipes.callbacks import Diverged
from recipes.checks import mistake
from recipes.run_folder import this_part

CALIBRATION = 512
"""The number of training images for the thresholds of a network that starts from the
weights of an ordinary one."""

COMPARED_TIMESTEPS = 1, 2, 4
"""Numbers of time steps at which a spiking network is compared with the ordinary
one."""

SAMPLE = 256
"""The number of test images for the measurement of firing rate and energy."""


# The model


def build(recipe, dataset, ordinary_weights=None):
    """The compiled, untrained model of a recipe. Sets the global random seed.

    Args:
        recipe: A `Recipe`.
        dataset: The `Dataset` for training; its size determines the length of the
            schedule.
        ordinary_weights: Path of the checkpoint of the trained ordinary network, from
            which the spiking one starts with `ordinary=first`. Defaults to `None`, from
            scratch.

    Returns:
        A `keras_ratesnn.SpikingModel` with a built optimizer; an ordinary Keras model
        with `ordinary=only`.

    Raises:
        ValueError: If the task cannot use several devices.
    """
    prepare(recipe)
    keras.utils.set_random_seed(recipe.seed)
    return prepared(recipe, dataset, ordinary_weights)


def prepare(recipe):
    """Checks what `build` checks, and sets the precision of the recipe."""
    devices = distribution.current.devices
    if devices > 1 and not recipe.task.several_devices:
        raise ValueError(
            f"--devices must be 1 for {recipe.name}. Received: {devices} devices. "
            "Leave it out."
        )
    if devices > 1 and recipe.teacher_weight is not None:
        raise ValueError(
            f"--devices must be 1 with `teacher_weight`. Received: {devices} devices, "
            f"teacher_weight={recipe.teacher_weight}. Leave one of the two out."
        )
    device.set_precision(recipe.precision)


def prepared(recipe, dataset, ordinary_weights=None):
    """The model of `build`, after `prepare`, with other initial weights at each
    call."""
    if not recipe.is_spiking:
        model = recipe.ordinary_network(dataset)
    else:
        model = spiking_model(recipe, dataset, ordinary_weights)
        if recipe.start_from is not None:
            model = _start_from(recipe, model)
        if recipe.weights is not None:
            model = keras_ratesnn.deploy.quantize_aware(model, recipe.weights)
    compile_model(model, recipe, dataset)
    return model


def spiking_model(recipe, dataset, ordinary_weights):
    time = {
        "timesteps": recipe.timesteps,
        "gradient": recipe.method,
        "step_mode": recipe.step_mode,
    }
    starts_from_weights = ordinary_weights is not None and recipe.ordinary == "first"
    if recipe.neuron is None and not starts_from_weights:
        return keras_ratesnn.SpikingModel(
            recipe.network(dataset), mask_value=recipe.mask_value, **time
        )
    network, images = recipe.ordinary_network(dataset), None
    if starts_from_weights:
        network.load_weights(ordinary_weights)
        images = calibration_images(dataset)
    return keras_ratesnn.spikify(
        network,
        neuron=recipe.converted_neuron,
        calibrate=images,
        verbose=False,
        **time,
    )


def _start_from(recipe, model):
    """A model like a new one, with a pretrained network: what was converted has scales
    beside its weights."""
    name = recipe.start_from
    network = keras_ratesnn.models.load_pretrained(name, dtype=recipe.precision).network
    for what, facts in (
        ("weights have other shapes", _shapes),
        ("neurons have other levels of spikes", _levels),
    ):
        if facts(network) != facts(model.network):
            must = "a pretrained network of this recipe and its settings"
            raise mistake("start_from", must, name, f"Its {what}.")
    is_quantised = any(hasattr(layer, "weight_type") for layer in layers_of(network))
    if recipe.weights is None and is_quantised:
        must = "a network of floats, unless weights are set"
        remedy = "Set weights=int8, int4 or ternary."
        raise mistake("start_from", must, name, remedy)
    return keras_ratesnn.SpikingModel(
        network,
        recipe.timesteps,
        recipe.method,
        recipe.step_mode,
        mask_value=recipe.mask_value,
    )


def _shapes(network):
    return [array.shape for array in network.get_weights()]


def _levels(network):
    return {
        getattr(layer, "levels", None)
        for layer in layers_of(network)
        if isinstance(layer, Neuron)
    }


def layers_of(network):
    """The layers of a network and of networks in it."""
    for layer in network.layers:
        yield layer
        if isinstance(layer, keras.Model):
            yield from layers_of(layer)


def to_fit(model, recipe, dataset, ordinary_weights=None):
    """The model that `fit` trains: one from `build`, or a compiled model around it,
    with a teacher or branches.

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
    taught = teaching.taught(model, recipe, dataset, ordinary_weights)
    if taught is None:
        return model
    fitted, arguments = taught
    compile_model(fitted, recipe, dataset, arguments)
    return fitted


def calibration_images(dataset):
    """The training images from which `spikify` sets thresholds."""
    return _first_images(dataset.train_examples((0, 0)), CALIBRATION)


def _first_images(examples, number):
    # As one batch: each element that is fetched by itself takes time.
    images, _ = next(examples.take(number).batch(number).as_numpy_iterator())
    return images


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
    if arguments is None:
        arguments = recipe.task.compile_arguments(recipe, dataset)
    steps = recipe.epochs * steps_per_epoch(recipe, dataset)
    model.compile(
        optimizer=optimizers.build(recipe, model, steps),
        jit_compile=recipe.jit_compile,
        **arguments,
    )
    model.optimizer.build(model.trainable_variables)


def steps_per_epoch(recipe, dataset):
    """The number of batches in an epoch; the last may be smaller."""
    return -(-dataset.train_size // recipe.batch_size)


# Training


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
    this_process = distribution.current
    test = batches.evaluation_batches(dataset, recipe, this_process.test_part)
    sample = _first_images(dataset.test_examples(), SAMPLE)
    try:
        # A run that was killed after its last checkpoint has no epochs left, which
        # Keras' `fit` does not expect.
        if progress.epochs < recipe.epochs:
            fitted.fit(
                batches.training_batches(
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
                callbacks=[
                    *_measuring(fitted, recipe, dataset, test, sample),
                    *_saving(model, folder, progress),
                ],
            )
    except Diverged as error:
        if this_process.is_first:
            record = _record(model, recipe, dataset, progress, diverged=error.where)
            write_json(folder.result, record)
        raise
    record = _record(model, recipe, dataset, progress)
    if recipe.has_ordinary_before:
        record["comparison"] = compared(model, recipe, dataset, folder.ordinary)
    if recipe.is_spiking:
        energy = keras_ratesnn.analysis.energy(model, sample)
        record["joules"] = energy.total
        record["joules_without_spikes"] = energy.quantized_total
    if this_process.is_first:
        if recipe.task.draw is not None:
            with writing(folder.picture) as part:
                recipe.task.draw(model, dataset, part)
        write_json(folder.result, record)
    return record


def _measuring(fitted, recipe, dataset, test, sample):
    """The callbacks of a run that change and measure, a list. The order matters: what
    changes T is in front, so that the others see the model's own T, and only finite
    values are measured."""

    def add_scores(epoch, logs):
        """Adds the scores of the task that are not Keras metrics to the logs of an
        epoch."""
        scores = recipe.task.further_scores(fitted, test, dataset)
        logs.update({f"val_{name}": value for name, value in scores.items()})

    measures = [
        *_changes_in_time(recipe),
        callbacks.SeedOfEpoch(recipe.seed),
        callbacks.StopWhereDiverged(),
        callbacks.EpochMeasures(dataset.train_size),
        keras.callbacks.LambdaCallback(on_epoch_end=add_scores),
    ]
    if recipe.is_spiking:
        measures.append(keras_ratesnn.callbacks.FiringRate(sample))
    return measures


def _saving(model, folder, progress):
    """The callbacks that write the files of a run, a list: an epoch is saved before
    anything else is written."""
    writers = [callbacks.Checkpoint(model, progress, folder)]
    if distribution.current.is_first:
        tensorboard = keras.callbacks.TensorBoard(folder.tensorboard, write_graph=False)
        writers.append(tensorboard)
    return writers


def _changes_in_time(recipe):
    """The callbacks that change T, windows or delays, a list."""
    changes = []
    if recipe.temporal == "delays":
        # In the first quarter of the epochs kernels become narrower.
        changes.append(LowerSigma(max(1, recipe.epochs // 4)))
    if recipe.random_timesteps is not None:
        changes.append(RandomTimesteps(*recipe.random_timesteps, seed=recipe.seed))
    if recipe.one_step_epochs:
        changes.append(
            TimestepSchedule([recipe.one_step_epochs], [1, recipe.timesteps])
        )
    if recipe.two_window_epochs:
        changes.append(callbacks.TwoWindowsFirst(recipe))
    return changes


def trained_accuracy(model, recipe, dataset):
    """Trains a compiled model with a recipe, without files; returns its accuracy on the
    test images.

    Raises:
        Diverged: If a metric is not finite.
    """
    stop = callbacks.StopWhereDiverged()
    model.fit(
        batches.training_batches(dataset, recipe),
        steps_per_epoch=steps_per_epoch(recipe, dataset),
        epochs=recipe.epochs,
        shuffle=False,
        verbose=0,
        callbacks=[*_changes_in_time(recipe), stop],
    )
    final = scores(model, recipe, dataset)
    # The last step may have been the first to diverge.
    stop.on_epoch_end(recipe.epochs, final)
    return final["accuracy"]


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
    if recipe.ordinary == "first":
        converted = build(recipe, dataset, ordinary.last)
        comparison["converted"] = scores(converted, recipe, dataset)
    return comparison


def scores(model, recipe, dataset):
    """The loss of a compiled model on the test images, and all scores of the recipe's
    task, as a dict."""
    test = batches.evaluation_batches(dataset, recipe)
    measured = model.evaluate(test, return_dict=True, verbose=0)
    return {**measured, **recipe.task.further_scores(model, test, dataset)}


def _record(model, recipe, dataset, progress, diverged=None):
    # Keras calls evaluation between epochs validation; here it uses the test images.
    names = progress.rows[0] if progress.rows else ()
    curve = {
        name.replace("val_", "test_"): [row[name] for row in progress.rows]
        for name in names
    }
    # The run may have stopped before it completed an epoch.
    parts = progress.parts or [this_part()]
    versions = {}
    for part in parts:
        versions.update(part["versions"])
    score = f"test_{recipe.task.score}"
    seconds = curve.get("seconds", ())
    # That of the epochs: this process may have trained only the last of them, or none.
    peak_bytes = progress.peak_bytes or device.peak_bytes()
    return {
        "settings": recipe.settings(),
        "slots": recipe.substeps,
        "score": recipe.task.score,
        "diverged": diverged,
        "backend": _joined("backend", parts),
        "device": _joined("device", parts),
        "versions": versions,
        "batch_per_device": recipe.batch_size / distribution.current.devices,
        "parameters": model.count_params(),
        "train_images": dataset.train_size,
        "test_images": dataset.test_size,
        "curve": curve,
        score: None if diverged else curve[score][-1],
        f"best_{score}": max(curve[score]) if curve else None,
        "seconds": round(sum(seconds), 1),
        # The median, because the first epoch includes compilation.
        "seconds_per_epoch": round(statistics.median(seconds), 2) if curve else None,
        "peak_memory_mib": round(peak_bytes / 2**20),
    }


def _joined(key, parts):
    """The distinct values of a key in the parts of a run, which may have resumed
    elsewhere."""
    return "+".join(dict.fromkeys(part[key] for part in parts))
