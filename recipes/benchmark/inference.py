"""Images per second in inference: `KERAS_BACKEND=torch python -m
recipes.benchmark.inference` prints a table.

The network is the pretrained one for Fashion-MNIST, by default and with
`jit_compile=True`. On PyTorch SpikingJelly, if it is installed, runs it with the same
weights, in a process of its own. `--levels 4` measures instead the network with integer
spikes in one step, and its network of binary spikes in four slots, both with the same
weights, which were not trained for them.

`--programs` measures instead pretrained networks on TensorFlow that classify test
images one by one on one thread: as integers in the program of `export_c`, compiled in
two ways, and as floats in ONNX Runtime and LiteRT, and in LiteRT with weights of 8
bits. Batch normalisation is folded for these.
"""

import contextlib
import ctypes
import functools
import importlib.util
import pathlib
import shutil
import subprocess
import tempfile
import time

from recipes import command_line

NETWORK = "fashion_mnist"
SHAPE = (28, 28, 1)
RECIPES = {
    "digits": "digits",
    "fashion_mnist": "fashion_mnist",
    "fashion_mnist_resnet13_integer": "fashion_mnist_resnet13",
}
"""The recipes of the pretrained networks that `--programs` measures."""

IMAGES = 20
"""The number of test images that programs classify."""

FLAGS = ("-O3 -march=native", "-O2")
"""Of the compiler."""

UNIT = "ONNX Runtime, float32"
"""Its time is 1 in the ratios."""


def add_arguments(parser):
    command_line.add_count(parser, "--batch", "number of images in a batch", 128)
    command_line.add_count(parser, "--rounds", "number of times each is timed", 20)
    levels = (
        "measures integer spikes of up to D in a step, and the unrolled network "
        "(default: binary neurons)"
    )
    command_line.add_count(
        parser,
        "--levels",
        "largest number of spikes in a step",
        metavar="D",
        help=levels,
    )
    programs = (
        f"measures C programs beside runtimes, of {', '.join(RECIPES)} (default: all)"
    )
    parser.add_argument(
        "--programs", choices=RECIPES, nargs="*", metavar="NAME", help=programs
    )
    command_line.add_data_dir(parser, "folder of the files of Fashion-MNIST")


def measure(arguments):
    if arguments.programs is None:
        _measure_networks(arguments)
    else:
        _measure_programs(arguments)


def _measure_networks(arguments):
    import keras
    import numpy as np

    from recipes import device, markdown
    from recipes.benchmark import processes, timing

    shape = (arguments.batch, *SHAPE)
    pixels = np.random.default_rng(0).integers(0, 256, shape).astype("uint8")
    steps = {
        f"{name}, jit_compile={value}": _predicting(model, value, pixels)
        for value in ("auto", True)
        for name, model in _networks(arguments.levels).items()
    }
    for step in steps.values():
        _warm_up(step)
    backend = keras.backend.backend()
    has_peer = importlib.util.find_spec("spikingjelly") and arguments.levels is None
    with contextlib.ExitStack() as stack:
        if has_peer and backend == "torch":
            _, peer = processes.made(stack, "spikingjelly", _spikingjelly, pixels)
            steps |= peer
        seconds = timing.interleaved(
            steps, arguments.rounds, least_seconds=timing.LEAST_SECONDS
        )
    rows = []
    for name, values in seconds.items():
        speed = arguments.batch / timing.spread(values)["median"]
        rows.append((name, f"{speed:,.0f}"))
    print(f"{backend} on {device.name()}: {NETWORK}, batches of {arguments.batch}\n")
    print(markdown.table(("", "images per second"), rows))


def _networks(levels):
    """New models by name."""
    from keras_ratesnn import SpikingModel, models, unroll
    from recipes.layers import integer_network

    model = models.load_pretrained(NETWORK)
    if levels is None:
        return {"keras_ratesnn": model}
    network = integer_network(model.network, levels)
    network.set_weights(model.network.get_weights())
    integer = SpikingModel(network, timesteps=1)
    with command_line.mistakes():
        return {
            f"integer spikes, {levels} levels": integer,
            f"unrolled, {levels} slots": unroll(integer),
        }


def _predicting(model, jit_compile, pixels):
    model.compile(jit_compile=jit_compile)
    return functools.partial(model.predict_on_batch, pixels)


def _spikingjelly(pixels):
    """The step, after nothing that is known of it; see `processes.made`."""
    import torch

    from keras_ratesnn import models
    from recipes import device
    from recipes.benchmark.translated import Translated

    where = "cuda" if device.gpu() else "cpu"
    network = Translated(models.load_pretrained(NETWORK)).eval().to(where)

    def step():
        with torch.inference_mode():
            return network(torch.as_tensor(pixels, device=where)).cpu().numpy()

    _warm_up(step)
    return None, {"spikingjelly": step}


def _warm_up(step):
    """Calls a step until its calls are recorded or compiled."""
    import keras

    from keras_ratesnn import engine_settings

    before = 0
    if keras.backend.backend() == "torch":
        with engine_settings() as settings:
            before = max(settings["eager_calls"].values())
    for _ in range(before + 2):
        step()


# C programs


def _measure_programs(arguments):
    from recipes import catalogue, device, packages

    with command_line.mistakes():
        device.check_backend("tensorflow", "LiteRT files are made on TensorFlow only.")
        if shutil.which("gcc") is None:
            raise ImportError(
                "The C programs need gcc, which is not on the path. Install it: on "
                "Debian, apt-get install gcc."
            )
        for package in ("onnxruntime", "ai_edge_litert.interpreter"):
            packages.imported(package, "The comparison with runtimes", "export")
        datasets = {}
        for name in arguments.programs or RECIPES:
            folder = None if name == "digits" else arguments.data_dir
            datasets[name] = catalogue.find(RECIPES[name]).load(folder)
    print(
        f"{device.name()}, batches of 1 on one thread, CPU times, medians and "
        f"quartiles of {arguments.rounds} rounds"
    )
    for name, dataset in datasets.items():
        with tempfile.TemporaryDirectory() as folder:
            table = _programs_table(name, dataset, arguments, pathlib.Path(folder))
        print(f"\n{name}\n\n{table}", flush=True)


def _programs_table(name, dataset, arguments, folder):
    import numpy as np

    from keras_ratesnn import models
    from recipes import markdown
    from recipes.benchmark import timing

    images, labels = dataset.test_images[:IMAGES], dataset.test_labels[:IMAGES]
    largest_input = int(dataset.train_images.max())
    model = models.load_pretrained(name)
    programs = _programs(model, images, largest_input, folder)
    # Runtimes choose their kernels in the first calls.
    for classify in programs.values():
        _classes(classify, images)
    seconds = timing.interleaved(
        {
            title: functools.partial(_classes, classify, images)
            for title, classify in programs.items()
        },
        arguments.rounds,
        # Of the only thread, so that other processes count less.
        clock=time.process_time,
        least_seconds=timing.LEAST_SECONDS,
    )
    rows = []
    for title, values in seconds.items():
        spread = timing.spread(values)
        milliseconds = timing.with_quartiles(spread, 1e3 / len(images), 3)
        ratio = timing.spread(timing.ratios(values, seconds[UNIT]))["median"]
        right = np.sum(_classes(programs[title], images) == labels)
        rows.append((title, milliseconds, f"{ratio:.2f}", f"{right} of {IMAGES}"))
    columns = ("", "CPU ms an image", f"beside {UNIT}", "right classes")
    return markdown.table(columns, rows)


def _classes(classify, images):
    """The classes of images, one by one."""
    return [classify(image).argmax() for image in images]


def _programs(model, images, largest_input, folder):
    """Functions of an image that return its logits, by title."""
    import tensorflow as tf

    import keras_ratesnn as rsnn

    chip = rsnn.integer(model, largest_input=largest_input, verbose=False)
    rsnn.export_c(chip, folder / "net.c")
    programs = {
        f"C, {flags}": _c_program(folder, flags, chip.plan.classes) for flags in FLAGS
    }
    folded = rsnn.fold_batch_normalization(model, verbose=False)
    folded.export(folder / "net.onnx", format="onnx", verbose=False)
    programs[UNIT] = _onnx_session(folder / "net.onnx")
    eight_bits = {"optimizations": [tf.lite.Optimize.DEFAULT]}
    for title, options in (("float32", {}), ("weights of 8 bits", eight_bits)):
        # The interpreter maps its file.
        path = folder / f"net{len(options)}.tflite"
        folded.export(path, format="litert", verbose=False, **options)
        programs[f"LiteRT, {title}"] = _litert_interpreter(path, images[:1].shape)
    return programs


def _c_program(folder, flags, classes):
    import numpy as np

    library = folder / f"net{flags.replace(' ', '')}.so"
    command = ["gcc", "-std=c99", *flags.split(), "-shared", "-fPIC", "net.c"]
    subprocess.run([*command, "-o", library], cwd=folder, check=True)
    program = ctypes.CDLL(library).net_classify
    logits = (ctypes.c_int32 * classes)()

    def classify(image):
        program(np.ascontiguousarray(image, "uint8").ctypes, logits)
        return np.frombuffer(logits, "int32")

    return classify


def _onnx_session(path):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options)
    name = session.get_inputs()[0].name
    return lambda image: session.run(None, {name: image[None].astype("float32")})[0]


def _litert_interpreter(path, shape):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=1)
    (inputs,) = interpreter.get_input_details()
    (outputs,) = interpreter.get_output_details()
    interpreter.resize_tensor_input(inputs["index"], shape)
    interpreter.allocate_tensors()

    def classify(image):
        interpreter.set_tensor(inputs["index"], image[None].astype("float32"))
        interpreter.invoke()
        return interpreter.get_tensor(outputs["index"])

    return classify


main = command_line.command(
    __name__, "benchmark.inference", __doc__, add_arguments, measure
)
