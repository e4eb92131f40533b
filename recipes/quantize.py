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
INTEGER_OPTIONS = ("--epochs", "--timesteps", "--membrane-bits", "--weights", "--out")
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
        for option in INTEGER_OPTIONS:
            value = getattr(arguments, option.removeprefix("--").replace("-", "_"))
            if value is not None and not arguments.integer:
                raise ValueError(
                    f"{option} is for networks of integers. Received: "
                    f"{option}={value}. Add --integer."
                )
        variants = {} if arguments.integer else _variants()
        recipe = catalogue.find(NETWORKS[arguments.name])
        dataset = recipe.load(arguments.data_dir)
    images = dataset.test_images[: arguments.images]
    labels = dataset.test_labels[: arguments.images]
    title = (
        f"{arguments.name}, {len(labels):,} test images, on {keras.backend.backend()}"
    )
    if arguments.integer:
        with tempfile.TemporaryDirectory() as temporary:
            table = IntegerTable(arguments, recipe, dataset, images, labels)
            table.print_all(title, pathlib.Path(arguments.out or temporary))
        return
    print(title)
    print(
        "weights                                      accuracy  other classes than "
        "before  size of the file"
    )
    before = None
    for variant, measure in variants.items():
        model = rsnn.models.load_pretrained(arguments.name)
        with tempfile.TemporaryDirectory() as folder:
            classes, size = measure(model, images, pathlib.Path(folder))
        before = classes if before is None else before
        print(
            f"{variant:43}  {np.mean(classes == labels):8.2%}  "
            f"{np.sum(classes != before):25,}  {size / 1024:12,.0f} KiB"
        )


class IntegerTable:
    """Accuracies of networks of integers, and how many images have other classes than
    with floats.

    Args:
        arguments: Those of the command.
        recipe: The `Recipe` of the network.
        dataset: Its `Dataset`.
        images: The test images that are classified.
        labels: Their labels.
    """

    def __init__(self, arguments, recipe, dataset, images, labels):
        self.name = arguments.name
        self.recipe, self.dataset = recipe, dataset
        self.images, self.labels = images, labels
        self.model = rsnn.models.load_pretrained(self.name)
        self.epochs = arguments.epochs or EPOCHS
        self.timesteps = arguments.timesteps or [self.model.timesteps]
        self.membrane_bits = arguments.membrane_bits or 16
        self.weights = arguments.weights or WEIGHTS

    def print_all(self, title, folder):
        """Prints the table; what is trained is kept in a folder."""
        print(
            f"{title}, membranes of {self.membrane_bits} bits, trained with quantised "
            f"weights for {self.epochs} epochs"
        )
        print(
            "in brackets: images whose class is not that of the same network in floats"
        )
        _print_row("weights", "network", [f"T = {number}" for number in self.timesteps])
        recipes = [self._training(weights) for weights in self.weights]
        floats = self._float_classes(self.model)
        shares = [np.mean(classes == self.labels) for classes in floats]
        _print_row("float32", "", [f"{share:.2%}" for share in shares])
        for weights, recipe in zip(self.weights, recipes, strict=True):
            _print_row(weights, "converted", self._cells(self.model, weights, floats))
            run_name = f"{self.name}-{weights}-{self.epochs}epochs"
            trained = _trained(recipe, self.dataset, RunFolder(folder / run_name))
            own_floats = self._float_classes(trained)
            _print_row(weights, "trained", self._cells(trained, None, own_floats))

    def _training(self, weights):
        """The recipe by which the network is trained on, alone and in float32, with
        quantised weights."""
        card = rsnn.models.list_pretrained()[self.name]
        alone = ("ordinary", "teacher_weight", "teachers", "temperature", "mix")
        settings = {
            **{name: DEFAULTS[name] for name in alone},
            **card.arguments,
            "precision": "float32",
            "timesteps": card.timesteps,
            "weights": weights,
            "epochs": self.epochs,
            "learning_rate": LEARNING_RATE,
            "start_from": self.name,
            "optimizer": "adam",
            "weight_decay": 0,
        }
        return self.recipe.with_settings(
            f"{name}={value}" for name, value in settings.items()
        )

    def _float_classes(self, model):
        """The classes of all images at each T."""
        all_classes = []
        for timesteps in self.timesteps:
            model.timesteps = timesteps
            all_classes.append(_classes(model, self.images))
        return all_classes

    def _cells(self, model, weights, floats):
        cells = []
        for timesteps, classes in zip(self.timesteps, floats, strict=True):
            model.timesteps = timesteps
            chip = rsnn.integer(
                model,
                weights,
                membrane_bits=self.membrane_bits,
                largest_input=int(self.dataset.train_images.max()),
                verbose=False,
            )
            logits = chip.integer_logits(self.images, BATCH_SIZE)
            integers = logits.argmax(axis=-1)
            right, changed = integers == self.labels, integers != classes
            cells.append(f"{np.mean(right):.2%} ({np.sum(changed):,})")
        return cells


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
