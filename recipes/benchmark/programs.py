"""Times of C programs beside two runtimes: `KERAS_BACKEND=tensorflow python -m
recipes.benchmark.programs` prints tables.

Pretrained networks classify test images one by one on one thread: as integers in the
program of `export_c`, compiled in two ways, and as floats in ONNX Runtime and LiteRT,
and in LiteRT with weights of 8 bits. Batch normalisation is folded for these.
"""

import ctypes
import functools
import pathlib
import shutil
import subprocess
import tempfile
import time

import numpy as np

import keras_ratesnn as rsnn
from recipes import catalogue, command_line, device, markdown, packages
from recipes.benchmark import timing

NETWORKS = {
    "digits": "digits",
    "fashion_mnist": "fashion_mnist",
    "fashion_mnist_resnet13_integer": "fashion_mnist_resnet13",
}
"""Pretrained networks, and their recipes."""

FLAGS = ("-O3 -march=native", "-O2")
"""Of the compiler."""

UNIT = "ONNX Runtime, float32"
"""Its time is 1 in the ratios."""


def add_arguments(parser):
    networks = "pretrained networks (default: all)"
    parser.add_argument(
        "--networks",
        choices=NETWORKS,
        nargs="+",
        default=list(NETWORKS),
        metavar="NAME",
        help=networks,
    )
    command_line.add_data_dir(parser, "folder of the files of Fashion-MNIST")
    command_line.add_count(parser, "--images", "number of test images", 20)
    command_line.add_count(
        parser, "--rounds", "number of times that all images are classified", 11
    )


def measure(arguments):
    with command_line.mistakes():
        device.check_backend("tensorflow", "LiteRT files are made on TensorFlow only.")
        if shutil.which("gcc") is None:
            raise ImportError(
                "The C programs need gcc, which is not on the path. Install it: on "
                "Debian, apt-get install gcc."
            )
        for package in ("onnxruntime", "ai_edge_litert.interpreter"):
            packages.imported(package, "The comparison with runtimes", "export")
        folders = {
            name: None if name == "digits" else arguments.data_dir
            for name in arguments.networks
        }
        datasets = {
            name: catalogue.find(NETWORKS[name]).load(folder)
            for name, folder in folders.items()
        }
    print(
        f"{device.name()}, batches of 1 on one thread, CPU times, medians and "
        f"quartiles of {arguments.rounds} rounds"
    )
    for name, dataset in datasets.items():
        with tempfile.TemporaryDirectory() as folder:
            _print_table(name, dataset, arguments, pathlib.Path(folder))


def _print_table(name, dataset, arguments, folder):
    images, labels = (
        dataset.test_images[: arguments.images],
        dataset.test_labels[: arguments.images],
    )
    cases = _cases(
        rsnn.models.load_pretrained(name),
        images,
        int(dataset.train_images.max()),
        folder,
    )
    # Runtimes choose their kernels in the first calls.
    classes = {
        title: [run().argmax() for run in [*runs, *runs]][len(runs) :]
        for title, runs in cases.items()
    }
    seconds = timing.interleaved(
        {title: functools.partial(_run_all, runs) for title, runs in cases.items()},
        arguments.rounds,
        # Of the only thread, so that other processes count less.
        clock=time.process_time,
        least_seconds=timing.LEAST_SECONDS,
    )
    columns = ("", "CPU ms an image", f"beside {UNIT}", "right classes")
    print(f"\n{name}\n\n{markdown.heading(columns)}")
    for title, values in seconds.items():
        milliseconds = timing.with_quartiles(
            timing.spread(values), 1e3 / len(images), 3
        )
        ratio = timing.spread(timing.ratios(values, seconds[UNIT]))["median"]
        right = np.sum(np.array(classes[title]) == labels)
        print(
            markdown.row(
                (title, milliseconds, f"{ratio:.2f}", f"{right} of {len(images)}")
            ),
            flush=True,
        )


def _run_all(runs):
    for run in runs:
        run()


def _cases(model, images, largest_input, folder):
    """Lists of functions by title, one for each image, which return its logits."""
    import tensorflow as tf

    chip = rsnn.integer(model, largest_input=largest_input, verbose=False)
    rsnn.export_c(chip, folder / "net.c")
    cases = {
        f"C, {flags}": _of_c(folder, flags, images, chip.plan.classes)
        for flags in FLAGS
    }
    folded, floats = (
        rsnn.fold_batch_normalization(model, verbose=False),
        images.astype("float32"),
    )
    folded.export(folder / "net.onnx", format="onnx", verbose=False)
    cases[UNIT] = _of_onnx(folder / "net.onnx", floats)
    for title, options in (
        ("float32", {}),
        ("weights of 8 bits", {"optimizations": [tf.lite.Optimize.DEFAULT]}),
    ):
        # The interpreter maps its file.
        path = folder / f"net{len(options)}.tflite"
        folded.export(path, format="litert", verbose=False, **options)
        cases[f"LiteRT, {title}"] = _of_litert(path, floats)
    return cases


def _of_c(folder, flags, images, classes):
    library = folder / f"net{flags.replace(' ', '')}.so"
    command = [
        "gcc",
        "-std=c99",
        *flags.split(),
        "-shared",
        "-fPIC",
        "net.c",
        "-o",
        library,
    ]
    subprocess.run(command, cwd=folder, check=True)
    classify = ctypes.CDLL(library).net_classify
    logits = (ctypes.c_int32 * classes)()

    def run(image):
        classify(image.ctypes, logits)
        return np.frombuffer(logits, "int32")

    return [
        functools.partial(run, np.ascontiguousarray(image, "uint8")) for image in images
    ]


def _of_onnx(path, images):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options)
    name = session.get_inputs()[0].name
    return [
        lambda image=image: session.run(None, {name: image})[0]
        for image in images[:, None]
    ]


def _of_litert(path, images):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=1)
    (place,), (result,) = (
        interpreter.get_input_details(),
        interpreter.get_output_details(),
    )
    interpreter.resize_tensor_input(place["index"], images[:1].shape)
    interpreter.allocate_tensors()

    def run(image):
        interpreter.set_tensor(place["index"], image)
        interpreter.invoke()
        return interpreter.get_tensor(result["index"])

    return [functools.partial(run, image) for image in images[:, None]]


main = command_line.command(
    __name__, "benchmark.programs", __doc__, add_arguments, measure
)
