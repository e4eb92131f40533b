"""Accuracy of a pretrained network before and after its weights are quantized: `python
-m recipes.quantize digits`.

The same test images are classified by the network as it is; after
`model.quantize("int8")`, by which Keras quantizes Dense layers; and, on TensorFlow, by
a LiteRT file whose converter has quantized the weights of Dense layers and
convolutions. Batch normalisation is folded for that file.

With `--integer` the table is of networks of integers alone, `rsnn.integer`: of the
network as it is, converted, and after some epochs with quantised weights,
`rsnn.quantize_aware`. `--out DIR` keeps each as the folder of a run: the same command
goes on.
"""

import functools
import json
import pathlib
import tempfile
import warnings

import keras
import numpy as np

import keras_ratesnn as rsnn
from recipes import (
    atomic_files,
    catalogue,
    checkpoint,
    command_line,
    packages,
    pipeline,
    progress,
    run,
)
from recipes.run_folder import RunFolder

BATCH_SIZE = 200
NETWORKS = {
    "digits": "digits",
    "fashion_mnist": "fashion_mnist",
    "fashion_mnist_resnet13": "fashion_mnist_resnet13",
    "fashion_mnist_resnet13_integer": "fashion_mnist_resnet13",
}
"""Pretrained networks, and their recipes."""

WEIGHTS = ("int8", "int4", "ternary")
OF_INTEGERS = ("--epochs", "--timesteps", "--membrane-bits", "--weights", "--out")
"""The options of `--integer`."""

EPOCHS = 2
LEARNING_RATE = 1e-3
"""The learning rate of Adam at first; it decays to 0, as a cosine."""


def add_arguments(parser):
    parser.add_argument("name", choices=NETWORKS, help="pretrained network")
    command_line.add_data_dir(parser)
    command_line.add_count(
        parser,
        "--images",
        "number of test images",
        help="number of test images (default: all)",
    )
    integer = (
        "networks of integers alone: of the network as it is, and trained with "
        "quantised weights"
    )
    parser.add_argument("--integer", action="store_true", help=integer)
    epochs = f"with --integer: epochs with quantised weights (default: {EPOCHS})"
    command_line.add_count(parser, "--epochs", "number of epochs", help=epochs)
    timesteps = "with --integer: numbers of time steps (default: that of the network)"
    command_line.add_count(
        parser,
        "--timesteps",
        "number of time steps",
        nargs="+",
        metavar="T",
        help=timesteps,
    )
    bits = "with --integer: bits of a membrane, from 8 to 24 (default: 16)"
    command_line.add_count(
        parser, "--membrane-bits", "number of bits", help=bits, choices=range(8, 25)
    )
    weights = "with --integer: types of weights (default: all)"
    parser.add_argument("--weights", choices=WEIGHTS, nargs="+", help=weights)
    out = (
        "with --integer: folder for the folders of trained networks, which are found "
        "again"
    )
    command_line.add_path(parser, "--out", out)


def quantize(arguments):
    with command_line.mistakes():
        for option in OF_INTEGERS if not arguments.integer else ():
            value = getattr(arguments, option.removeprefix("--").replace("-", "_"))
            if value is not None:
                raise ValueError(
                    f"{option} is for networks of integers. Received: "
                    f"{option}={value}. Add --integer."
                )
        if arguments.out is not None:
            arguments.out.mkdir(parents=True, exist_ok=True)
        variants = {} if arguments.integer else _variants()
        recipe = catalogue.find(NETWORKS[arguments.name])
        dataset = recipe.load(arguments.data_dir)
    images, labels = (
        dataset.test_images[: arguments.images],
        dataset.test_labels[: arguments.images],
    )
    if arguments.integer:
        _print_integers(arguments, recipe, dataset, images, labels)
        return
    print(
        f"{arguments.name}, {len(labels):,} test images, on {keras.backend.backend()}"
    )
    print(
        "weights                                      accuracy  other classes than "
        "before  size of the file"
    )
    before = None
    for title, measure in variants.items():
        with tempfile.TemporaryDirectory() as folder:
            classes, size = measure(
                rsnn.models.load_pretrained(arguments.name),
                images,
                pathlib.Path(folder),
            )
        before = classes if before is None else before
        print(
            f"{title:43}  {np.mean(classes == labels):8.2%}  "
            f"{np.sum(classes != before):25,}  {size / 1024:12,.0f} KiB"
        )


def _print_integers(arguments, recipe, dataset, images, labels):
    """Prints the table of networks of integers: accuracies, and how many images have
    other classes than with floats."""
    model, epochs = (
        rsnn.models.load_pretrained(arguments.name),
        arguments.epochs or EPOCHS,
    )
    all_timesteps = arguments.timesteps or [model.timesteps]
    settings = {
        "membrane_bits": arguments.membrane_bits or 16,
        "largest_input": int(dataset.train_images.max()),
    }
    print(
        f"{arguments.name}, {len(labels):,} test images, on {keras.backend.backend()}, "
        "membranes of",
        end=" ",
    )
    print(
        f"{settings['membrane_bits']} bits, trained with quantised weights for "
        f"{epochs} epochs"
    )
    print("in brackets: images whose class is not that of the same network in floats")
    print(
        "".join(
            [
                f"{'weights':9}{'network':11}",
                *(f"{f'T = {timesteps}':>16}" for timesteps in all_timesteps),
            ]
        )
    )

    def print_row(weights, title, cells):
        print(
            "".join([f"{weights:9}{title:11}", *(f"{cell:>16}" for cell in cells)]),
            flush=True,
        )

    def of_floats(network):
        return {
            timesteps: _classes(_with(network, timesteps), images)
            for timesteps in all_timesteps
        }

    def cells(network, weights, in_floats):
        for timesteps, expected in in_floats.items():
            chip = rsnn.integer(
                _with(network, timesteps), weights, **settings, verbose=False
            )
            found = chip.integer_logits(images, BATCH_SIZE).argmax(axis=-1)
            yield f"{np.mean(found == labels):.2%} ({np.sum(found != expected):,})"

    timesteps, in_floats = model.timesteps, of_floats(model)
    print_row(
        "float32",
        "",
        [f"{np.mean(found == labels):.2%}" for found in in_floats.values()],
    )
    for weights in arguments.weights or WEIGHTS:
        print_row(weights, "converted", cells(model, weights, in_floats))
        folder = arguments.out and RunFolder(
            arguments.out / f"{arguments.name}-{weights}-{epochs}epochs"
        )
        few_epochs = recipe.with_settings(_settings(arguments.name, weights, epochs))
        trained = _found(folder, few_epochs, dataset)
        if trained is None:
            trained = _trained(_with(model, timesteps), dataset, few_epochs)
            if folder is not None:
                _save(trained, dataset, few_epochs, folder)
        print_row(weights, "trained", cells(trained, None, of_floats(trained)))


def _with(model, timesteps):
    model.timesteps = timesteps
    return model


def _settings(name, weights, epochs):
    """The settings of a recipe with which a pretrained network is trained on, alone and
    in float32, with quantised weights."""
    card = rsnn.models.list_pretrained()[name]
    own = {
        **card.arguments,
        "timesteps": card.timesteps,
        "weights": weights,
        "epochs": epochs,
        "learning_rate": LEARNING_RATE,
    }
    taught = dict.fromkeys(("teacher_weight", "temperature", "teachers"))
    alone = {**taught, "ordinary": "no", "mix": "none", "precision": "float32"}
    settings = {
        **own,
        **alone,
        "start_from": name,
        "optimizer": "adam",
        "weight_decay": 0,
        "restart_at": None,
    }
    return [f"{key}={value}" for key, value in settings.items()]


def _found(folder, recipe, dataset):
    """The network that an earlier command trained in the same way, or `None`."""
    if folder is None or not folder.result.exists():
        return None
    with command_line.mistakes():
        record = folder.read_result()
    # As read from a file: tuples become lists.
    wanted = {
        "settings": json.loads(json.dumps(recipe.settings())),
        "train_images": dataset.train_size,
    }
    if any(record.get(name) != value for name, value in wanted.items()):
        raise command_line.Ended(
            f"{folder.path} has a network that was trained with other settings or "
            "data. Pass another folder with --out, or remove it: the network is then "
            "trained again."
        )
    try:
        return checkpoint.load_model(folder.last, compile=False)
    except (ValueError, OSError) as error:
        raise command_line.Ended(
            f"{folder.last} is damaged. Remove {folder.path}: the network is then "
            "trained again."
        ) from error


def _trained(model, dataset, recipe):
    """A model of quantised weights that starts from those of another one, after the
    epochs of a recipe."""
    keras.utils.set_random_seed(recipe.seed)
    low, steps = (
        rsnn.quantize_aware(model, recipe.spiking.weights),
        run.steps_per_epoch(recipe, dataset),
    )
    run.compile_model(low, recipe, dataset)
    low.fit(
        pipeline.training_batches(dataset, recipe),
        steps_per_epoch=steps,
        epochs=recipe.epochs,
        shuffle=False,
        verbose=0,
    )
    return low


def _save(model, dataset, recipe, folder):
    """Writes what was trained as the folder of a run, which `recipes.evaluate` and
    `recipes.publish` read."""
    accuracy = np.mean(_classes(model, dataset.test_images) == dataset.test_labels)
    record = {
        "settings": recipe.settings(),
        "test_accuracy": float(accuracy),
        "test_images": dataset.test_size,
    }
    with command_line.mistakes():
        folder.path.mkdir(parents=True, exist_ok=True)
        folder.begin(recipe.settings())
        with atomic_files.writing(folder.last) as part:
            model.save(part)
        atomic_files.write_json(
            folder.result,
            {**record, "train_images": dataset.train_size, **progress.this_part()},
        )


def _classes(model, images):
    return model.predict(images, batch_size=BATCH_SIZE, verbose=0).argmax(axis=-1)


def _variants():
    """Functions `(model, images, folder) -> (classes, bytes)` by the titles of their
    rows.

    Raises:
        ImportError: If a package for one of them is missing.
    """
    variants = {
        "float32": _saved,
        'int8 in Dense layers, quantize("int8")': functools.partial(
            _saved, dtype="int8"
        ),
    }
    if keras.backend.backend() == "tensorflow":
        _interpreter()
        variants["int8 in Dense and convolutions, LiteRT file"] = _litert
    return variants


def _saved(model, images, folder, dtype=None):
    if dtype is not None:
        with warnings.catch_warnings():
            # The table says it.
            warnings.filterwarnings(
                "ignore", "The weights of these layers stay as they were"
            )
            model.quantize(dtype)
    model.save(folder / "model.keras")
    return _classes(model, images), (folder / "model.keras").stat().st_size


def _litert(model, images, folder):
    import tensorflow as tf

    folded, path = (
        rsnn.fold_batch_normalization(model, verbose=False),
        folder / "model.tflite",
    )
    folded.export(
        path, format="litert", verbose=False, optimizations=[tf.lite.Optimize.DEFAULT]
    )
    return _classes_of_file(path, images), path.stat().st_size


def _interpreter():
    """The class that runs LiteRT files."""
    return packages.imported(
        "ai_edge_litert.interpreter", "The LiteRT file", "export"
    ).Interpreter


def _classes_of_file(path, images):
    interpreter = _interpreter()(str(path))
    (place,) = interpreter.get_input_details()
    classes = []
    for start in range(0, len(images), BATCH_SIZE):
        batch = images[start : start + BATCH_SIZE].astype(place["dtype"])
        interpreter.resize_tensor_input(place["index"], batch.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(place["index"], batch)
        interpreter.invoke()
        classes.append(
            interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).argmax(
                axis=-1
            )
        )
    return np.concatenate(classes)


main = command_line.command(__name__, "quantize", __doc__, add_arguments, quantize)
