"""Accuracy of a pretrained network before and after its weights are quantized: `python
-m recipes.quantize digits`.

The same test images are classified by the network as it is; after
`model.quantize("int8")`, by which Keras quantizes Dense layers; and, on TensorFlow, by
a LiteRT file whose converter has quantized the weights of Dense layers and
convolutions. Batch normalisation is folded for that file.

With `--integer` the table is of networks of integers alone, `rsnn.deploy.to_integers`:
of the network as it is, converted, and after some epochs with quantised weights,
`rsnn.deploy.quantize_aware`. `--out DIR` keeps each as the folder of a run: the same
command goes on.
"""

import pathlib
import tempfile
import warnings

import keras
import numpy as np

import keras_ratesnn as rsnn
from recipes import catalogue, command_line, packages, run
from recipes.run_folder import RunFolder, load_model
from recipes.settings import DEFAULTS

BATCH_SIZE = 200
NETWORKS = {
    "digits": "digits",
    "fashion_mnist": "fashion_mnist",
    "fashion_mnist_resnet13": "fashion_mnist_resnet13",
    "fashion_mnist_resnet13_integer": "fashion_mnist_resnet13",
}
"""Pretrained networks, and their recipes."""

WEIGHTS = ("int8", "int4", "ternary")

INTEGER_OPTIONS = {
    "epochs": 2,
    "timesteps": None,
    "membrane_bits": 16,
    "weights": WEIGHTS,
    "out": None,
}
"""The options of `--integer`, with their defaults."""

LEARNING_RATE = 1e-3
"""The learning rate of Adam at first; it decays to 0, as a cosine."""


def add_arguments(parser):
    parser.add_argument("name", choices=NETWORKS, help="a pretrained network")
    command_line.add_data_dir(parser)
    command_line.add_count(parser, "--images", "number of test images (default: all)")
    integer = (
        "networks of integers alone: of the network as it is, and trained with "
        "quantised weights"
    )
    parser.add_argument("--integer", action="store_true", help=integer)
    group = parser.add_argument_group("with --integer")
    command_line.add_count(group, "--epochs", "number of epochs with quantised weights")
    numbers = "numbers of time steps (default: that of the network)"
    command_line.add_timesteps(group, numbers)
    command_line.add_count(
        group, "--membrane-bits", "bits of a membrane", choices=range(8, 25)
    )
    group.add_argument("--weights", choices=WEIGHTS, nargs="+", help="types of weights")
    out = "folder for the folders of trained networks, which are found again"
    command_line.add_path(group, "--out", out)
    parser.set_defaults(**INTEGER_OPTIONS)


def quantize(arguments):
    name, is_integer = arguments.name, arguments.integer
    with command_line.mistakes():
        for option, default in INTEGER_OPTIONS.items():
            if getattr(arguments, option) != default and not is_integer:
                raise ValueError(f"{option} is for networks of integers: --integer.")
        variants = {} if is_integer else _variants()
        recipe = catalogue.find(NETWORKS[name])
        dataset = recipe.load(arguments.data_dir)
    images = dataset.test_images[: arguments.images]
    labels = dataset.test_labels[: arguments.images]
    print(f"{name}, {len(labels):,} test images, on {keras.backend.backend()}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        if is_integer:
            out = arguments.out or folder
            _print_integers(arguments, recipe, dataset, images, labels, out)
            return
        print(
            "weights                                      accuracy  other classes than "
            "before  size of the file"
        )
        before = None
        for title, measure in variants.items():
            model = rsnn.models.load_pretrained(name)
            classes, size = measure(model, images, folder)
            before = classes if before is None else before
            print(
                f"{title:43}  {np.mean(classes == labels):8.2%}  "
                f"{np.sum(classes != before):25,}  {size / 1024:12,.0f} KiB"
            )


def _print_integers(arguments, recipe, dataset, images, labels, folder):
    """Prints accuracies of networks of integers, and how many images have other
    classes than with floats; what is trained is kept in a folder."""
    model = rsnn.models.load_pretrained(arguments.name)
    numbers = arguments.timesteps or [model.timesteps]

    def float_classes(network):
        """The classes of all images at each T."""
        all_classes = []
        for timesteps in numbers:
            network.timesteps = timesteps
            all_classes.append(_classes(network, images))
        return all_classes

    def cells(network, weights, all_classes):
        texts = []
        for timesteps, classes in zip(numbers, all_classes, strict=True):
            network.timesteps = timesteps
            chip = rsnn.deploy.to_integers(
                network,
                weights,
                membrane_bits=arguments.membrane_bits,
                largest_input=int(dataset.train_images.max()),
                verbose=False,
            )
            integers = chip.integer_logits(images, BATCH_SIZE).argmax(axis=-1)
            changed = np.sum(integers != classes)
            texts.append(f"{np.mean(integers == labels):.2%} ({changed:,})")
        return texts

    print(
        f"membranes of {arguments.membrane_bits} bits, trained with quantised weights "
        f"for {arguments.epochs} epochs"
    )
    print("in brackets: images whose class is not that of the same network in floats")
    _print_row("weights", "network", [f"T = {number}" for number in numbers])
    floats = float_classes(model)
    shares = [f"{np.mean(classes == labels):.2%}" for classes in floats]
    _print_row("float32", "", shares)
    for weights in arguments.weights:
        _print_row(weights, "converted", cells(model, weights, floats))
        run_name = f"{arguments.name}-{weights}-{arguments.epochs}epochs"
        training = _training(recipe, arguments.name, weights, arguments.epochs)
        trained = _trained(training, dataset, RunFolder(folder / run_name))
        _print_row(weights, "trained", cells(trained, None, float_classes(trained)))


def _training(recipe, name, weights, epochs):
    """The recipe by which a pretrained network is trained on, alone and in float32,
    with quantised weights."""
    card = rsnn.models.list_pretrained()[name]
    alone = ("ordinary", "teacher_weight", "teachers", "temperature", "mix")
    settings = {
        **{setting: DEFAULTS[setting] for setting in alone},
        **card.arguments,
        "precision": "float32",
        "timesteps": card.timesteps,
        "weights": weights,
        "epochs": epochs,
        "learning_rate": LEARNING_RATE,
        "start_from": name,
        "optimizer": "adam",
        "weight_decay": 0,
    }
    return recipe.with_settings(f"{key}={value}" for key, value in settings.items())


def _print_row(weights, network, cells):
    row = "".join(f"{cell:>16}" for cell in cells)
    print(f"{weights:9}{network:11}{row}", flush=True)


def _trained(recipe, dataset, folder):
    """The network that a recipe trains, or has trained, in the folder of its run."""
    settings = recipe.settings()
    with command_line.mistakes():
        folder.check(settings)
        if not folder.result.exists():
            with folder.lock():
                folder.begin(settings)
                model = run.build(recipe, dataset)
                progress = folder.restore(model, model, settings, dataset.train_size)
                run.fit(model, model, recipe, dataset, folder, progress, verbose=0)
        return load_model(folder.last, compile=False)


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
        'int8 in Dense layers, quantize("int8")': _in_eight_bits,
    }
    if keras.backend.backend() == "tensorflow":
        _interpreter()
        variants["int8 in Dense and convolutions, LiteRT file"] = _litert
    return variants


def _saved(model, images, folder):
    path = folder / "model.keras"
    model.save(path)
    return _classes(model, images), path.stat().st_size


def _in_eight_bits(model, images, folder):
    with warnings.catch_warnings():
        # The table says it.
        said = "The weights of these layers stay as they were"
        warnings.filterwarnings("ignore", said)
        model.quantize("int8")
    return _saved(model, images, folder)


def _litert(model, images, folder):
    import tensorflow as tf

    path = folder / "model.tflite"
    folded = rsnn.deploy.fold_batch_normalization(model, verbose=False)
    folded.export(
        path, format="litert", verbose=False, optimizations=[tf.lite.Optimize.DEFAULT]
    )
    run_file = _interpreter()(str(path)).get_signature_runner()
    ((name, details),) = run_file.get_input_details().items()
    classes = []
    for start in range(0, len(images), BATCH_SIZE):
        batch = images[start : start + BATCH_SIZE].astype(details["dtype"])
        (logits,) = run_file(**{name: batch}).values()
        classes.append(logits.argmax(axis=-1))
    return np.concatenate(classes), path.stat().st_size


def _interpreter():
    """The class that runs LiteRT files."""
    return packages.imported(
        "ai_edge_litert.interpreter", "The LiteRT file", "export"
    ).Interpreter


main = command_line.command(__name__, "quantize", __doc__, add_arguments, quantize)
