"""Images per second in inference: `KERAS_BACKEND=torch python -m
recipes.benchmark.inference` prints a table.

The network is the pretrained one for Fashion-MNIST, by default and with
`jit_compile=True`. On PyTorch SpikingJelly, if it is installed, runs it with the same
weights, in a process of its own. `--levels 4` measures instead the network with integer
spikes in one step, and its network of binary spikes in four substeps, both with the
same weights, which were not trained for them.
"""

import contextlib
import functools
import importlib.util

from recipes import command_line

NETWORK = "fashion_mnist"
SHAPE = (28, 28, 1)


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


def measure(arguments):
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
    from keras_ratesnn import SpikingModel, models
    from keras_ratesnn.deploy import unroll
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
            f"unrolled, {levels} substeps": unroll(integer),
        }


def _predicting(model, jit_compile, pixels):
    model.compile(jit_compile=jit_compile)
    return functools.partial(model.predict_on_batch, pixels)


def _spikingjelly(pixels):
    """A pair for `processes.made`: `None`, since nothing else is known of the step, and
    the step by its name."""
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


main = command_line.command(
    __name__, "benchmark.inference", __doc__, add_arguments, measure
)
