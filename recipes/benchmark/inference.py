"""Images per second in inference: `KERAS_BACKEND=torch python -m
recipes.benchmark.inference` prints a table.

The network is the pretrained one for Fashion-MNIST, by default and with
`jit_compile=True`. On PyTorch SpikingJelly, if it is installed, runs it with the same
weights, in a process of its own. `--levels 4` measures instead the network with integer
spikes in one step, and its network of binary spikes in four slots, both with the same
weights, which were not trained for them.
"""

import contextlib
import functools
import importlib.util

import keras
import numpy as np

from keras_ratesnn import SpikingModel, engine_settings, models, unroll
from recipes import command_line, device, markdown
from recipes.benchmark import own_process, timing
from recipes.layers import integer_network

NETWORK = "fashion_mnist"
SHAPE = (28, 28, 1)
TOLERANCE = 1e-3
"""Of logits: a membrane within rounding of the threshold changes a logit by far
more."""


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
    pixels = (
        np.random.default_rng(0)
        .integers(0, 256, (arguments.batch, *SHAPE))
        .astype("uint8")
    )
    cases = {
        f"{name}, jit_compile={value}": _predicting(model, value, pixels)
        for value in ("auto", True)
        for name, model in _networks(arguments.levels).items()
    }
    outputs = {name: _warmed_up(step) for name, step in cases.items()}
    with contextlib.ExitStack() as processes:
        if (
            arguments.levels is None
            and keras.backend.backend() == "torch"
            and importlib.util.find_spec("spikingjelly")
        ):
            outputs["spikingjelly"], of_peer = own_process.made(
                processes, "spikingjelly", _spikingjelly, pixels
            )
            cases |= of_peer
        seconds = timing.interleaved(
            cases, arguments.rounds, least_seconds=timing.LEAST_SECONDS
        )
    print(
        f"{keras.backend.backend()} on {device.name()}: {NETWORK}, batches of "
        f"{arguments.batch}\n"
    )
    print(
        markdown.heading(
            ("", "images per second", "logits that agree with the first row")
        )
    )
    expected = next(iter(outputs.values()))
    for name, values in seconds.items():
        agreeing = np.mean(np.abs(outputs[name] - expected) < TOLERANCE)
        speed = arguments.batch / timing.spread(values)["median"]
        print(markdown.row((name, f"{speed:,.0f}", f"{agreeing:.1%}")))


def _networks(levels):
    """New models by name."""
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
    """The logits, and the step."""
    import torch

    from recipes.benchmark.translated import Translated

    where = "cuda" if device.gpu() else "cpu"
    network = Translated(models.load_pretrained(NETWORK)).eval().to(where)

    def step():
        with torch.inference_mode():
            return network(torch.as_tensor(pixels, device=where)).cpu().numpy()

    return _warmed_up(step), {"spikingjelly": step}


def _warmed_up(step):
    """The outputs of a step, once its calls are recorded or compiled."""
    before = 0
    if keras.backend.backend() == "torch":
        with engine_settings() as settings:
            before = max(settings["eager_calls"].values())
    for _ in range(before + 2):
        outputs = step()
    return outputs


main = command_line.command(
    __name__, "benchmark.inference", __doc__, add_arguments, measure
)
