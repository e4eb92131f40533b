"""A network for tests of the benchmark, which compiles in a second."""

import contextlib
import pickle

import keras
import pytest
from helpers import BACKEND, chain

import keras_ratesnn as rsnn
from recipes.benchmark import processes, timing

TINY = {"network": "Tiny", "width": 0.5, "batch": 3, "size": 8, "rounds": 2}


def tiny(input_shape, classes, timesteps, gradient, step_mode, width):
    """Has the arguments of the library's networks."""
    layers, filters = keras.layers, round(8 * width)
    network = chain(
        layers.Conv2D(filters, 3, use_bias=False),
        layers.BatchNormalization(),
        rsnn.layers.LIF(),
        layers.Conv2D(filters, 3),
        rsnn.layers.LIF(),
        layers.Flatten(),
        layers.Dense(classes),
        shape=input_shape,
    )
    return rsnn.SpikingModel(network, timesteps, gradient, step_mode)


@contextlib.contextmanager
def tiny_among_the_networks(build=tiny, **settings):
    """In this context PyTorch also records a call soon: what is measured is the graph,
    after fewer calls."""
    with pytest.MonkeyPatch.context() as patch, recorded_soon(**settings):
        patch.setattr(rsnn.models, "Tiny", build, raising=False)
        patch.setattr(rsnn.models, "__all__", (*rsnn.models.__all__, "Tiny"))
        patch.setattr(timing, "LEAST_SECONDS", 0.0)
        yield


def recorded_soon(**settings):
    if BACKEND != "torch":
        return rsnn.engine_settings()
    return rsnn.engine_settings(eager_calls={"auto": 2, True: 1}, **settings)


def measure_quickly(monkeypatch):
    """Each step runs once in a round, and those of other libraries run in this process,
    with copies of their arguments as another process gets them."""

    def made(stack, method, make, *arguments):
        return make(*pickle.loads(pickle.dumps(arguments)))

    monkeypatch.setattr(processes, "made", made)
    monkeypatch.setattr(timing, "LEAST_SECONDS", 0.0)
