"""Accuracy of a pretrained network before and after its weights are quantized: `python -m recipes.quantize digits`.

The same test images are classified by the network as it is; after `model.quantize("int8")`, by which Keras quantizes Dense
layers; and, on TensorFlow, by a LiteRT file whose converter has quantized the weights of Dense layers and convolutions. Batch
normalisation is folded for that file.
"""

import functools
import pathlib
import tempfile
import warnings

import keras
import numpy as np

import keras_ratesnn as rsnn
from recipes import catalogue, command_line, packages

BATCH_SIZE = 200
NETWORKS = ("digits", "fashion_mnist", "fashion_mnist_resnet13")
"""Pretrained networks of recipes with the same name."""


def add_arguments(parser):
    parser.add_argument("name", choices=NETWORKS, help="pretrained network")
    command_line.add_data_dir(parser)
    command_line.add_count(parser, "--images", "number of test images", help="number of test images (default: all)")


def quantize(arguments):
    with command_line.mistakes():
        variants = _variants()
        dataset = catalogue.find(arguments.name).load(arguments.data_dir)
    images, labels = dataset.test_images[: arguments.images], dataset.test_labels[: arguments.images]
    print(f"{arguments.name}, {len(labels):,} test images, on {keras.backend.backend()}")
    print("weights                                      accuracy  other classes than before  size of the file")
    before = None
    for title, run in variants.items():
        with tempfile.TemporaryDirectory() as folder:
            classes, size = run(rsnn.models.load_pretrained(arguments.name), images, pathlib.Path(folder))
        before = classes if before is None else before
        print(f"{title:43}  {np.mean(classes == labels):8.2%}  {np.sum(classes != before):25,}  {size / 1024:12,.0f} KiB")


def _variants():
    """Functions `(model, images, folder) -> (classes, bytes)` by the titles of their rows.

    Raises:
        ImportError: If a package for one of them is missing.
    """
    variants = {"float32": _saved, 'int8 in Dense layers, quantize("int8")': functools.partial(_saved, dtype="int8")}
    if keras.backend.backend() == "tensorflow":
        _interpreter()
        variants["int8 in Dense and convolutions, LiteRT file"] = _litert
    return variants


def _saved(model, images, folder, dtype=None):
    if dtype is not None:
        with warnings.catch_warnings():
            # The table says it.
            warnings.filterwarnings("ignore", "The weights of these layers stay as they were")
            model.quantize(dtype)
    model.save(folder / "model.keras")
    return model.predict(images, batch_size=BATCH_SIZE, verbose=0).argmax(axis=-1), (folder / "model.keras").stat().st_size


def _litert(model, images, folder):
    import tensorflow as tf

    folded, path = rsnn.fold_batch_normalization(model, verbose=False), folder / "model.tflite"
    folded.export(path, format="litert", verbose=False, optimizations=[tf.lite.Optimize.DEFAULT])
    return _classes_of_file(path, images), path.stat().st_size


def _interpreter():
    """The class that runs LiteRT files."""
    return packages.imported("ai_edge_litert.interpreter", "The LiteRT file", "export").Interpreter


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
        classes.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).argmax(axis=-1))
    return np.concatenate(classes)


main = command_line.command(__name__, "quantize", __doc__, add_arguments, quantize)
