"""What `recorded` saves for ordinary Keras models: `KERAS_BACKEND=torch python -m
recipes.benchmark.recorded`.

Prints the time of a training step of an MLP and of a ResNet-18, without spikes: by
`fit` of the Keras model, by `fit` of `keras_ratesnn.recorded(model)`, and by a loop of
plain PyTorch over the same layers. Epochs of the three take turns; a ratio is the
median of those of the rounds (quartiles). What is compiled or recorded is so before;
the first step is told beside.
"""

import dataclasses
import functools
import itertools

import keras
import numpy as np

from keras_ratesnn import models, recorded
from recipes import command_line, device, markdown
from recipes.benchmark import cases, measure, timing
from recipes.benchmark.arguments import add_settings, settings_of
from recipes.benchmark.settings import CHANNELS, CLASSES
from recipes.layers import relu_network

STEPS = 16
"""In an epoch."""

HIDDEN, UNITS = 3, 1024
"""The hidden layers of the MLP, and their units at width 1."""

FIT, RECORDED, PYTORCH = "keras.Model.fit", "recorded(model).fit", "plain PyTorch"


def add_arguments(parser):
    add_settings(parser, "width", "batch", "size", "rounds", "data_format", "threads")


def run(arguments):
    settings = settings_of(arguments)
    if keras.backend.backend() != "torch":
        print(
            f"On {keras.backend.backend()}, which compiles whole steps, `recorded` "
            "returns the model as it is."
        )
        return
    cases.configure(settings)
    print(
        f"torch on {device.name()}: width {settings.width}, batch {settings.batch}, "
        f"{settings.size}x{settings.size}\n"
    )
    print(
        markdown.heading(
            (
                "network",
                "",
                "ms",
                f"ratio to {FIT}",
                f"ratio to {PYTORCH}",
                "first step, s",
            )
        )
    )
    for name in NETWORKS:
        first, seconds = measured(settings, name)
        for way, of_rounds in seconds.items():
            bases = (
                timing.spread(timing.ratios(of_rounds, seconds[base]))
                for base in (FIT, PYTORCH)
            )
            ratios = (timing.with_quartiles(base, 1, 2) for base in bases)
            time = timing.with_quartiles(timing.spread(of_rounds), 1000 / STEPS, 2)
            print(
                markdown.row((name, way, time, *ratios, f"{first[way]:.2f}")),
                flush=True,
            )


def measured(settings, name):
    """`(first, seconds)` of a network, by the way to train it: seconds of its first
    step, and of its epoch in each round."""
    images, labels = map(
        keras.ops.convert_to_numpy,
        cases.batch(dataclasses.replace(settings, batch=STEPS * settings.batch)),
    )
    ordinary, module = NETWORKS[name](settings)
    epochs, first = {}, {}
    for way, model in {
        FIT: ordinary,
        RECORDED: recorded(keras.models.clone_model(ordinary)),
    }.items():
        model.compile("sgd", cases.loss())
        first[way] = functools.partial(
            model.train_on_batch, images[: settings.batch], labels[: settings.batch]
        )
        epochs[way] = functools.partial(
            model.fit, images, labels, settings.batch, shuffle=False, verbose=0
        )
    epochs[PYTORCH] = _in_pytorch(module, images, labels, settings)
    first[PYTORCH] = functools.partial(epochs[PYTORCH], 1)
    first = {way: seconds for way, (seconds,) in timing.interleaved(first, 1).items()}
    # Keras compiles nothing on PyTorch; what is recorded is so after some calls.
    warm_up = (
        max(measure.compiling_calls(settings, settings.methods[0]))
        + measure.WARM_UP_STEPS
    )
    timing.interleaved(epochs, -(-warm_up // STEPS))
    return first, timing.interleaved(epochs, settings.rounds)


def _in_pytorch(module, images, labels, settings):
    """A function for an epoch of plain PyTorch; images have their channels first
    there."""
    import torch

    from recipes.benchmark.peers import Trainer

    where = "cuda" if device.gpu() else "cpu"
    if settings.data_format == "channels_last":
        images = np.ascontiguousarray(np.moveaxis(images, -1, 1))
    data = torch.utils.data.TensorDataset(
        torch.as_tensor(images), torch.as_tensor(labels, dtype=torch.int64)
    )
    batches = torch.utils.data.DataLoader(data, settings.batch)
    trainer = Trainer(module.to(where), "float32")

    def epoch(steps=STEPS):
        for _, batch in zip(range(steps), batches, strict=False):
            trainer.train_on_batch(*(part.to(where) for part in batch))

    return epoch


def _mlp(settings):
    from torch import nn

    sizes = [
        settings.size**2 * CHANNELS,
        *[max(1, round(UNITS * settings.width))] * HIDDEN,
    ]
    hidden = [keras.layers.Dense(units, "relu") for units in sizes[1:]]
    module = [
        part
        for pair in itertools.pairwise(sizes)
        for part in (nn.Linear(*pair), nn.ReLU())
    ]
    inputs = keras.Input(cases.image_shape(settings)), keras.layers.Flatten()
    ordinary = keras.Sequential([*inputs, *hidden, keras.layers.Dense(CLASSES)])
    return ordinary, nn.Sequential(nn.Flatten(), *module, nn.Linear(sizes[-1], CLASSES))


def _resnet(settings):
    from torch import nn

    from recipes.benchmark.peers import resnet18

    shape = cases.image_shape(settings)
    spiking = models.ResNet18(
        input_shape=shape, classes=CLASSES, timesteps=1, width=settings.width
    )
    return relu_network(spiking.network), nn.Sequential(
        *resnet18(settings.width, nn, nn.ReLU)
    )


NETWORKS = {"MLP": _mlp, "ResNet18": _resnet}
"""Functions that return a Keras model, and a module of PyTorch with the same layers."""


main = command_line.command(__name__, "benchmark.recorded", __doc__, add_arguments, run)
